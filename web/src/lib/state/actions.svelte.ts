// What one can do with VMs, and what is told about how it went.
import { api, unwrap } from '$lib/api/client';
import { problemOf } from '$lib/api/problem';
import type { Operation, Vm, VmAction } from '$lib/api/types';
import { sentences } from '$lib/model/sentence';
import { dialogs } from './dialogs.svelte';
import { operations } from './operations.svelte';
import { session } from './session.svelte';
import { toasts } from './toasts.svelte';

export type Verb = Exclude<VmAction, 'shell' | 'console'>;

export const TITLES: Record<VmAction, string> = {
	start: 'Start',
	stop: 'Stop',
	restart: 'Restart',
	suspend: 'Suspend',
	resume: 'Resume',
	delete: 'Move to trash',
	recover: 'Restore',
	purge: 'Purge…',
	shell: 'Terminal',
	console: 'Serial console'
};

/** How many requests of one click are under way at once. */
const AT_ONCE = 4;
/** How often a request is tried that does not reach the master, and the first pause between. */
const ATTEMPTS = 3;
const PAUSE_MS = 400;

/** Why an action is not possible now; `null` when it is. The agent and the account's rights say so, not we. */
export function refusal(vm: Vm, action: VmAction): string | null {
	const mine = action === 'shell' || action === 'console' ? session.terminalRefusal : session.operateRefusal;
	const reason = mine ?? vm.actions?.[action];
	if (reason === undefined) return 'this machine cannot do this';
	return reason;
}

/** Asks for an action; tells when it cannot be asked for, and later when it failed. */
export async function act(vm: { agent_id: string; name: string }, verb: Verb): Promise<Operation | null> {
	try {
		const operation = await ask(vm, verb);
		operations.whenFinished(operation, (finished) => tell(vm, verb, finished));
		return operation;
	} catch (thrown) {
		toasts.failure(`Cannot ${verb} ${vm.name}`, thrown);
		return null;
	}
}

/** Purge asks first; everything else is done at once. */
export function request(vm: Vm, action: Verb): void {
	if (action === 'purge') dialogs.purge = [vm];
	else void act(vm, action);
}

/** Does the same with several; those that cannot are left out. */
export function actOnAll(vms: Vm[], verb: Verb): void {
	const able = vms.filter((vm) => refusal(vm, verb) === null);
	if (verb === 'purge') {
		dialogs.purge = able;
		return;
	}
	const waiting = able.values();
	const worker = async () => {
		for (const vm of waiting) await act(vm, verb);
	};
	for (let n = 0; n < AT_ONCE; n += 1) void worker();
}

/** Takes a missing VM off the list. */
export async function dismiss(vm: { agent_id: string; name: string }): Promise<boolean> {
	try {
		await unwrap(api.POST('/api/v1/agents/{agent}/vms/{vm}/dismiss', { params: { path: { agent: vm.agent_id, vm: vm.name } } }));
		toasts.show({ tone: 'info', title: `${vm.name} is off the list`, detail: 'Should it come back on its machine, it is listed again.' });
		return true;
	} catch (thrown) {
		toasts.failure(`Cannot dismiss ${vm.name}`, thrown);
		return false;
	}
}

/** A request whose answer never came is asked again under the same key: the master does it once, however often it hears it. */
async function ask(vm: { agent_id: string; name: string }, verb: Verb): Promise<Operation> {
	const headers = { 'Idempotency-Key': freshKey() };
	for (let attempt = 1; ; attempt += 1) {
		try {
			return await askOnce(vm, verb, headers);
		} catch (thrown) {
			if (problemOf(thrown).status !== 0 || attempt === ATTEMPTS) throw thrown;
			await new Promise((resolve) => setTimeout(resolve, PAUSE_MS * attempt));
		}
	}
}

function askOnce(vm: { agent_id: string; name: string }, verb: Verb, headers: Record<string, string>): Promise<Operation> {
	const path = { agent: vm.agent_id, vm: vm.name };
	if (verb === 'delete') return unwrap(api.DELETE('/api/v1/agents/{agent}/vms/{vm}', { params: { path }, headers }));
	return unwrap(api.POST('/api/v1/agents/{agent}/vms/{vm}/{action}', { params: { path: { ...path, action: verb } }, headers }));
}

/** Random; `randomUUID` is not there over plain HTTP. */
function freshKey(): string {
	return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function tell(vm: { agent_id: string; name: string }, verb: Verb, operation: Operation): void {
	if (operation.state === 'failed')
		toasts.show({
			tone: 'bad',
			title: `Could not ${verb} ${vm.name}`,
			detail: sentences(operation.error?.detail, operation.error?.hint)
		});
	else if (operation.state === 'succeeded' && verb === 'delete')
		toasts.show({
			tone: 'info',
			title: `${vm.name} is in the trash`,
			action: { title: 'Undo', run: () => void act(vm, 'recover') }
		});
	else if (operation.state === 'succeeded' && verb === 'purge')
		toasts.show({ tone: 'info', title: `${vm.name} is gone` });
}

