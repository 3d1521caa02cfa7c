import { api, unwrap } from '$lib/api/client';
import { problemOf } from '$lib/api/problem';
import type { PageLoad } from './$types';

export const load: PageLoad = async ({ depends }) => {
	depends('batwa:audit');
	try {
		return { items: (await unwrap(api.GET('/api/v1/audit'))).items, problem: null };
	} catch (thrown) {
		return { items: [], problem: problemOf(thrown) };
	}
};
