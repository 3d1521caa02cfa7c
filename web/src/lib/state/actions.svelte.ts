// What one can do with VMs, and what is told about how it went.
import { goto } from '$app/navigation';
import { api, unwrap } from '$lib/api/client';
import type { Operation, Vm, VmAction } from '$lib/api/types';
import { GRACEFUL, verb, type PlainVerb, type VmName, type VmRequest } from '$lib/model/request';
import { sentences } from '$lib/model/sentence';
import { ask } from './ask';
import { dialogs } from './dialogs.svelte';
import { operations } from './operations.svelte';
import { session } from './session.svelte';
import { toasts } from './toasts.svelte';

/** What a click on a VM can be for. */
export type Verb = Exclude<VmAction, 'shell' | 'console' | 'display' | 'restore' | 'delete_snapshot' | 'clone_snapshot' | 'mount' | 'umount'>;

export const TITLES: Record<VmAction, string> = {
	start: 'Start',
	stop: 'Stop',
	restart: 'Restart',
	suspend: 'Suspend',
	resume: 'Resume',
	delete: 'Move to trash',
	recover: 'Recover',
	purge: 'Purge…',
	snapshot: 'Take snapshot…',
	restore: 'Restore…',
	delete_snapshot: 'Delete snapshot…',
	clone: 'Clone…',
	clone_snapshot: 'Clone from a snapshot…',
	resize: 'Resize…',
	mount: 'Mount a folder…',
	umount: 'Take a folder out',
	shell: 'Terminal',
	console: 'Serial console',
	display: 'Display'
};

/** Why an action is not possible now; `null` when it is. The agent and the account's rights say so, not we. */
export function refusal(vm: Vm, action: VmAction): string | null {
	const mine =
		action === 'shell' || action === 'console' || action === 'display'
			? session.terminalRefusal
			: action === 'mount' || action === 'umount'
				? session.hostRefusal
				: session.operateRefusal;
	const reason = mine ?? vm.actions?.[action];
	if (reason === undefined) return 'this machine cannot do this';
	return reason;
}

/** Asks, and tells later how it went; throws when it cannot be asked for. */
export async function begin(vm: VmName, wanted: VmRequest): Promise<Operation> {
	const operation = await ask(vm, wanted);
	operations.whenFinished(operation, (finished) => tell(vm, wanted, finished));
	return operation;
}

/** Asks; tells when it cannot be asked for, and later when it failed. */
export async function act(vm: VmName, wanted: VmRequest): Promise<Operation | null> {
	try {
		return await begin(vm, wanted);
	} catch (thrown) {
		toasts.failure(`Cannot ${verb(wanted.kind)} ${vm.name}`, thrown);
		return null;
	}
}

/** Does what needs no more words at once; for the rest, opens what asks for them. */
export function request(vm: Vm, action: Verb): void {
	switch (action) {
		case 'purge':
			dialogs.purge = [vm];
			return;
		case 'snapshot':
		case 'clone':
		case 'resize':
			dialogs.about = { kind: action, vm };
			return;
		default:
			void act(vm, plain(action));
	}
}

/** The request behind a button that asks for nothing else. */
export function plain(action: PlainVerb | 'stop'): VmRequest {
	return action === 'stop' ? GRACEFUL : { kind: action };
}

/** How long what is asked for an offline machine waits for it. */
const KEPT = { param: '3d', words: 'three days' };

/** Asks for something that is done once the VM's machine is back. */
export async function actWhenOnline(vm: VmName, wanted: VmRequest): Promise<void> {
	try {
		const operation = await ask(vm, wanted, { whenOnline: KEPT.param });
		operations.whenFinished(operation, (finished) => tell(vm, wanted, finished));
		if (operation.waits_until)
			toasts.show({
				tone: 'info',
				title: `${vm.agent_id} will ${verb(wanted.kind)} ${vm.name} once it is back`,
				detail: `It waits at most ${KEPT.words}.`,
				action: { title: 'Show', run: () => void goto(`/operations?operation=${operation.id}`) }
			});
	} catch (thrown) {
		toasts.failure(`Cannot ${verb(wanted.kind)} ${vm.name}`, thrown);
	}
}

/** Takes a missing VM off the list. */
export async function dismiss(vm: VmName): Promise<boolean> {
	try {
		await unwrap(api.POST('/api/v1/agents/{agent}/vms/{vm}/dismiss', { params: { path: { agent: vm.agent_id, vm: vm.name } } }));
		toasts.show({ tone: 'info', title: `${vm.name} is off the list`, detail: 'Should it come back on its machine, it is listed again.' });
		return true;
	} catch (thrown) {
		toasts.failure(`Cannot dismiss ${vm.name}`, thrown);
		return false;
	}
}

function tell(vm: VmName, wanted: VmRequest, operation: Operation): void {
	if (operation.state === 'failed') {
		const detail = sentences(operation.error?.detail, operation.error?.hint);
		toasts.show({ tone: 'bad', title: `Could not ${verb(wanted.kind)} ${vm.name}`, detail });
	}
	if (operation.state !== 'succeeded') return;
	const show = (title: string, action?: { title: string; run: () => void }) => toasts.show({ tone: 'info', title, action });
	switch (wanted.kind) {
		case 'delete':
			return show(`${vm.name} is in the trash`, { title: 'Undo', run: () => void act(vm, { kind: 'recover' }) });
		case 'purge':
			return show(`${vm.name} is gone`);
		case 'snapshot':
			return show(`Snapshot ${operation.snapshot ?? ''} of ${vm.name} is taken`);
		case 'restore':
			return show(`${vm.name} is as it was at ${wanted.snapshot}`);
		case 'delete_snapshot':
			return show(`Snapshot ${wanted.snapshot} of ${vm.name} is deleted`);
		case 'clone':
			return show(`${wanted.name} is there, and off`, {
				title: 'Look at it',
				run: () => void goto(`/vms/${encodeURIComponent(vm.agent_id)}/${encodeURIComponent(wanted.name)}`)
			});
		case 'resize':
			return show(`${vm.name} has its new size`);
		case 'mount':
			return show(`${vm.name} has the mount ${wanted.target}`);
		case 'umount':
			return show(`${wanted.target} is taken out of ${vm.name}`);
	}
}
