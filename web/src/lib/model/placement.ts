// Where a new VM goes when nobody says: the machine with the most memory free, with the reason in words.
import type { Agent, DriverStatus } from '$lib/api/types';
import { bytesOf, formatBytes } from './size';

export type Place = { agent: Agent; reason: string };

/** The driver that makes new VMs on a machine, when it is fit to. */
export function creatingDriver(agent: Agent): DriverStatus | null {
	const drivers = agent.info?.drivers ?? [];
	return (
		drivers.find((driver) => driver.health.status === 'ok' || driver.health.status === 'slow') ??
		null
	);
}

/** Why no VM can be made on a machine now; `null` when it can. */
export function placeRefusal(agent: Agent): string | null {
	switch (agent.status) {
		case 'offline':
			return 'it is offline';
		case 'pending':
			return 'it waits for approval';
		case 'revoked':
			return 'it is revoked';
		case 'error':
			return 'it does not answer as it should';
		case 'online':
			break;
	}
	if (agent.cordoned) return 'it is cordoned';
	// Old agents say nothing of their drivers: they have Multipass.
	if (agent.info && !creatingDriver(agent)) {
		const driver = agent.info.drivers[0];
		return driver?.health.status === 'stuck' ? 'its driver is stuck' : 'it has no driver';
	}
	return null;
}

/** The best machine for a VM with this much memory, or `null` when none can take one. */
export function bestPlace(agents: Agent[], memory: number): Place | null {
	const able = agents.filter((agent) => placeRefusal(agent) === null);
	const free = (agent: Agent) => bytesOf(agent.info?.host.memory_available) ?? 0;
	const [best] = [...able].sort(
		(a, b) => free(b) - free(a) || a.vm_count - b.vm_count || a.id.localeCompare(b.id)
	);
	if (!best) return null;
	const room = free(best);
	const amount = room > 0 ? `${formatBytes(room)} memory free` : 'it can take new VMs';
	if (able.length === 1) return { agent: best, reason: `the only machine that can · ${amount}` };
	if (room > 0 && room < memory) return { agent: best, reason: `most room, but only ${amount}` };
	return { agent: best, reason: room > 0 ? `most room · ${amount}` : amount };
}
