import { api, unwrap } from '$lib/api/client';
import { problemOf } from '$lib/api/problem';
import type { PageLoad } from './$types';

export const load: PageLoad = async ({ depends }) => {
	depends('batwa:images');
	try {
		return { items: (await unwrap(api.GET('/api/v1/images'))).items, problem: null };
	} catch (thrown) {
		return { items: [], problem: problemOf(thrown) };
	}
};
