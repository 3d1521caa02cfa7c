// A list of VMs as the master pages it, kept current by the event stream without moving what one looks at.
import { api, unwrap } from '$lib/api/client';
import { problemOf } from '$lib/api/problem';
import type { Problem, Vm, VmCounts } from '$lib/api/types';
import { matches, parseQuery } from '$lib/model/query';
import { events } from './events.svelte';

const PAGE = 200;
/** How soon after a change that we cannot place ourselves the list is fetched again. */
const REFRESH_MS = 400;

export function keyOf(vm: { agent_id: string; name: string }): string {
	return `${vm.agent_id}/${vm.name}`;
}

/** One filtered and sorted list. */
export class VmListing {
	items = $state.raw<Vm[]>([]);
	counts = $state.raw<VmCounts>({ total: 0, states: {} });
	loaded = $state(false);
	loading = $state(false);
	problem = $state.raw<Problem | null>(null);
	/** Keys of rows that changed a moment ago, with when. */
	changed = $state.raw<ReadonlyMap<string, number>>(new Map());

	#query = '';
	#sort = 'name';
	#next: string | null = null;
	/** Counts up with every new question, so that late answers to old ones are dropped. */
	#asked = 0;
	#refresh: ReturnType<typeof setTimeout> | null = null;
	#pending = new Map<string, Vm | null>();
	#frame = 0;
	#unsubscribe: (() => void) | null = null;

	/** Follows the event stream until the returned function is called. */
	follow(): () => void {
		this.#unsubscribe = events.subscribe((event) => {
			if (event.type === 'vm') this.#note(keyOf(event.vm), event.vm);
			else if (event.type === 'vm_removed') this.#note(`${event.agent_id}/${event.name}`, null);
			else if (event.type === 'agent_vms') this.#noteAgent(event.agent_id, event.stale ?? null);
			else if (event.type === 'agent_removed' || event.type === 'reload') this.#refreshSoon();
		});
		return () => {
			this.#unsubscribe?.();
			if (this.#refresh) clearTimeout(this.#refresh);
			cancelAnimationFrame(this.#frame);
		};
	}

	get hasMore(): boolean {
		return this.#next !== null;
	}

	/** Asks for the list with this filter and order. */
	async ask(query: string, sort: string): Promise<void> {
		this.#query = query;
		this.#sort = sort;
		await this.#load(PAGE);
	}

	/** Asks for the next page; called when the end comes into view. */
	async more(): Promise<void> {
		if (this.loading || this.#next === null) return;
		const asked = this.#asked;
		this.loading = true;
		try {
			const page = await this.#page(PAGE, this.#next);
			if (asked !== this.#asked) return;
			const known = new Set(this.items.map(keyOf));
			this.items = [...this.items, ...page.items.filter((vm) => !known.has(keyOf(vm)))];
			this.#next = page.next_cursor ?? null;
		} catch (thrown) {
			this.problem = problemOf(thrown);
		} finally {
			this.loading = false;
		}
	}

	async #load(limit: number): Promise<void> {
		const asked = ++this.#asked;
		this.loading = true;
		try {
			const page = await this.#page(Math.min(1000, limit), undefined);
			if (asked !== this.#asked) return;
			this.items = page.items;
			this.counts = page.counts;
			this.#next = page.next_cursor ?? null;
			this.problem = null;
			this.loaded = true;
		} catch (thrown) {
			if (asked === this.#asked) this.problem = problemOf(thrown);
		} finally {
			if (asked === this.#asked) this.loading = false;
		}
	}

	#page(limit: number, cursor: string | undefined) {
		const { filter } = parseQuery(this.#query);
		return unwrap(
			api.GET('/api/v1/vms', {
				params: {
					query: {
						q: filter.q || undefined,
						state: filter.state ?? undefined,
						agent: filter.agent ?? undefined,
						label: filter.label ?? undefined,
						sort: this.#sort,
						limit,
						cursor
					}
				}
			})
		);
	}

	#note(key: string, vm: Vm | null): void {
		this.#pending.set(key, vm);
		if (!this.#frame)
			this.#frame = requestAnimationFrame(() => {
				this.#frame = 0;
				this.#apply();
			});
	}

	/** One event for all VMs of a machine: that they are stale can be shown at once, what is new must be fetched. */
	#noteAgent(agent: string, stale: string | null): void {
		if (stale === null) {
			this.#refreshSoon();
			return;
		}
		for (const vm of this.items) if (vm.agent_id === agent) this.#note(keyOf(vm), asStale(this.#pending.get(keyOf(vm)) ?? vm, stale));
		if (this.#query.includes('stale')) this.#refreshSoon();
	}

	/** Puts what came since the last frame in place: known rows stay where they are, others need the master. */
	#apply(): void {
		const { filter } = parseQuery(this.#query);
		const now = Date.now();
		const changed = new Map([...this.changed].filter(([, at]) => now - at < 2000));
		let refresh = false;
		const items: Vm[] = [];
		for (const old of this.items) {
			const key = keyOf(old);
			const vm = this.#pending.get(key);
			this.#pending.delete(key);
			if (vm === undefined) items.push(old);
			else if (vm === null) refresh = true;
			else {
				if (vm.state !== old.state) {
					changed.set(key, now);
					refresh = true;
				}
				items.push(vm);
			}
		}
		for (const vm of this.#pending.values()) if (vm === null || matches(filter, vm)) refresh = true;
		this.#pending.clear();
		this.items = items;
		this.changed = changed;
		if (refresh) this.#refreshSoon();
	}

	#refreshSoon(): void {
		this.#refresh ??= setTimeout(() => {
			this.#refresh = null;
			void this.#load(Math.max(PAGE, this.items.length));
		}, REFRESH_MS);
	}
}

/** One VM, followed by its name. */
export class WatchedVm {
	vm = $state.raw<Vm | null>(null);
	problem = $state.raw<Problem | null>(null);
	#agent: string;
	#name: string;
	#unsubscribe: () => void;

	constructor(agent: string, name: string, known: Vm | null) {
		this.#agent = agent;
		this.#name = name;
		this.vm = known;
		this.#unsubscribe = events.subscribe((event) => {
			if (event.type === 'vm' && event.vm.agent_id === agent && event.vm.name === name) {
				this.vm = event.vm;
				this.problem = null;
			} else if (event.type === 'vm_removed' && event.agent_id === agent && event.name === name) {
				this.problem = gone(agent, name);
			} else if (event.type === 'reload' || (event.type === 'agent_vms' && event.agent_id === agent)) void this.load();
		});
	}

	async load(): Promise<void> {
		try {
			this.vm = await unwrap(
				api.GET('/api/v1/agents/{agent}/vms/{vm}', { params: { path: { agent: this.#agent, vm: this.#name } } })
			);
			this.problem = null;
		} catch (thrown) {
			this.problem = problemOf(thrown);
		}
	}

	stop(): void {
		this.#unsubscribe();
	}
}

/** The VM as lists show it once its machine cannot be reached. */
export function asStale(vm: Vm, reason: string): Vm {
	const actions = Object.fromEntries(Object.keys(vm.actions ?? {}).map((action) => [action, vm.missing_since ? (vm.actions?.[action] ?? reason) : reason]));
	return { ...vm, stale: true, actions };
}

function gone(agent: string, name: string): Problem {
	return { code: 'not_found', status: 404, title: 'Gone', detail: `VM ${agent}/${name} does not exist any more`, errors: [] };
}
