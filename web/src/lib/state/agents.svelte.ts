// All machines, kept current by the event stream.
import { SvelteMap } from 'svelte/reactivity';
import { api, unwrap } from '$lib/api/client';
import { problemOf } from '$lib/api/problem';
import type { Agent, Problem } from '$lib/api/types';
import { oneAtATime } from './again';
import { events } from './events.svelte';

const PAGE = 1000;

class Agents {
	#byId = new SvelteMap<string, Agent>();
	loaded = $state(false);
	problem = $state.raw<Problem | null>(null);
	/** How many events there were of each machine. */
	#events = new Map<string, number>();

	/** The master's own machine first, then by name. */
	all = $derived(
		[...this.#byId.values()].sort(
			(a, b) =>
				Number(b.id === 'local') - Number(a.id === 'local') || a.name.localeCompare(b.name) || a.id.localeCompare(b.id)
		)
	);
	pending = $derived(this.all.filter((agent) => (agent.registrations?.length ?? 0) > 0 || agent.status === 'pending'));
	usable = $derived(this.all.filter((agent) => agent.status !== 'pending' && agent.status !== 'revoked'));

	constructor() {
		events.subscribe((event) => {
			if (event.type === 'agent') this.#heard(event.agent.id, event.agent);
			else if (event.type === 'agent_removed') this.#heard(event.agent_id, null);
			else if (event.type === 'reload') void this.load();
		});
	}

	/** Names that several machines go by: host names are often alike. */
	#shared = $derived.by(() => {
		const [once, often] = [new Set<string>(), new Set<string>()];
		for (const { name } of this.all) (once.has(name) ? often : once).add(name);
		return often;
	});

	/** What to call a machine where nothing else tells it apart: its name, or its id where others have the same name. */
	title(id: string, name = this.#byId.get(id)?.name ?? id): string {
		return this.#shared.has(name) ? id : name;
	}

	get(id: string): Agent | undefined {
		return this.#byId.get(id);
	}

	/**
	 * Takes what the master answers about a machine. An answer may be older than an event that came while it was under
	 * way: then the event is the truth, for there is one for every change.
	 */
	async answered(id: string, call: () => Promise<Agent>): Promise<void> {
		const before = this.#events.get(id);
		const agent = await call();
		if (this.#events.get(id) === before) this.#byId.set(agent.id, agent);
	}

	#heard(id: string, agent: Agent | null): void {
		this.#events.set(id, (this.#events.get(id) ?? 0) + 1);
		if (agent) this.#byId.set(id, agent);
		else this.#byId.delete(id);
	}

	/** Fetches all of them; asked during a fetch, once more after it. */
	readonly load = oneAtATime(() => this.#load());

	async #load(): Promise<void> {
		try {
			const began = new Map(this.#events);
			const seen = new Set<string>();
			let cursor: string | undefined;
			do {
				const before = new Map(this.#events);
				const page = await unwrap(api.GET('/api/v1/agents', { params: { query: { limit: PAGE, cursor } } }));
				for (const agent of page.items) {
					seen.add(agent.id);
					if (this.#events.get(agent.id) === before.get(agent.id)) this.#byId.set(agent.id, agent);
				}
				cursor = page.next_cursor ?? undefined;
			} while (cursor);
			// What came while the pages were fetched is no reason to forget it again.
			for (const id of [...this.#byId.keys()]) if (!seen.has(id) && this.#events.get(id) === began.get(id)) this.#byId.delete(id);
			this.problem = null;
			this.loaded = true;
		} catch (thrown) {
			this.problem = problemOf(thrown);
		}
	}
}

export const agents = new Agents();
