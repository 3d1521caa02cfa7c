// Folders of a machine that its VMs see: what is said of them, and what can be asked for. The machine has the last word.
import type { MountState, Policy } from '$lib/api/types';

/** What is to be said of a mount beside what it is; nothing of one that is as it should be. */
export const MOUNT_STATES: Record<MountState, string> = {
	mounted: '',
	at_next_start: 'from its next start on',
	until_stop: 'gone for good once the VM was stopped',
	failed: 'not seen'
};

/** Why nothing can be mounted on a machine with this policy; `null` when something can. */
export function mountable(policy: Pick<Policy, 'file' | 'mounts'> | null | undefined): string | null {
	if (!policy) return 'its machine has not said what may be mounted';
	return (policy.mounts ?? []).length > 0 ? null : `the policy of its machine names no folder that VMs may see: its owner can, in ${policy.file}`;
}

export function sourceError(path: string): string | null {
	// eslint-disable-next-line no-control-regex
	const good = path.startsWith('/') && path.length <= 1024 && !/[\u0000-\u001f\u007f]/.test(path) && !path.split('/').includes('..');
	return good ? null : 'write the whole path of a folder on the VM’s machine, without `..`';
}

export function targetError(path: string): string | null {
	const good = /^(\/[A-Za-z0-9._@+-]+)+$/.test(path) && path.length <= 255 && !path.split('/').some((part) => part === '.' || part === '..');
	return good ? null : 'write a whole path inside the VM, of letters, digits and `._@+-`';
}
