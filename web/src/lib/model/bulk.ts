// One thing done to many VMs: which item is next, and how the whole stands. Pure: the asking is `state/bulk`.
import type { Vm } from '$lib/api/types';
import { groupBy } from './group';

export type BulkState =
	| 'waiting'
	/** The master is being asked. */
	| 'asking'
	/** Its operation is under way. */
	| 'running'
	| 'done'
	/** It cannot be done, and nothing was begun. */
	| 'refused'
	/** It was begun, and did not succeed; or nobody can tell, because the master did not answer. */
	| 'failed'
	| 'cancelled';

export type BulkItem = {
	readonly vm: Vm;
	/** Under which the master knows this request: asked again after a silence, it is still done once. */
	key: string;
	state: BulkState;
	/** Why it was refused or failed. */
	reason: string | null;
	/** The operation that does it. */
	operation: string | null;
};

/** How many of one machine are under way at once. */
export const PER_MACHINE = 4;

const isBusy = (item: BulkItem) => item.state === 'asking' || item.state === 'running';

/** The items that can begin now, in their order. */
export function ready(items: readonly BulkItem[], perMachine: number = PER_MACHINE): BulkItem[] {
	const busy = new Map<string, number>();
	for (const item of items) if (isBusy(item)) busy.set(item.vm.agent_id, (busy.get(item.vm.agent_id) ?? 0) + 1);
	return items.filter((item) => {
		const machine = item.vm.agent_id;
		const now = busy.get(machine) ?? 0;
		if (item.state !== 'waiting' || now >= perMachine) return false;
		busy.set(machine, now + 1);
		return true;
	});
}

export type BulkCounts = Record<BulkState, number> & { all: number };

export function countItems(items: readonly BulkItem[]): BulkCounts {
	const counts: BulkCounts = { all: items.length, waiting: 0, asking: 0, running: 0, done: 0, refused: 0, failed: 0, cancelled: 0 };
	for (const { state } of items) counts[state] += 1;
	return counts;
}

export const isOver = (counts: BulkCounts) => counts.waiting + counts.asking + counts.running === 0;

/** `7 of 12 done · 2 failed`: what is none is left out. */
export function summary(counts: BulkCounts): string {
	const parts = [`${counts.done.toLocaleString()} of ${counts.all.toLocaleString()} done`];
	const some = (n: number, word: string) => {
		if (n > 0) parts.push(`${n.toLocaleString()} ${word}`);
	};
	some(counts.asking + counts.running, 'under way');
	some(counts.waiting, 'waiting');
	some(counts.failed, 'failed');
	some(counts.refused, 'refused');
	some(counts.cancelled, 'cancelled');
	return parts.join(' · ');
}

export type Preview = {
	able: Vm[];
	/** The others by why not, the commonest reason first. */
	refused: { reason: string; vms: Vm[] }[];
};

/** What would happen: who can, and who cannot for which reason. */
export function preview(vms: readonly Vm[], refusal: (vm: Vm) => string | null): Preview {
	const groups = groupBy(vms, refusal);
	const able = groups.get(null) ?? [];
	groups.delete(null);
	const refused = [...groups].map(([reason, those]) => ({ reason: reason ?? '', vms: those })).sort((a, b) => b.vms.length - a.vms.length);
	return { able, refused };
}
