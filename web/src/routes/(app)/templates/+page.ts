import { api, unwrap } from '$lib/api/client';
import { problemOf } from '$lib/api/problem';
import type { PageLoad } from './$types';

export const load: PageLoad = async ({ depends }) => {
	depends('batwa:templates');
	try {
		const templates = await unwrap(api.GET('/api/v1/templates'));
		return { items: templates.items, problem: null };
	} catch (thrown) {
		return { items: [], problem: problemOf(thrown) };
	}
};
