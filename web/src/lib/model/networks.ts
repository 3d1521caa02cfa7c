// Networks of a machine that new VMs can be put on, and the cards that put them there. The machine has the last word.
import type { HostNetwork, VmNetwork } from '$lib/api/types';

/** Networks by name, those that VMs may be put on first; one that several drivers have is shown once, of the driver that makes the VM. */
export function offeredNetworks(networks: readonly HostNetwork[], driver: string | undefined): HostNetwork[] {
	const own = networks.filter((network) => driver === undefined || network.driver === driver);
	return [...own].sort((a, b) => Number(Boolean(a.refusal)) - Number(Boolean(b.refusal)) || a.name.localeCompare(b.name));
}

/** The words of `batwa launch` that put a VM on these networks. */
export function networkOptions(names: readonly string[]): string[] {
	return names.flatMap((name) => ['--network', name]);
}

/** A card beside its network's name. */
export function cardWords(network: VmNetwork): string {
	return [network.mac, network.mode === 'manual' ? 'set up by hand inside' : null].filter(Boolean).join(' · ');
}
