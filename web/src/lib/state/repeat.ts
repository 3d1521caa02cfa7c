// Asking once more for what an operation did.
import { api, unwrap } from '$lib/api/client';
import { problemOf } from '$lib/api/problem';
import type { Operation, Vm } from '$lib/api/types';
import { nameOf } from '$lib/model/operation';
import { sameAgain } from '$lib/model/request';
import { act } from './actions.svelte';
import { dialogs, type About } from './dialogs.svelte';
import { pull } from './images.svelte';
import { toasts } from './toasts.svelte';

/** What its button says; with an ellipsis where a dialog opens first. */
export function repeatTitle(operation: Operation): string {
	return operation.image || sameAgain(operation) ? 'Do it again' : 'Do it again…';
}

/** Does it again; where the operation does not tell all that was asked for, opens the dialog with what it tells. */
export async function repeat(operation: Operation): Promise<void> {
	const same = sameAgain(operation);
	if (operation.image) {
		await pull(operation.agent_id, operation.image);
		return;
	}
	const vmName = nameOf(operation);
	const name = { agent_id: operation.agent_id, name: vmName };
	if (same) {
		await act(name, same);
		return;
	}
	if (operation.kind === 'create') {
		dialogs.create = { agent: operation.agent_id, name: vmName };
		return;
	}
	try {
		const vm = await unwrap(api.GET('/api/v1/agents/{agent}/vms/{vm}', { params: { path: { agent: operation.agent_id, vm: vmName } } }));
		open(operation, vm);
	} catch (thrown) {
		if (problemOf(thrown).status === 404) toasts.show({ tone: 'info', title: `${vmName} is not there any more` });
		else toasts.failure(`Cannot look at ${vmName}`, thrown);
	}
}

function open(operation: Operation, vm: Vm): void {
	if (operation.kind === 'purge') dialogs.purge = [vm];
	else dialogs.about = aboutOf(operation, vm);
}

function aboutOf(operation: Operation, vm: Vm): About | null {
	const snapshot = operation.snapshot ?? undefined;
	switch (operation.kind) {
		case 'stop':
		case 'resize':
			return { kind: operation.kind, vm };
		case 'snapshot':
			// The name of one that was taken is taken.
			return { kind: 'snapshot', vm, name: operation.state === 'succeeded' ? undefined : snapshot };
		case 'restore':
		case 'delete_snapshot':
			return snapshot ? { kind: operation.kind, vm, snapshot } : null;
		case 'clone':
			return { kind: 'clone', vm, snapshot, name: operation.state === 'succeeded' ? undefined : (operation.target ?? undefined) };
		default:
			return null;
	}
}
