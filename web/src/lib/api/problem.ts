// Failures of API calls, as one type that pages can show and forms can spread over their fields.
import type { Problem } from './types';

/** A call that failed: the master's problem, or that it could not be reached at all. */
export class ProblemError extends Error {
	readonly problem: Problem;

	constructor(problem: Problem) {
		super(problem.detail || problem.title);
		this.name = 'ProblemError';
		this.problem = problem;
	}

	/** What is wrong with one field, when that is what the problem is about. */
	field(name: string): string | undefined {
		return this.problem.errors?.find((error) => error.field === name)?.message;
	}
}

/** The problem in whatever was thrown. */
export function problemOf(thrown: unknown): Problem {
	if (thrown instanceof ProblemError) return thrown.problem;
	// `fetch` throws a TypeError for every failure below HTTP.
	if (thrown instanceof TypeError) return unreachable();
	const detail = thrown instanceof Error ? thrown.message : String(thrown);
	return { code: 'internal', status: 0, title: 'Unexpected failure', detail };
}

/** The problem in an answer's body, which a proxy may have replaced by anything. */
export function problemOfBody(body: unknown, status: number): Problem {
	if (typeof body === 'object' && body !== null && 'code' in body && 'detail' in body) {
		const problem = body as Problem;
		return { ...problem, status: problem.status || status, errors: problem.errors ?? [] };
	}
	return {
		code: 'internal',
		status,
		title: 'Unexpected answer',
		detail: `the master answered with status ${status} and no reason`
	};
}

function unreachable(): Problem {
	return {
		code: 'unavailable',
		status: 0,
		title: 'Cannot reach the master',
		detail: 'the master does not answer; check that it runs and that this computer is connected'
	};
}
