// Addresses of VMs, and which of them others can reach.
import type { Vm } from '$lib/api/types';

export type Address = {
	text: string;
	/** Whether only the VM itself knows this address: nobody reaches it there. */
	inside: boolean;
};

/** QEMU's user-mode network: every VM is alone in one of its own, and all have the same address there. */
const USER_MODE = /^10\.0\.2\.\d+$/;

/** The addresses of a VM, those that others can reach first. */
export function addressesOf(vm: Pick<Vm, 'driver' | 'ipv4'>): Address[] {
	const all = (vm.ipv4 ?? []).map((text) => ({ text, inside: vm.driver === 'qemu' && USER_MODE.test(text) }));
	return all.sort((a, b) => Number(a.inside) - Number(b.inside));
}

export const INSIDE = 'QEMU’s user-mode network gives every VM this address, in a network of its own: the VM reaches out, nobody reaches in. Its terminal works all the same.';
