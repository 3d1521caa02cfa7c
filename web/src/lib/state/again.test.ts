import { expect, test } from 'vitest';
import { oneAtATime } from './again';

/** Work of which each run ends when the test says so. */
function work() {
	const ends: { resolve: () => void; reject: (thrown: Error) => void }[] = [];
	const run = oneAtATime(() => new Promise<void>((resolve, reject) => ends.push({ resolve, reject })));
	return { ends, run };
}

test('who asks during a run gets the one after it, and all who ask share that one', async () => {
	const { ends, run } = work();
	const first = run();
	const second = run();
	expect(run()).toBe(second);
	expect(ends).toHaveLength(1);
	ends[0]?.resolve();
	await first;
	await Promise.resolve();
	expect(ends).toHaveLength(2);
	const third = run();
	expect(third).not.toBe(second);
	ends[1]?.resolve();
	await second;
	await Promise.resolve();
	expect(ends).toHaveLength(3);
	ends[2]?.resolve();
	await third;
	void run();
	expect(ends).toHaveLength(4);
});

test('never do two run at once, whenever one asks', async () => {
	let [running, most, runs] = [0, 0, 0];
	const run = oneAtATime(async () => {
		running += 1;
		runs += 1;
		most = Math.max(most, running);
		await Promise.resolve();
		running -= 1;
	});
	const asked: Promise<void>[] = [];
	for (let i = 0; i < 20; i += 1) {
		asked.push(run());
		await Promise.resolve();
	}
	await Promise.all(asked);
	expect(most).toBe(1);
	expect(runs).toBeGreaterThan(2);
});

test('a run that fails does not keep the next from running', async () => {
	const { ends, run } = work();
	const first = run();
	const second = run();
	ends[0]?.reject(new Error('no answer'));
	await expect(first).rejects.toThrow('no answer');
	await Promise.resolve();
	ends[1]?.resolve();
	await second;
	expect(ends).toHaveLength(2);
});
