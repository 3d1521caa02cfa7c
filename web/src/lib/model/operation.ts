// Operations in words: what one does, to what, how far it is.
import type { Operation, OperationKind, Stage } from '$lib/api/types';
import { formatBytes } from './size';

const DOING: Record<OperationKind, string> = {
	create: 'Creating',
	start: 'Starting',
	stop: 'Stopping',
	restart: 'Restarting',
	suspend: 'Suspending',
	resume: 'Resuming',
	delete: 'Moving to trash',
	recover: 'Recovering',
	purge: 'Purging',
	snapshot: 'Taking snapshot',
	restore: 'Restoring',
	delete_snapshot: 'Deleting snapshot',
	clone: 'Cloning',
	resize: 'Resizing',
	mount: 'Mounting',
	umount: 'Unmounting',
	pull_image: 'Pulling image'
};

const DONE: Record<OperationKind, string> = {
	create: 'Created',
	start: 'Started',
	stop: 'Stopped',
	restart: 'Restarted',
	suspend: 'Suspended',
	resume: 'Resumed',
	delete: 'Moved to trash',
	recover: 'Recovered',
	purge: 'Purged',
	snapshot: 'Snapshot taken',
	restore: 'Restored',
	delete_snapshot: 'Snapshot deleted',
	clone: 'Cloned',
	resize: 'Resized',
	mount: 'Mounted',
	umount: 'Unmounted',
	pull_image: 'Image pulled'
};

const STAGE: Record<Stage, string> = {
	resolving_image: 'Looking up the image',
	downloading: 'Downloading the image',
	verifying: 'Checking the image',
	building_image: 'Building the image',
	preparing: 'Preparing disk and seed',
	booting: 'Booting',
	waiting_for_ssh: 'Waiting for SSH',
	cloud_init: 'Running cloud-init',
	starting: 'Powering on',
	stopping: 'Shutting down',
	restarting: 'Rebooting',
	suspending: 'Writing memory to disk',
	deleting: 'Removing',
	recovering: 'Taking out of the trash',
	taking_snapshot: 'Keeping the disk as it is',
	restoring: 'Going back to the snapshot',
	deleting_snapshot: 'Removing the snapshot',
	cloning: 'Copying the disk',
	resizing: 'Changing the size',
	mounting: 'Mounting the folder',
	unmounting: 'Taking the folder out',
	cleaning_up: 'Cleaning up'
};

/** The stages that a create usually goes through, in order; not all happen each time. */
export const CREATE_STEPS: { title: string; stages: Stage[] }[] = [
	{ title: 'Image', stages: ['resolving_image', 'downloading', 'verifying', 'building_image'] },
	{ title: 'Disk', stages: ['preparing'] },
	{ title: 'Boot', stages: ['booting', 'starting'] },
	{ title: 'SSH', stages: ['waiting_for_ssh'] },
	{ title: 'Set-up', stages: ['cloud_init'] }
];

/** What an operation has been at, with how long each took, in milliseconds; the last goes on until `now` unless all is over. */
export function timeline(operation: Pick<Operation, 'steps' | 'finished_at'>, now: number): { title: string; began: string; took: number; current: boolean }[] {
	const steps = operation.steps ?? [];
	return steps.map(({ stage, began_at }, i) => {
		const next = steps[i + 1]?.began_at ?? operation.finished_at;
		return { title: STAGE[stage] ?? stage, began: began_at, took: Math.max(0, (next ? Date.parse(next) : now) - Date.parse(began_at)), current: !next };
	});
}

/** Which of [`CREATE_STEPS`] an operation is at; -1 before the first. */
export function createStep(operation: Pick<Operation, 'stage'>): number {
	const stage = operation.stage;
	return stage ? CREATE_STEPS.findIndex((step) => step.stages.includes(stage)) : -1;
}

export function isFinished(operation: Pick<Operation, 'state'>): boolean {
	return operation.state !== 'queued' && operation.state !== 'running';
}

/** `Creating`, `Created`, `Create failed`. */
export function headline(operation: Pick<Operation, 'kind' | 'state'>): string {
	const kind = operation.kind.charAt(0).toUpperCase() + operation.kind.slice(1).replaceAll('_', ' ');
	switch (operation.state) {
		case 'succeeded':
			return DONE[operation.kind] ?? kind;
		case 'failed':
			return `${kind} failed`;
		case 'cancelled':
			return `${kind} cancelled`;
		default:
			return DOING[operation.kind] ?? kind;
	}
}

/** What it is for: a VM's name or an image's. */
export function nameOf(operation: Pick<Operation, 'vm' | 'image'>): string {
	return operation.vm ?? operation.image ?? '';
}

/** The page of what it is for. */
export function addressOfSubject(operation: Pick<Operation, 'agent_id' | 'vm' | 'image'>): string {
	if (operation.vm) return `/vms/${encodeURIComponent(operation.agent_id)}/${encodeURIComponent(operation.vm)}`;
	return `/images?agent=${encodeURIComponent(operation.agent_id)}`;
}

/** What it is about besides its VM: `snapshot2`, `→ web-clone1`; empty when nothing. */
export function subject(operation: Pick<Operation, 'kind' | 'snapshot' | 'target'>): string {
	return [operation.snapshot, operation.target ? `→ ${operation.target}` : null].filter(Boolean).join(' ');
}

/** What it is at now, with its measure: `Downloading the image · 43 % · 12 of 28 MiB`. */
export function stageText(operation: Operation): string {
	if (operation.state === 'queued') return 'Waiting for its turn';
	const parts: string[] = [];
	if (operation.stage) parts.push(STAGE[operation.stage] ?? operation.stage);
	if (typeof operation.progress === 'number') parts.push(`${Math.floor(operation.progress)} %`);
	if (operation.bytes_done !== null && operation.bytes_done !== undefined && operation.bytes_total)
		parts.push(`${formatBytes(operation.bytes_done)} of ${formatBytes(operation.bytes_total)}`);
	return parts.join(' · ');
}
