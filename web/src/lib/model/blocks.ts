// A long list of which only parts are known: those that are looked at. Pure; who fetches is `VmListing`.
//
// The list is cut into blocks of equal length. Between two blocks lies a cursor: the master's name for that place, good
// whatever happens before or after it. A block is fetched from the nearest cursor at or before it, passing by what lies
// between. What is shown stays until something newer has come for the same place.

export type Wanted = {
	/** The first block to fetch. */
	block: number;
	/** From where it is counted; `null` for the list's beginning. */
	cursor: string | null;
	/** How many rows lie between. */
	skip: number;
	/** How many blocks. */
	blocks: number;
};

type Block<T> = { items: T[]; old: boolean };

export class Blocks<T> {
	/** How many rows the list has, as last told. */
	total = 0;
	#blocks = new Map<number, Block<T>>();
	/** The cursor before each block, where known. */
	#starts = new Map<number, string | null>([[0, null]]);

	constructor(
		readonly size: number,
		/** Most blocks of one fetch. */
		readonly perFetch: number,
		/** Most blocks that are kept. */
		readonly kept: number
	) {}

	/** The row at a place; `undefined` while it is not known. */
	at(index: number): T | undefined {
		return this.#blocks.get(Math.floor(index / this.size))?.items[index % this.size];
	}

	/** Every row that is known, with its place. */
	*known(): Generator<[number, T]> {
		for (const [number, block] of [...this.#blocks].sort(([a], [b]) => a - b))
			for (const [i, item] of block.items.entries()) yield [number * this.size + i, item];
	}

	/** Changes known rows in place; `null` leaves one as it is. */
	change(of: (item: T) => T | null): void {
		for (const block of this.#blocks.values())
			for (const [i, item] of block.items.entries()) {
				const changed = of(item);
				if (changed !== null) block.items[i] = changed;
			}
	}

	/** What to fetch so that the rows from `first` to before `last` are known and fresh; `null` when they are. */
	wanted(first: number, last: number): Wanted | null {
		const end = Math.min(this.#count(), Math.ceil(last / this.size));
		for (let number = Math.floor(Math.max(0, first) / this.size); number < end; number += 1) {
			if (this.#blocks.get(number)?.old === false) continue;
			let from = number;
			while (!this.#starts.has(from)) from -= 1;
			let blocks = 1;
			while (blocks < this.perFetch && number + blocks < end && this.#blocks.get(number + blocks)?.old !== false) blocks += 1;
			return { block: number, cursor: this.#starts.get(from) ?? null, skip: (number - from) * this.size, blocks };
		}
		return null;
	}

	/** Takes what came for `wanted`: the rows, the cursor behind them (`null` at the end) and how many rows there are. */
	put(wanted: Wanted, items: T[], next: string | null, total: number): void {
		this.total = Math.max(total, wanted.block * this.size + items.length);
		const end = wanted.block + wanted.blocks;
		for (let number = wanted.block; number < end; number += 1) {
			const from = (number - wanted.block) * this.size;
			const part = items.slice(from, from + this.size);
			if (part.length > 0) this.#blocks.set(number, { items: part, old: false });
			else this.#blocks.delete(number);
			// A cursor inside of what came belongs to how the list was before.
			if (number > wanted.block) this.#starts.delete(number);
		}
		if (next === null) {
			this.total = wanted.block * this.size + items.length;
			this.#forgetFrom(Math.ceil(this.total / this.size));
			return;
		}
		if (this.#starts.get(end) !== next) {
			this.#starts.set(end, next);
			const behind = this.#blocks.get(end);
			if (behind) behind.old = true;
		}
	}

	/** Says that everything may have changed: what is in view is to be fetched again, the rest is forgotten. */
	age(first: number, last: number): void {
		const [from, to] = [Math.floor(Math.max(0, first) / this.size), Math.ceil(last / this.size)];
		for (const [number, block] of this.#blocks) {
			if (number >= from && number < to) block.old = true;
			else this.#blocks.delete(number);
		}
	}

	/** Forgets what is farthest from the rows in view, so that no amount of scrolling fills the memory. */
	trim(first: number, last: number): void {
		const middle = (first + last) / 2 / this.size;
		const far = [...this.#blocks.keys()].sort((a, b) => Math.abs(b - middle) - Math.abs(a - middle));
		for (const number of far.slice(0, Math.max(0, far.length - this.kept))) this.#blocks.delete(number);
	}

	#count(): number {
		return Math.ceil(this.total / this.size);
	}

	#forgetFrom(end: number): void {
		for (const number of this.#blocks.keys()) if (number >= end) this.#blocks.delete(number);
		for (const number of this.#starts.keys()) if (number > 0 && number >= end) this.#starts.delete(number);
	}
}
