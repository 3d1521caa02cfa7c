// The history of operations under a filter, page by page as the master tells it, and with what happens meanwhile.
import { api, unwrap } from '$lib/api/client';
import { problemOf } from '$lib/api/problem';
import type { Operation, Problem } from '$lib/api/types';
import { fits, type OperationFilter } from '$lib/model/history';
import { operations } from './operations.svelte';

const PAGE = 200;
export class OperationHistory {
	#found = $state.raw<Operation[]>([]);
	loaded = $state(false);
	loading = $state(false);
	problem = $state.raw<Problem | null>(null);
	/** Where the older ones begin. */
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
		this.more = null;
		this.loaded = false;
		void this.#look(++this.#asked, undefined);
	}

	goOn(): void {
		if (this.more && !this.loading) void this.#look(this.#asked, this.more);
	}

	async #look(asked: number, cursor: string | undefined): Promise<void> {
		this.loading = true;
		try {
			const { vm, agent, state, kind, by } = this.#filter;
			const query = { vm, agent, state, kind, requested_by: by, limit: PAGE, cursor };
			const answer = await unwrap(api.GET('/api/v1/operations', { params: { query } }));
			if (asked !== this.#asked) return;
			this.#found = [...this.#found, ...answer.items];
			this.more = answer.next_cursor ?? null;
			this.loaded = true;
			this.problem = null;
		} catch (thrown) {
			if (asked === this.#asked) this.problem = problemOf(thrown);
		} finally {
			if (asked === this.#asked) this.loading = false;
		}
	}
}
