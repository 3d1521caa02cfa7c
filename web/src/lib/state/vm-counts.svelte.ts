// How many VMs there are in which state, for the rail and the overview.
import { api, unwrap } from '$lib/api/client';
import type { VmCounts } from '$lib/api/types';
import { oneAtATime } from './again';
import { events } from './events.svelte';

const REFRESH_MS = 1000;

class VmCountsState {
	counts = $state.raw<VmCounts | null>(null);
	#timer: ReturnType<typeof setTimeout> | null = null;

	constructor() {
		events.subscribe((event) => {
			if (event.type === 'vm' || event.type === 'vm_removed' || event.type === 'reload' || event.type === 'agent_removed')
				this.#timer ??= setTimeout(() => {
					this.#timer = null;
					void this.load();
				}, REFRESH_MS);
		});
	}

	/** VMs outside the trash. */
	get total(): number | null {
		return this.counts ? this.counts.total - (this.counts.states.deleted ?? 0) : null;
	}

	/** Fetches them; asked during a fetch, once more after it. */
	readonly load = oneAtATime(() => this.#load());

	async #load(): Promise<void> {
		try {
			const page = await unwrap(api.GET('/api/v1/vms', { params: { query: { limit: 1 } } }));
			this.counts = page.counts;
		} catch {
			// The list itself tells what is wrong; a count that is not known is not shown.
		}
	}
}

export const vmCounts = new VmCountsState();
