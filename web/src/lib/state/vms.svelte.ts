// VMs as the master lists them, kept current by the event stream without moving what one looks at.
import { api, unwrap } from '$lib/api/client';
import { problemOf } from '$lib/api/problem';
import type { Event, Problem, Vm, VmCounts, VmDetails } from '$lib/api/types';
import { Blocks, type Wanted } from '$lib/model/blocks';
import { oneAtATime } from './again';
import { events } from './events.svelte';

/** Rows of one block, blocks of one fetch, blocks that are kept: at most 1,000 rows at once, 6,000 in memory. */
const BLOCK = 100;
const PER_FETCH = 10;
const KEPT = 60;
/** How soon after a change that we cannot place ourselves the list is asked for again, and how soon once more. */
const REFRESH_MS = 400;
const AGAIN_MS = 2000;
/** How long a row that came into another state is marked. */
const MARKED_MS = 2000;
/** Most VMs that can be selected by what they match. */
export const MOST_SELECTED = 1000;

export function keyOf(vm: { agent_id: string; name: string }): string {
	return `${vm.agent_id}/${vm.name}`;
}

/** The VM as lists show it once its machine is not reached: what the master says of all of a machine at once. */
function outOfDate(vm: Vm, why: string): Vm {
	if (vm.missing_since) return vm;
	return { ...vm, stale: true, actions: Object.fromEntries(Object.keys(vm.actions ?? {}).map((action) => [action, why])) };
}

/** One filtered and sorted list, of which only what is looked at is fetched. */
export class VmListing {
	counts = $state.raw<VmCounts>({ total: 0, states: {} });
	loaded = $state(false);
	loading = $state(false);
	problem = $state.raw<Problem | null>(null);
	/** Keys of rows that changed a moment ago, with when. */
	changed = $state.raw<ReadonlyMap<string, number>>(new Map());

	/** Counts up with every other list that is shown. */
	generation = $state(0);
	#version = $state(0);
	#blocks = new Blocks<Vm>(BLOCK, PER_FETCH, KEPT);
	#query = '';
	#sort = 'name';
	#facets = false;
	#view = { first: 0, last: BLOCK };
	/** Counts up with every new question, so that late answers to old ones are dropped. */
	#asked = 0;
	/** The question has changed, and what is held still answers the one before. */
	#anew = false;
	#fetching = false;
	#refresh: ReturnType<typeof setTimeout> | null = null;
	#refreshedAt = 0;
	#pending = new Map<string, Vm | null>();
	#stale = new Map<string, string>();
	#frame = 0;

