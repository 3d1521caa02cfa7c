// Asking once more for what an operation did, or was to do.
import { api, unwrap } from '$lib/api/client';
import { problemOf } from '$lib/api/problem';
import type { Operation, Vm } from '$lib/api/types';
import { nameOf } from '$lib/model/operation';
import { verb, sameAgain } from '$lib/model/request';
import { act } from './actions.svelte';
import { freshKey } from './ask';
import { dialogs, type About } from './dialogs.svelte';
import { pull } from './images.svelte';
import { operations } from './operations.svelte';
import { toasts } from './toasts.svelte';

function isInVain(operation: Operation): boolean {
	return operation.state === 'failed' || operation.state === 'cancelled';
}

/** What its button says; with an ellipsis where a dialog opens first. */
export function repeatTitle(operation: Operation): string {
	if (isInVain(operation)) return 'Try again';
	return operation.image || sameAgain(operation) ? 'Do it again' : 'Do it again…';
}

/**
 * What was in vain is asked for with all that it was asked with, which the master kept. What was done is done again, or,
 * where the operation does not tell all of it, the dialog opens with what it tells.
 */
export async function repeat(operation: Operation): Promise<void> {
	if (isInVain(operation)) await retry(operation);
	else await anew(operation);
}

async function retry(operation: Operation): Promise<void> {
	const what = operation.kind === 'create' ? 'create' : operation.kind === 'pull_image' ? 'pull' : verb(operation.kind);
	try {
		const params = { path: { operation: operation.id } };
		const headers = { 'Idempotency-Key': freshKey() };
		operations.put(await unwrap(api.POST('/api/v1/operations/{operation}/retry', { params, headers })));
		toasts.show({ tone: 'info', title: `Trying again to ${what} ${nameOf(operation)}` });
	} catch (thrown) {
		toasts.failure(`Cannot ${what} ${nameOf(operation)}`, thrown);
	}
}

async function anew(operation: Operation): Promise<void> {
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
		case 'mount':
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
