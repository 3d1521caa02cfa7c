// The page's API client: typed by the OpenAPI document, one place for failures.
import createClient from 'openapi-fetch';
import { ProblemError, problemOf, problemOfBody } from './problem';
import type { paths } from './schema';

export const api = createClient<paths>({ baseUrl: '', credentials: 'same-origin' });

type Answer<T> = { data?: T; error?: unknown; response: Response };

/** Called with every 401, so that the page can ask to sign in again. */
let onSignedOut: () => void = () => undefined;

export function whenSignedOut(callback: () => void): void {
	onSignedOut = callback;
}

/** The body of a successful answer; throws [`ProblemError`] for everything else. */
export async function unwrap<T>(call: Promise<Answer<T>>): Promise<T> {
	let answer: Answer<T>;
	try {
		answer = await call;
	} catch (thrown) {
		throw new ProblemError(problemOf(thrown));
	}
	if (!answer.response.ok) {
		const problem = problemOfBody(answer.error, answer.response.status);
		if (problem.status === 401 && !answer.response.url.endsWith('/api/v1/session')) onSignedOut();
		throw new ProblemError(problem);
	}
	return answer.data as T;
}

/** The WebSocket address of a path of this master. */
export function socketUrl(path: string): string {
	const url = new URL(path, location.href);
	url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
	return url.href;
}
