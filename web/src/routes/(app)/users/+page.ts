import { api, unwrap } from '$lib/api/client';
import { problemOf } from '$lib/api/problem';
import type { PageLoad } from './$types';

export const load: PageLoad = async ({ depends }) => {
	depends('batwa:users');
	try {
		return { items: (await unwrap(api.GET('/api/v1/users'))).items, problem: null };
	} catch (thrown) {
		return { items: [], problem: problemOf(thrown) };
	}
};
