// One thing done to many VMs, at most a few of each machine at once, with what became of each.
import { problemOf } from '$lib/api/problem';
import type { Operation, Vm } from '$lib/api/types';
import { countItems, isOver, ready, type BulkItem } from '$lib/model/bulk';
import { sentences } from '$lib/model/sentence';
import type { VmRequest } from '$lib/model/request';
import { ask, freshKey } from './ask';
import { operations } from './operations.svelte';
import { toasts } from './toasts.svelte';

/** What can be done to many; the rest wants a name of its own. */
export type BulkRequest = Extract<VmRequest, { kind: 'start' | 'stop' | 'restart' | 'suspend' | 'resume' | 'delete' | 'recover' | 'purge' | 'snapshot' }>;

export class Batch {
	readonly id = freshKey();
	items = $state.raw<readonly BulkItem[]>([]);
	counts = $derived(countItems(this.items));
	over = $derived(isOver(this.counts));
	open = $state(false);

	constructor(
		vms: readonly Vm[],
		readonly wanted: BulkRequest
	) {
		this.items = vms.map((vm) => ({ vm, key: freshKey(), state: 'waiting', reason: null, operation: null }));
		this.#go();
	}

	/** Asks for those that failed or were cancelled once more. */
	retry(): void {
		for (const item of this.items) {
			if (item.state !== 'failed' && item.state !== 'cancelled') continue;
			// Without an operation nobody knows whether the master heard it: under the same key it is done once.
			const key = item.operation === null && item.state === 'failed' ? item.key : freshKey();
			this.#set(item, { state: 'waiting', reason: null, operation: null, key });
		}
		this.#go();
	}

	/** Does not begin those that wait; what is under way goes on to its end. */
	cancelRest(): void {
		for (const item of this.items) if (item.state === 'waiting') this.#set(item, { state: 'cancelled' });
	}

	#go(): void {
		for (const item of ready(this.items)) {
			this.#set(item, { state: 'asking' });
			void this.#begin(item);
		}
	}

	async #begin(item: BulkItem): Promise<void> {
		try {
			const operation = await ask(item.vm, this.wanted, { key: item.key });
			this.#set(item, { state: 'running', operation: operation.id });
			operations.whenFinished(operation, (finished) => this.#finished(item, finished));
		} catch (thrown) {
			const problem = problemOf(thrown);
			// Below 500 the master says no; above, or without an answer, it may work later.
			const refused = problem.status >= 400 && problem.status < 500 && problem.status !== 429;
			this.#set(item, { state: refused ? 'refused' : 'failed', reason: sentences(problem.detail) });
			this.#go();
		}
	}

	#finished(item: BulkItem, operation: Operation): void {
		if (operation.state === 'succeeded') this.#set(item, { state: 'done' });
		else if (operation.state === 'cancelled') this.#set(item, { state: 'cancelled' });
		else this.#set(item, { state: 'failed', reason: sentences(operation.error?.detail, operation.error?.hint) });
		this.#go();
	}

	/** Items are changed in place, and the list made anew, so that a thousand of them need no proxies. */
	#set(item: BulkItem, change: Partial<BulkItem>): void {
		Object.assign(item, change);
		this.items = [...this.items];
	}
}

class Bulk {
	batches = $state.raw<Batch[]>([]);

	/** Begins; one VM alone needs no list. */
	start(vms: readonly Vm[], wanted: BulkRequest): void {
		if (vms.length === 0) {
			toasts.show({ tone: 'info', title: 'None of them can do that now' });
			return;
		}
		this.batches = [...this.batches.filter((batch) => !batch.over || batch.counts.failed > 0), new Batch(vms, wanted)];
	}

	remove(batch: Batch): void {
		this.batches = this.batches.filter((other) => other !== batch);
	}
}

export const bulk = new Bulk();
