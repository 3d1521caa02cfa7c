import { api, unwrap } from '$lib/api/client';
import { problemOf } from '$lib/api/problem';
import type { PageLoad } from './$types';

export const load: PageLoad = async ({ params }) => {
	const path = { agent: params.agent, recording: params.id };
	try {
		return { recording: await unwrap(api.GET('/api/v1/agents/{agent}/recordings/{recording}', { params: { path } })), problem: null };
	} catch (thrown) {
		return { recording: null, problem: problemOf(thrown) };
	}
};
