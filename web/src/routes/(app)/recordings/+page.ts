import { api, unwrap } from '$lib/api/client';
import { problemOf } from '$lib/api/problem';
import type { PageLoad } from './$types';

export const load: PageLoad = async ({ depends, url }) => {
	depends('batwa:recordings');
	const asked = (name: string) => url.searchParams.get(name) || undefined;
	const day = (name: string, plus: number) => {
		const text = asked(name);
		const time = text ? Date.parse(`${text}T00:00:00`) : NaN;
		return Number.isNaN(time) ? undefined : new Date(time + plus).toISOString();
	};
	const query = { q: asked('q'), vm: asked('vm'), user: asked('user'), agent: asked('agent'), since: day('since', 0), until: day('until', 24 * 3600_000) };
	try {
		return { found: await unwrap(api.GET('/api/v1/recordings', { params: { query } })), problem: null };
	} catch (thrown) {
		return { found: { items: [], partial: false, unanswered: [] }, problem: problemOf(thrown) };
	}
};
