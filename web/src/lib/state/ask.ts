// Asking the master for something to be done with a VM: once, however often the network makes us say it.
import { api, unwrap } from '$lib/api/client';
import { problemOf } from '$lib/api/problem';
import type { Operation } from '$lib/api/types';
import type { VmName, VmRequest } from '$lib/model/request';

/** How often a request is tried that does not reach the master, and the first pause between. */
const ATTEMPTS = 3;
const PAUSE_MS = 400;

/** Random; `randomUUID` is not there over plain HTTP. */
export function freshKey(): string {
	return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

export type AskOptions = {
	key?: string;
	/** How long the master keeps it for a machine that is offline, as in `3d`; it is refused there otherwise. */
	whenOnline?: string;
};

/** A request whose answer never came is asked again under the same key: the master does it once, however often it hears it. */
export async function ask(vm: VmName, request: VmRequest, { key = freshKey(), whenOnline }: AskOptions = {}): Promise<Operation> {
	for (let attempt = 1; ; attempt += 1) {
		try {
			return await askOnce(vm, request, { 'Idempotency-Key': key }, { when_online: whenOnline });
		} catch (thrown) {
			if (problemOf(thrown).status !== 0 || attempt === ATTEMPTS) throw thrown;
			await new Promise((resolve) => setTimeout(resolve, PAUSE_MS * attempt));
		}
	}
}

function askOnce(vm: VmName, request: VmRequest, headers: Record<string, string>, query: { when_online?: string }): Promise<Operation> {
	const path = { agent: vm.agent_id, vm: vm.name };
	const params = { path, query };
	switch (request.kind) {
		case 'delete':
			return unwrap(api.DELETE('/api/v1/agents/{agent}/vms/{vm}', { params, headers }));
		case 'snapshot': {
			const { name, comment, stop } = request;
			return unwrap(api.POST('/api/v1/agents/{agent}/vms/{vm}/snapshot', { params, headers, body: { name, comment, stop } }));
		}
		case 'restore': {
			const { snapshot, discard, stop } = request;
			return unwrap(api.POST('/api/v1/agents/{agent}/vms/{vm}/restore', { params, headers, body: { snapshot, discard, stop } }));
		}
		case 'delete_snapshot': {
			const { snapshot, stop } = request;
			return unwrap(api.DELETE('/api/v1/agents/{agent}/vms/{vm}/snapshots/{snapshot}', { params: { path: { ...path, snapshot }, query: { ...query, stop } }, headers }));
		}
		case 'clone': {
			const { name, snapshot, stop } = request;
			return unwrap(api.POST('/api/v1/agents/{agent}/vms/{vm}/clone', { params, headers, body: { name, snapshot, stop } }));
		}
		case 'resize': {
			const { cpus, memory, disk, stop } = request;
			return unwrap(api.POST('/api/v1/agents/{agent}/vms/{vm}/resize', { params, headers, body: { cpus, memory, disk, stop } }));
		}
		case 'mount': {
			const { source, target, read_only, type } = request;
			return unwrap(api.POST('/api/v1/agents/{agent}/vms/{vm}/mount', { params, headers, body: { source, target, read_only, type } }));
		}
		case 'umount':
			return unwrap(api.POST('/api/v1/agents/{agent}/vms/{vm}/umount', { params, headers, body: { target: request.target } }));
		default: {
			const body = request.kind === 'stop' ? { force: request.force, after_s: request.after_s } : undefined;
			return unwrap(api.POST('/api/v1/agents/{agent}/vms/{vm}/{action}', { params: { path: { ...path, action: request.kind }, query }, headers, body }));
		}
	}
}
