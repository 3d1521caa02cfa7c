import { describe, expect, test } from 'vitest';
import { Blocks } from './blocks';

/** A master with a list of numbers; its cursors are the last number of a page. */
class Master {
	fetches = 0;
	constructor(public rows: number[]) {}

	/** Fetches until the rows from `first` to before `last` are fresh, and returns them. */
	show(blocks: Blocks<number>, first: number, last: number): (number | undefined)[] {
		for (let n = 0; n < 1000; n += 1) {
			const wanted = blocks.wanted(first, last);
			if (!wanted) return this.seen(blocks, first, last);
			this.fetches += 1;
			const after = wanted.cursor === null ? 0 : this.rows.findIndex((row) => row > Number(wanted.cursor));
			const from = after < 0 ? -1 : after + wanted.skip;
			const limit = wanted.blocks * blocks.size;
			const items = from < 0 ? [] : this.rows.slice(from, from + limit);
			const more = from >= 0 && from + limit < this.rows.length;
			blocks.put(wanted, items, more ? String(items.at(-1)) : null, this.rows.length);
		}
		throw new Error('it never comes to rest');
	}

	seen(blocks: Blocks<number>, first: number, last: number) {
		return Array.from({ length: Math.min(last, blocks.total) - first }, (_, i) => blocks.at(first + i));
	}
}

const upTo = (n: number, step = 10) => Array.from({ length: n }, (_, i) => i * step);
function fresh(total: number): Blocks<number> {
	const blocks = new Blocks<number>(10, 5, 6);
	blocks.total = total;
	return blocks;
}

describe('a list known in parts', () => {
	test('fetches only what is looked at, in order', () => {
		const master = new Master(upTo(1000));
		const blocks = fresh(1);
		expect(master.show(blocks, 0, 25)).toEqual(upTo(1000).slice(0, 25));
		expect(master.fetches).toBe(2);
		expect(blocks.total).toBe(1000);
		expect(master.show(blocks, 5, 25)).toHaveLength(20);
		expect(master.fetches).toBe(2);
	});

	test('goes to what is far away in one step, and keeps little of what was looked at', () => {
		const master = new Master(upTo(1000));
		const blocks = fresh(1000);
		expect(master.show(blocks, 500, 520)).toEqual(upTo(1000).slice(500, 520));
		expect(master.fetches).toBe(1);
		for (let first = 0; first < 1000; first += 35) master.show(blocks, first, first + 35);
		blocks.trim(500, 520);
		expect([...blocks.known()]).toHaveLength(60);
		expect(blocks.at(505)).toBe(5050);
		const before = master.fetches;
		expect(master.show(blocks, 400, 420)).toEqual(upTo(1000).slice(400, 420));
		expect(master.fetches - before).toBe(1);
	});

	test('the end is where the master says it is', () => {
		const master = new Master(upTo(33));
		const blocks = fresh(1000);
		expect(master.show(blocks, 0, 100)).toEqual(upTo(33));
		expect(blocks.total).toBe(33);
		expect(blocks.wanted(0, 1000)).toBeNull();
		const nothing = fresh(50);
		expect(new Master([]).show(nothing, 0, 50)).toEqual([]);
		expect(nothing.total).toBe(0);
	});

	test('what is shown stays until something newer came, and rows that move are neither lost nor double', () => {
		const master = new Master(upTo(200));
		const blocks = fresh(200);
		master.show(blocks, 0, 200);
		master.rows = [1, 2, 3, ...master.rows.filter((row) => row !== 120)].sort((a, b) => a - b);
		blocks.age(10, 40);
		expect(blocks.at(15)).toBe(150);
		expect(blocks.at(90)).toBeUndefined();
		const shown = master.show(blocks, 0, 1000);
		expect(shown).toEqual(master.rows);
	});

	test('any mix of looking and changing ends in the list as it is', () => {
		// A small generator, so that a failure can be had again.
		for (let seed = 1; seed <= 60; seed += 1) {
			let state = seed;
			const random = (below: number) => {
				state = (state * 1103515245 + 12345) % 2147483648;
				return state % below;
			};
			const master = new Master(upTo(random(300)));
			const blocks = fresh(300);
			for (let step = 0; step < 25; step += 1) {
				const first = random(300);
				if (random(2)) master.show(blocks, first, first + 35);
				else {
					const rows = master.rows.filter(() => random(9) > 0);
					for (let n = random(6); n > 0; n -= 1) rows.push(random(3000));
					master.rows = [...new Set(rows)].sort((a, b) => a - b);
					blocks.age(first, first + 35);
					blocks.trim(first, first + 35);
				}
			}
			blocks.age(0, 1000);
			blocks.total = Math.max(blocks.total, master.rows.length);
			expect(master.show(blocks, 0, 1000), `seed ${seed}`).toEqual(master.rows);
		}
	});

	test('rows change in place', () => {
		const master = new Master(upTo(30));
		const blocks = fresh(30);
		master.show(blocks, 0, 30);
		blocks.change((row) => (row === 50 ? 51 : null));
		expect(blocks.at(5)).toBe(51);
		expect(blocks.wanted(0, 30)).toBeNull();
	});
});
