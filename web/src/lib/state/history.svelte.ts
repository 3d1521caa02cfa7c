// The history of operations under a filter. What the master filters by, it does; the rest is looked for page by page,
// and it is told how far.
import { api, unwrap } from '$lib/api/client';
import { problemOf } from '$lib/api/problem';
import type { Operation, Problem } from '$lib/api/types';
import { fits, type OperationFilter } from '$lib/model/history';
import { operations } from './operations.svelte';

const PAGE = 200;
/** How many pages one look goes through before it asks whether to go on. */
const PAGES = 10;
/** How many found end a look. */
const ENOUGH = 100;

export class OperationHistory {
	#found = $state.raw<Operation[]>([]);
	loaded = $state(false);
	loading = $state(false);
	problem = $state.raw<Problem | null>(null);
	/** How many were looked at, and whether there are older ones. */
	looked = $state(0);
	more = $state.raw<string | null>(null);
	#filter = $state.raw<OperationFilter>({});
	#asked = 0;

	/** The newest first, each as it is now. */
	all = $derived.by(() => {
		const oldest = this.more === null ? '' : (this.#found.at(-1)?.id ?? '');
		// What the stream brought belongs here too, except what is older than this list goes.
		const live = operations.all.filter((operation) => operation.id > oldest && fits(operation, this.#filter));
		const known = this.#found.map((operation) => operations.get(operation.id) ?? operation).filter((operation) => fits(operation, this.#filter));
		return [...new Map([...known, ...live].map((operation) => [operation.id, operation])).values()].sort((a, b) => b.id.localeCompare(a.id));
	});

	ask(filter: OperationFilter): void {
		this.#filter = filter;
		this.#found = [];
		this.looked = 0;
		this.more = null;
		this.loaded = false;
		void this.#look(++this.#asked, undefined);
	}

	goOn(): void {
		if (this.more && !this.loading) void this.#look(this.#asked, this.more);
	}

	async #look(asked: number, from: string | undefined): Promise<void> {
		this.loading = true;
		let cursor = from;
		const before = this.#found.length;
		try {
			for (let page = 0; page < PAGES; page += 1) {
				const { vm, agent, state } = this.#filter;
				const answer = await unwrap(api.GET('/api/v1/operations', { params: { query: { vm, agent, state, limit: PAGE, cursor } } }));
				if (asked !== this.#asked) return;
				this.looked += answer.items.length;
				this.#found = [...this.#found, ...answer.items.filter((operation) => fits(operation, this.#filter))];
				cursor = answer.next_cursor ?? undefined;
				this.more = cursor ?? null;
				this.loaded = true;
				if (!cursor || this.#found.length - before >= ENOUGH) break;
			}
			this.problem = null;
		} catch (thrown) {
			if (asked === this.#asked) this.problem = problemOf(thrown);
		} finally {
			if (asked === this.#asked) this.loading = false;
		}
	}
}
