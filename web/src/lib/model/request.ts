// What can be asked for an existing VM, as one piece of data: buttons, dialogs, several at once, asking again and the
// command line all speak of the same thing.
import type { Operation, OperationKind, Vm } from '$lib/api/types';
import { quote } from './cli';
import { writeSize } from './size';

/** What needs nothing but the VM. */
export type PlainVerb = 'start' | 'restart' | 'suspend' | 'resume' | 'delete' | 'recover' | 'purge';

/** `stop` of what touches the disk: the VM is stopped for it, if it runs, and started again. */
export type VmRequest =
	| { kind: PlainVerb }
	| { kind: 'stop'; force: boolean; after_s: number | null }
	| { kind: 'snapshot'; name: string | null; comment: string | null; stop: boolean }
	| { kind: 'restore'; snapshot: string; discard: boolean; stop: boolean }
	| { kind: 'delete_snapshot'; snapshot: string; stop: boolean }
	| { kind: 'clone'; name: string; snapshot: string | null; stop: boolean }
	| { kind: 'resize'; cpus: number | null; memory: number | null; disk: number | null; stop: boolean }
	| { kind: 'mount'; source: string; target: string; read_only: boolean; type: 'classic' | 'native' | null }
	| { kind: 'umount'; target: string };

export type VmName = Pick<Vm, 'agent_id' | 'name'>;

export const GRACEFUL: VmRequest = { kind: 'stop', force: false, after_s: null };

/** Kinds of what is done with a VM that is there. */
type OfVm = Exclude<OperationKind, 'create' | 'pull_image'>;

const VERBS: Record<OfVm, string> = {
	start: 'start',
	stop: 'stop',
	restart: 'restart',
	suspend: 'suspend',
	resume: 'resume',
	delete: 'move to the trash',
	recover: 'recover',
	purge: 'purge',
	snapshot: 'take a snapshot of',
	restore: 'restore',
	delete_snapshot: 'delete a snapshot of',
	clone: 'clone',
	resize: 'resize',
	mount: 'mount a folder in',
	umount: 'take a folder out of'
};

/** As in `Cannot take a snapshot of web`. */
export function verb(kind: OfVm): string {
	return VERBS[kind] ?? kind;
}

/** The command that asks for the same; `null` where the command line has none. */
export function requestCommand(request: VmRequest, vm: VmName): string | null {
	const target = `${vm.agent_id}/${vm.name}`;
	const line = (...parts: (string | false)[]) => ['batwa', ...parts].filter(Boolean).join(' ');
	switch (request.kind) {
		case 'stop':
			return request.after_s === null ? line('stop', request.force && '--force', quote(target)) : null;
		case 'snapshot':
			return line('snapshot', quote(target), request.name !== null && `--name ${quote(request.name)}`, request.comment !== null && `--comment ${quote(request.comment)}`, request.stop && '--stop');
		case 'restore':
			return line('restore', quote(`${target}.${request.snapshot}`), request.discard && '--discard', request.stop && '--stop');
		case 'delete_snapshot':
			return line('delete-snapshot', quote(`${target}.${request.snapshot}`), request.stop && '--stop');
		case 'clone':
			return line('clone', quote(request.snapshot === null ? target : `${target}.${request.snapshot}`), `--name ${quote(request.name)}`, request.stop && '--stop');
		case 'resize':
			return line(
				'set',
				quote(target),
				request.cpus !== null && `--cpus ${request.cpus}`,
				request.memory !== null && `--memory ${writeSize(request.memory)}`,
				request.disk !== null && `--disk ${writeSize(request.disk)}`,
				request.stop && '--stop'
			);
		case 'mount':
			return line('mount', request.type !== null && `--type ${request.type}`, request.read_only && '--read-only', quote(request.source), quote(`${target}:${request.target}`));
		case 'umount':
			return line('umount', quote(`${target}:${request.target}`));
		default:
			return line(request.kind, quote(target));
	}
}

/**
 * What would ask for the same as an operation did, where the operation says all of it; `null` where a part is not
 * told (sizes, an image, how it was stopped) or where a person has to look first (a purge, a restore).
 */
export function sameAgain(operation: Pick<Operation, 'kind'>): VmRequest | null {
	switch (operation.kind) {
		case 'start':
		case 'restart':
		case 'suspend':
		case 'resume':
		case 'delete':
		case 'recover':
			return { kind: operation.kind };
		default:
			return null;
	}
}
