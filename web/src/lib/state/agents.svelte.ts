// All machines, kept current by the event stream.
import { SvelteMap } from 'svelte/reactivity';
import { api, unwrap } from '$lib/api/client';
import { problemOf } from '$lib/api/problem';
import type { Agent, Problem } from '$lib/api/types';
import { events } from './events.svelte';

const PAGE = 1000;

class Agents {
	#byId = new SvelteMap<string, Agent>();
	loaded = $state(false);
	problem = $state.raw<Problem | null>(null);
	#loading: Promise<void> | null = null;

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
			if (event.type === 'agent') this.put(event.agent);
			else if (event.type === 'agent_removed') this.#byId.delete(event.agent_id);
			else if (event.type === 'reload') void this.load();
		});
	}

	get(id: string): Agent | undefined {
		return this.#byId.get(id);
	}

	put(agent: Agent): void {
		this.#byId.set(agent.id, agent);
	}

	load(): Promise<void> {
		this.#loading ??= this.#load().finally(() => {
			this.#loading = null;
		});
		return this.#loading;
	}

	async #load(): Promise<void> {
		try {
			const seen = new Set<string>();
			let cursor: string | undefined;
			do {
				const page = await unwrap(api.GET('/api/v1/agents', { params: { query: { limit: PAGE, cursor } } }));
				for (const agent of page.items) {
					seen.add(agent.id);
					this.put(agent);
				}
				cursor = page.next_cursor ?? undefined;
			} while (cursor);
			for (const id of [...this.#byId.keys()]) if (!seen.has(id)) this.#byId.delete(id);
			this.problem = null;
			this.loaded = true;
		} catch (thrown) {
			this.problem = problemOf(thrown);
		}
	}
}

export const agents = new Agents();