	/** Follows the event stream until the returned function is called. */
	follow(): () => void {
		const unsubscribe = events.subscribe((event) => this.#hear(event));
		return () => {
			unsubscribe();
			this.#asked += 1;
			if (this.#refresh) clearTimeout(this.#refresh);
			cancelAnimationFrame(this.#frame);
		};
	}

	/** How many rows the list has, known or not. */
	get total(): number {
		void this.#version;
		return this.#blocks.total;
	}

	/** The rows from `first` to before `last`; `undefined` where they are not known yet. */
	rows(first: number, last: number): (Vm | undefined)[] {
		void this.#version;
		return Array.from({ length: Math.max(0, last - first) }, (_, i) => this.#blocks.at(first + i));
	}

	/** Every row that is known. */
	known(): Vm[] {
		void this.#version;
		return [...this.#blocks.known()].map(([, vm]) => vm);
	}

	find(key: string | null): Vm | undefined {
		void this.#version;
		for (const [, vm] of this.#blocks.known()) if (keyOf(vm) === key) return vm;
		return undefined;
	}

	/** Asks for the list with this filter and order; with `facets`, also how many there are by machine and label. */
	ask(query: string, sort: string, facets: boolean): Promise<void> {
		const same = query === this.#query && sort === this.#sort;
		this.#query = query;
		this.#sort = sort;
		this.#facets = facets;
		if (same && this.loaded) this.#blocks.age(this.#view.first, this.#view.last);
		return this.#begin(!same);
	}

	/** Says which rows are looked at; fetches those that are not known. */
	show(first: number, last: number): void {
		this.#view = { first, last };
		void this.#fetch();
	}

	/** All that match, for selecting them; only for lists of at most [`MOST_SELECTED`]. */
	async everything(): Promise<Vm[]> {
		const page = await this.#page({ block: 0, cursor: null, skip: 0, blocks: MOST_SELECTED / BLOCK }, false);
		return page.items;
	}

	async #begin(anew: boolean): Promise<void> {
		const asked = ++this.#asked;
		this.loading = true;
		this.#anew ||= anew;
		const wanted = (this.#anew ? null : this.#blocks.wanted(this.#view.first, this.#view.last)) ?? { block: 0, cursor: null, skip: 0, blocks: 1 };
		try {
			const page = await this.#page(wanted, this.#facets);
			if (asked !== this.#asked) return;
			if (this.#anew) {
				this.#anew = false;
				this.#blocks = new Blocks<Vm>(BLOCK, PER_FETCH, KEPT);
				this.#view = { first: 0, last: BLOCK };
				this.generation += 1;
			}
			this.#take(wanted, page);
			this.loaded = true;
		} catch (thrown) {
			if (asked === this.#asked) this.problem = problemOf(thrown);
		} finally {
			if (asked === this.#asked) {
				this.loading = false;
				this.#fetching = false;
				void this.#fetch();
			}
		}
	}

	/** Fetches one part after another until everything in view is known. */
	async #fetch(): Promise<void> {
		if (this.#fetching || this.loading || this.problem) return;
		const asked = this.#asked;
		this.#fetching = true;
		try {
			for (;;) {
				const wanted = this.#blocks.wanted(this.#view.first, this.#view.last);
				if (!wanted) break;
				const page = await this.#page(wanted, false);
				if (asked !== this.#asked) return;
				this.#take(wanted, page);
			}
		} catch (thrown) {
			if (asked === this.#asked) this.problem = problemOf(thrown);
		} finally {
			if (asked === this.#asked) this.#fetching = false;
		}
	}

	#take(wanted: Wanted, page: { items: Vm[]; next_cursor?: string | null; counts: VmCounts }): void {
		this.#blocks.put(wanted, page.items, page.next_cursor ?? null, page.counts.total);
		this.#blocks.trim(this.#view.first, this.#view.last);
		// What was not asked for this time is as it was told last.
		this.counts = { agents: this.counts.agents, labels: this.counts.labels, ...page.counts };
		this.problem = null;
		this.#version += 1;
	}

	#page(wanted: Wanted, facets: boolean) {
		return unwrap(
			api.GET('/api/v1/vms', {
				params: {
					query: {
						q: this.#query || undefined,
						sort: this.#sort,
						limit: wanted.blocks * BLOCK,
						cursor: wanted.cursor ?? undefined,
						skip: wanted.skip || undefined,
						counts: facets ? 'agents,labels' : undefined
					}
				}
			})
		);
	}

	#hear(event: Event): void {
		if (event.type === 'vm') this.#note(keyOf(event.vm), event.vm);
		else if (event.type === 'vm_removed') this.#note(`${event.agent_id}/${event.name}`, null);
		else if (event.type === 'agent_vms') {
			if (event.stale === null || event.stale === undefined) this.#refreshSoon();
			else {
				this.#stale.set(event.agent_id, event.stale);
				this.#applySoon();
			}
		} else if (event.type === 'agent_removed' || event.type === 'reload') this.#refreshSoon();
	}

	#note(key: string, vm: Vm | null): void {
		this.#pending.set(key, vm);
		this.#applySoon();
	}

	#applySoon(): void {
		// A page in the background gets no frames; what it missed it fetches when it is looked at again.
		if (!this.#frame) this.#frame = requestAnimationFrame(() => this.#apply());
	}

	/** Puts what came since the last frame in place: known rows stay where they are, others need the master. */
	#apply(): void {
		this.#frame = 0;
		const now = Date.now();
		const changed = new Map([...this.changed].filter(([, at]) => now - at < MARKED_MS));
		const [pending, stale] = [this.#pending, this.#stale];
		this.#pending = new Map();
		this.#stale = new Map();
		let refresh = stale.size > 0;
		this.#blocks.change((old) => {
			const key = keyOf(old);
			const vm = pending.get(key);
			const why = stale.get(old.agent_id);
			if (vm === undefined) return why === undefined ? null : outOfDate(old, why);
			pending.delete(key);
			if (vm === null) {
				refresh = true;
				return null;
			}
			if (vm.state !== old.state) {
				changed.set(key, now);
				refresh = true;
			}
			return vm;
		});
		// Whether those belong into the list, and where, only the master can say.
		if (pending.size > 0) refresh = true;
		this.changed = changed;
		this.#version += 1;
		if (refresh) this.#refreshSoon();
	}

	/** Soon after the first change, rarely while there is one after another: a busy fleet must not be asked all the time. */
	#refreshSoon(): void {
		this.#refresh ??= setTimeout(
			() => {
				this.#refresh = null;
				this.#refreshedAt = Date.now();
				this.#blocks.age(this.#view.first, this.#view.last);
				void this.#begin(false);
			},
			Math.max(REFRESH_MS, this.#refreshedAt + AGAIN_MS - Date.now())
		);
	}
}

/** A VM with the health of what it depends on, where that has been asked for. */
export type WatchedDetails = Vm & Partial<Pick<VmDetails, 'link' | 'driver_health'>>;

/** One VM, followed by its name. */
export class WatchedVm {
	vm = $state.raw<WatchedDetails | null>(null);
	problem = $state.raw<Problem | null>(null);
	#agent: string;
	#name: string;
	/** How many events told what it is: an answer that one of them overtook is older. */
	#heard = 0;
	#unsubscribe: () => void;

	constructor(agent: string, name: string, known: Vm | null) {
		this.#agent = agent;
		this.#name = name;
		this.vm = known;
		this.#unsubscribe = events.subscribe((event) => {
			if (event.type === 'vm' && event.vm.agent_id === agent && event.vm.name === name) {
				this.#heard += 1;
				// Link and driver have ages of their own, which this event does not tell.
				this.vm = { link: this.vm?.link, driver_health: this.vm?.driver_health, ...event.vm };
				this.problem = null;
			} else if (event.type === 'vm_removed' && event.agent_id === agent && event.name === name) {
				this.#heard += 1;
				this.problem = gone(agent, name);
			} else if (event.type === 'agent_vms' && event.agent_id === agent) {
				if (this.vm && event.stale !== null && event.stale !== undefined) this.vm = { ...this.vm, ...outOfDate(this.vm, event.stale) };
				void this.load();
			} else if (event.type === 'reload') void this.load();
		});
	}

	/** Fetches it; asked during a fetch, once more after it. */
	readonly load = oneAtATime(() => this.#load());

	async #load(): Promise<void> {
		const before = this.#heard;
		try {
			const vm = await unwrap(
				api.GET('/api/v1/agents/{agent}/vms/{vm}', { params: { path: { agent: this.#agent, vm: this.#name } } })
			);
			if (this.#heard === before) {
				this.vm = vm;
				this.problem = null;
			} else if (this.vm) this.vm = { ...this.vm, link: vm.link, driver_health: vm.driver_health };
		} catch (thrown) {
			if (this.#heard === before) this.problem = problemOf(thrown);
		}
	}

	stop(): void {
		this.#unsubscribe();
	}
}

function gone(agent: string, name: string): Problem {
	return { code: 'not_found', status: 404, title: 'Gone', detail: `VM ${agent}/${name} does not exist any more`, errors: [] };
}
