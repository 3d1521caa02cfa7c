// The least that tests need: suites in order, but for those that mostly wait, a deadline for each test, one line each, and conditions that are
// waited for rather than slept for.

/**
 * @typedef {{ name: string, limit: number, body: (context: any) => Promise<void> }} Test
 * @typedef {{ name: string, waits: boolean, start: () => Promise<any>, stop: (context: any) => Promise<void>, failed: (context: any, test: string) => Promise<void>, tests: Test[] }} Suite
 */

/** @type {Suite[]} */
const suites = [];

/**
 * Tests that share what `start` makes. They run in order; after a failure the later ones run too, and say what they miss.
 * @param {string} name
 * @param {{ waits?: boolean, start: () => Promise<any>, stop: (context: any) => Promise<void>, failed?: (context: any, test: string) => Promise<void> }} hooks `waits`
 * where they hardly do anything but wait: they run beside the others
 */
export function suite(name, { waits = false, start, stop, failed = async () => {} }) {
	/** @type {Suite} */
	const made = { name, waits, start, stop, failed, tests: [] };
	suites.push(made);
	/**
	 * @param {string} test
	 * @param {(context: any) => Promise<void>} body
	 * @param {number} [limit] seconds
	 */
	return (test, body, limit = 60) => made.tests.push({ name: test, limit, body });
}

/**
 * Waits until a question is answered with something true, and returns that.
 * @template T
 * @param {string} what
 * @param {() => Promise<T> | T} ask
 * @param {number} [seconds]
 * @returns {Promise<T>}
 */
export async function eventually(what, ask, seconds = 20) {
	const until = Date.now() + seconds * 1000;
	let last;
	for (;;) {
		try {
			const answer = await ask();
			if (answer) return answer;
			last = answer;
		} catch (thrown) {
			last = thrown;
		}
		if (Date.now() > until) throw new Error(`${what}: not within ${seconds} s; last: ${String(last).slice(0, 2000)}`);
		await new Promise((resolve) => setTimeout(resolve, 50));
	}
}

/** @param {unknown} fact @param {string} what */
export function check(fact, what) {
	if (!fact) throw new Error(what);
}

/** @param {string | undefined} only */
export async function runAll(only) {
	let passed = 0;
	let failures = 0;
	const run = async (/** @type {Suite} */ { name, start, stop, failed, tests }) => {
		const chosen = tests.filter((test) => !only || test.name.includes(only));
		if (chosen.length === 0) return;
		let context;
		try {
			context = await start();
		} catch (thrown) {
			console.log(`FAIL ${name}: cannot start: ${thrown instanceof Error ? thrown.stack : thrown}`);
			failures += chosen.length;
			return;
		}
		try {
			for (const [at, test] of chosen.entries()) {
				const began = Date.now();
				const took = () => `${((Date.now() - began) / 1000).toFixed(1)} s`;
				/** @type {NodeJS.Timeout | undefined} */
				let timer;
				try {
					await Promise.race([
						test.body(context),
						new Promise((_, reject) => {
							timer = setTimeout(() => reject(new Error(`takes longer than ${test.limit} s`)), test.limit * 1000);
						})
					]);
					passed += 1;
					console.log(`ok   ${name}: ${test.name} (${took()})`);
				} catch (thrown) {
					failures += 1;
					console.log(`FAIL ${name}: ${test.name} (${took()})\n     ${String(thrown instanceof Error ? thrown.stack : thrown).replaceAll('\n', '\n     ')}`);
					await failed(context, test.name).catch(() => {});
					if (at === 0 && chosen.length > 1) {
						// Without what the first test sets up, the others would only wait for it.
						failures += chosen.length - 1;
						console.log(`FAIL ${name}: the other ${chosen.length - 1} tests need this one`);
						break;
					}
				} finally {
					clearTimeout(timer);
				}
			}
		} finally {
			await stop(context).catch((thrown) => console.log(`${name}: cannot stop cleanly: ${thrown}`));
		}
	};
	const beside = suites.filter((suite) => suite.waits).map(run);
	for (const one of suites) if (!one.waits) await run(one);
	await Promise.all(beside);
	console.log(`${passed} passed, ${failures} failed`);
	return failures === 0 && passed > 0 ? 0 : 1;
}
