// All terminal sessions that there are, kept current by the event stream: those of other browsers and people too.
import { SvelteMap } from 'svelte/reactivity';
import { api, unwrap } from '$lib/api/client';
import { problemOf } from '$lib/api/problem';
import type { Problem, Terminal } from '$lib/api/types';
import { oneAtATime } from './again';
import { events } from './events.svelte';

class Sessions {
	#byId = new SvelteMap<string, Terminal>();
	loaded = $state(false);
	problem = $state.raw<Problem | null>(null);

	/** The newest first. */
	all = $derived([...this.#byId.values()].sort((a, b) => b.created_at.localeCompare(a.created_at) || b.id.localeCompare(a.id)));

	constructor() {
		events.subscribe((event) => {
			if (event.type === 'terminal') this.put(event.terminal);
			else if (event.type === 'terminal_removed') this.#byId.delete(event.id);
			else if (event.type === 'reload') void this.load();
		});
	}

	get(id: string | null): Terminal | undefined {
		return id === null ? undefined : this.#byId.get(id);
	}

	put(session: Terminal): void {
		this.#byId.set(session.id, session);
	}

	/** Fetches them; asked during a fetch, once more after it. */
	readonly load = oneAtATime(() => this.#load());

	async #load(): Promise<void> {
		try {
			const { items } = await unwrap(api.GET('/api/v1/terminals'));
			const there = new Set(items.map((session) => session.id));
			for (const id of this.#byId.keys()) if (!there.has(id)) this.#byId.delete(id);
			for (const session of items) this.put(session);
			this.problem = null;
			this.loaded = true;
		} catch (thrown) {
			this.problem = problemOf(thrown);
		}
	}

	/** Names a session, or changes how long it lives on. */
	async update(id: string, change: { name?: string; ttl_s?: number; keep?: boolean }): Promise<void> {
		this.put(await unwrap(api.PATCH('/api/v1/terminals/{terminal}', { params: { path: { terminal: id } }, body: change })));
	}

	/** Invites an account, or changes what it may do. */
	async share(id: string, user: string, access: 'watch' | 'write'): Promise<void> {
		this.put(await unwrap(api.PUT('/api/v1/terminals/{terminal}/guests/{user}', { params: { path: { terminal: id, user } }, body: { access } })));
	}

	/** Takes an invitation back, or all of them. */
	async unshare(id: string, user: string | null): Promise<void> {
		if (user === null) await unwrap(api.DELETE('/api/v1/terminals/{terminal}/guests', { params: { path: { terminal: id } } }));
		else await unwrap(api.DELETE('/api/v1/terminals/{terminal}/guests/{user}', { params: { path: { terminal: id, user } } }));
	}

	/** Records a session from now on. */
	async record(id: string, input: boolean): Promise<void> {
		this.put(await unwrap(api.PUT('/api/v1/terminals/{terminal}/recording', { params: { path: { terminal: id } }, body: { input } })));
	}

	/** Ends its recording. */
	async stopRecording(id: string): Promise<void> {
		await unwrap(api.DELETE('/api/v1/terminals/{terminal}/recording', { params: { path: { terminal: id } } }));
	}

	/** Ends a session, and what runs in it. */
	async end(id: string): Promise<void> {
		await unwrap(api.DELETE('/api/v1/terminals/{terminal}', { params: { path: { terminal: id } } }));
		this.#byId.delete(id);
	}
}

export const sessions = new Sessions();
