// Loading what may change while it is loaded.

/**
 * Runs `work` one at a time. Who asks while it runs gets the run after that, one for all who ask: the answer under way
 * may be older than what made them ask. The promise is that of a run which began after the question.
 */
export function oneAtATime(work: () => Promise<void>): () => Promise<void> {
	let running: Promise<void> | null = null;
	let next: Promise<void> | null = null;
	const begin = () => {
		next = null;
		const run = work().finally(() => {
			if (running === run) running = null;
		});
		running = run;
		return run;
	};
	return () => {
		if (next) return next;
		if (!running) return begin();
		return (next = running.then(begin, begin));
	};
}
