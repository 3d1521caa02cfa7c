import { problemOf } from '$lib/api/problem';
import { readDocument } from '$lib/model/openapi';
import type { PageLoad } from './$types';

export const load: PageLoad = async ({ fetch }) => {
	try {
		const answer = await fetch('/api/v1/openapi.json');
		if (!answer.ok) throw new Error(`the master answered with status ${answer.status}`);
		return { document: readDocument(await answer.json()), problem: null };
	} catch (thrown) {
		return { document: null, problem: problemOf(thrown) };
	}
};
