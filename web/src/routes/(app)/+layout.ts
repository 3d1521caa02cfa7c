import { error, redirect } from '@sveltejs/kit';
import { api, unwrap } from '$lib/api/client';
import { problemOf } from '$lib/api/problem';
import { session } from '$lib/state/session.svelte';
import type { LayoutLoad } from './$types';

/** Every page in here has somebody signed in. */
export const load: LayoutLoad = async ({ url, untrack }) => {
	try {
		session.current = await unwrap(api.GET('/api/v1/session'));
	} catch (thrown) {
		const problem = problemOf(thrown);
		if (problem.status !== 401) error(problem.status || 503, { message: problem.detail });
		const { needed } = await unwrap(api.GET('/api/v1/setup'));
		const next = untrack(() => url.pathname + url.search);
		redirect(307, needed ? '/setup' : `/sign-in${next === '/' ? '' : `?next=${encodeURIComponent(next)}`}`);
	}
};
