import { api, unwrap } from '$lib/api/client';
import { problemOf } from '$lib/api/problem';
import type { PageLoad } from './$types';

export const load: PageLoad = async ({ depends }) => {
	depends('batwa:settings');
	try {
		const [tokens, sessions, keys] = await Promise.all([
			unwrap(api.GET('/api/v1/tokens')),
			unwrap(api.GET('/api/v1/sessions')),
			// Viewers make no VMs and have none.
			api.GET('/api/v1/ssh-keys').then((answer) => answer.data?.items ?? [])
		]);
		return { tokens: tokens.items, sessions: sessions.items, keys, problem: null };
	} catch (thrown) {
		return { tokens: [], sessions: [], keys: [], problem: problemOf(thrown) };
	}
};
