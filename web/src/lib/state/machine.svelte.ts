// One machine, followed by its id: what is on it, and how its link has fared.
import { api, unwrap } from '$lib/api/client';
import { problemOf } from '$lib/api/problem';
import type { LinkChange, Problem, Terminal, Vm, VmCounts } from '$lib/api/types';
import { oneAtATime } from './again';
import { agents } from './agents.svelte';
import { events } from './events.svelte';
import { operations } from './operations.svelte';

/** VMs and operations that its page shows; the lists have the rest. */
const SHOWN = 10;
const REFRESH_MS = 500;
type Part = 'agent' | 'vms' | 'links' | 'terminals' | 'operations';
const ALL: Part[] = ['agent', 'vms', 'links', 'terminals', 'operations'];

export class WatchedMachine {
	vms = $state.raw<Vm[]>([]);
	counts = $state.raw<VmCounts | null>(null);
	links = $state.raw<LinkChange[] | null>(null);
	terminals = $state.raw<Terminal[]>([]);
	problem = $state.raw<Problem | null>(null);
	#unsubscribe: () => void;
	#due = new Set<Part>();
	#timer: ReturnType<typeof setTimeout> | null = null;

	constructor(readonly id: string) {
		this.#unsubscribe = events.subscribe((event) => {
			if (event.type === 'reload') this.#soon(...ALL);
			else if (event.type === 'vm' && event.vm.agent_id === id) this.#soon('vms');
			else if ((event.type === 'vm_removed' || event.type === 'agent_vms') && event.agent_id === id) this.#soon('vms');
			else if (event.type === 'agent' && event.agent.id === id) this.#soon('links');
			else if (event.type === 'agent_removed' && event.agent_id === id) this.#soon('agent');
			else if (event.type === 'terminal' && event.terminal.agent_id === id) this.#soon('terminals');
			else if (event.type === 'terminal_removed' && this.terminals.some((one) => one.id === event.id)) this.#soon('terminals');
		});
		void this.load(...ALL);
	}

	/** How each part is fetched; asked during a fetch, once more after it. */
	readonly #fetch: Record<Part, () => Promise<void>> = {
		agent: oneAtATime(() => agents.answered(this.id, () => unwrap(api.GET('/api/v1/agents/{agent}', this.#path())))),
		vms: oneAtATime(async () => {
			const page = await unwrap(api.GET('/api/v1/vms', { params: { query: { agent: this.id, sort: '-changed', limit: SHOWN } } }));
			this.vms = page.items;
			this.counts = page.counts;
		}),
		links: oneAtATime(async () => {
			this.links = (await unwrap(api.GET('/api/v1/agents/{agent}/links', this.#path()))).items;
		}),
		terminals: oneAtATime(async () => {
			this.terminals = (await unwrap(api.GET('/api/v1/terminals', { params: { query: { agent: this.id } } }))).items;
		}),
		operations: oneAtATime(async () => {
			const page = await unwrap(api.GET('/api/v1/operations', { params: { query: { agent: this.id, limit: SHOWN } } }));
			for (const operation of page.items) operations.put(operation);
		})
	};

	#path() {
		return { params: { path: { agent: this.id } } };
	}

	stop(): void {
		this.#unsubscribe();
		if (this.#timer) clearTimeout(this.#timer);
	}

	async load(...parts: Part[]): Promise<void> {
		try {
			await Promise.all(parts.map((part) => this.#fetch[part]()));
			this.problem = null;
		} catch (thrown) {
			this.problem = problemOf(thrown);
		}
	}

	#soon(...parts: Part[]): void {
		for (const part of parts) this.#due.add(part);
		this.#timer ??= setTimeout(() => {
			this.#timer = null;
			const due = [...this.#due];
			this.#due.clear();
			void this.load(...due);
		}, REFRESH_MS);
	}
}
