// Join tokens and who came with them; kept current while somebody looks.
import { api, unwrap } from '$lib/api/client';
import { problemOf } from '$lib/api/problem';
import type { JoinToken, Problem } from '$lib/api/types';
import { oneAtATime } from './again';
import { events } from './events.svelte';

const REFRESH_MS = 300;

class JoinTokens {
	all = $state.raw<JoinToken[] | null>(null);
	problem = $state.raw<Problem | null>(null);
	#timer: ReturnType<typeof setTimeout> | null = null;

	/** Follows who joins until the returned function is called. */
	follow(): () => void {
		void this.load();
		return events.subscribe((event) => {
			if (event.type === 'agent' || event.type === 'agent_removed' || event.type === 'reload') this.#soon();
		});
	}

	get(id: string): JoinToken | undefined {
		return this.all?.find((token) => token.id === id);
	}

	/** Fetches all of them; asked during a fetch, once more after it. */
	readonly load = oneAtATime(() => this.#load());

	async #load(): Promise<void> {
		try {
			this.all = (await unwrap(api.GET('/api/v1/join-tokens'))).items;
			this.problem = null;
		} catch (thrown) {
			this.problem = problemOf(thrown);
		}
	}

	async revoke(id: string): Promise<void> {
		await unwrap(api.DELETE('/api/v1/join-tokens/{token}', { params: { path: { token: id } } }));
		await this.load();
	}

	#soon(): void {
		this.#timer ??= setTimeout(() => {
			this.#timer = null;
			void this.load();
		}, REFRESH_MS);
	}
}

export const joinTokens = new JoinTokens();
