import { api, unwrap } from '$lib/api/client';
import { problemOf } from '$lib/api/problem';
import type { PageLoad } from './$types';

export const load: PageLoad = async ({ depends }) => {
	depends('batwa:settings');
	try {
		const [tokens, sessions] = await Promise.all([unwrap(api.GET('/api/v1/tokens')), unwrap(api.GET('/api/v1/sessions'))]);
		return { tokens: tokens.items, sessions: sessions.items, problem: null };
	} catch (thrown) {
		return { tokens: [], sessions: [], problem: problemOf(thrown) };
	}
};
