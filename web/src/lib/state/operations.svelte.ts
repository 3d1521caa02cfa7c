// Operations under way and the latest finished ones, kept current by the event stream.
import { SvelteMap } from 'svelte/reactivity';
import { api, unwrap } from '$lib/api/client';
import { problemOf } from '$lib/api/problem';
import type { Operation, Problem } from '$lib/api/types';
import { groupBy } from '$lib/model/group';
import { isFinished } from '$lib/model/operation';
import { oneAtATime } from './again';
import { events } from './events.svelte';
import { session } from './session.svelte';

const KEPT = 300;
const PAGE = 100;
type Finished = (operation: Operation) => void;

class Operations {
	#byId = new SvelteMap<string, Operation>();
	#waiting = new Map<string, Finished[]>();
	loaded = $state(false);
	more = $state.raw<string | null>(null);
	problem = $state.raw<Problem | null>(null);

	/** The newest first. */
	all = $derived([...this.#byId.values()].sort((a, b) => b.created_at.localeCompare(a.created_at) || b.id.localeCompare(a.id)));
	active = $derived(this.all.filter((operation) => !isFinished(operation)));
	own = $derived(this.all.filter((operation) => operation.requested_by === session.user?.name));
	/** What is under way, by `agent/vm`: the oldest first, as the agent works them off. */
	#byVm = $derived(groupBy([...this.active].reverse(), (operation) => `${operation.agent_id}/${operation.vm ?? ''}`));

	constructor() {
		events.subscribe((event) => {
			if (event.type === 'operation') this.put(event.operation);
			else if (event.type === 'reload') void this.load();
		});
	}

	get(id: string): Operation | undefined {
		return this.#byId.get(id);
	}

	/** What is under way on a VM, the one that runs first. */
	of(agent: string, vm: string): Operation[] {
		return this.#byVm.get(`${agent}/${vm}`) ?? [];
	}

	put(operation: Operation): void {
		const known = this.#byId.get(operation.id);
		// An answer to a call may be older than the event that came meanwhile.
		if (known && isFinished(known) && !isFinished(operation)) return;
		this.#byId.set(operation.id, operation);
		if (isFinished(operation)) {
			for (const callback of this.#waiting.get(operation.id) ?? []) callback(operation);
			this.#waiting.delete(operation.id);
		}
		if (this.#byId.size > KEPT) {
			const oldest = this.all.findLast(isFinished);
			if (oldest && oldest.id !== operation.id) this.#byId.delete(oldest.id);
		}
	}

	/** Calls back once the operation has finished, at once when it has. */
	whenFinished(operation: Operation, callback: Finished): void {
		this.put(operation);
		const known = this.#byId.get(operation.id) ?? operation;
		if (isFinished(known)) callback(known);
		else this.#waiting.set(operation.id, [...(this.#waiting.get(operation.id) ?? []), callback]);
	}

	/** Fetches the newest; asked during a fetch, once more after it. */
	readonly load = oneAtATime(() => this.#load());

	async #load(): Promise<void> {
		try {
			const page = await unwrap(api.GET('/api/v1/operations', { params: { query: { limit: PAGE } } }));
			const seen = new Set(page.items.map((operation) => operation.id));
			for (const operation of page.items) this.put(operation);
			this.more = page.next_cursor ?? null;
			this.problem = null;
			this.loaded = true;
			// What we believed under way but was not on the page has been missed by the stream.
			for (const operation of this.active) {
				if (seen.has(operation.id)) continue;
				this.put(await unwrap(api.GET('/api/v1/operations/{operation}', { params: { path: { operation: operation.id } } })));
			}
		} catch (thrown) {
			this.problem = problemOf(thrown);
		}
	}

	async loadMore(): Promise<void> {
		if (!this.more) return;
		try {
			const page = await unwrap(
				api.GET('/api/v1/operations', { params: { query: { limit: PAGE, cursor: this.more } } })
			);
			for (const operation of page.items) if (!this.#byId.has(operation.id)) this.#byId.set(operation.id, operation);
			this.more = page.next_cursor ?? null;
		} catch (thrown) {
			this.problem = problemOf(thrown);
		}
	}

	async cancel(id: string): Promise<void> {
		this.put(await unwrap(api.POST('/api/v1/operations/{operation}/cancel', { params: { path: { operation: id } } })));
	}
}

export const operations = new Operations();
