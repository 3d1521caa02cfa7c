// How full a machine is, as far as it has said.
import type { Agent } from '$lib/api/types';
import { bytesOf, formatBytes } from './size';

export type Use = { percent: number; text: string };

function use(total: number | null, free: number | null): Use | null {
	if (!total || free === null) return null;
	const used = Math.max(0, total - free);
	return { percent: (used / total) * 100, text: `${formatBytes(used)} of ${formatBytes(total)}` };
}

export function memoryUse(agent: Agent): Use | null {
	const host = agent.info?.host;
	return use(bytesOf(host?.memory), bytesOf(host?.memory_available));
}

export function diskUse(agent: Agent): Use | null {
	const host = agent.info?.host;
	return use(bytesOf(host?.disk_total), bytesOf(host?.disk_free));
}

/** Load over one minute as a share of the CPUs; more than all of them is 100. */
export function loadUse(agent: Agent): number | null {
	const host = agent.info?.host;
	const load = host?.load?.[0];
	if (!host || load === undefined || host.cpus === 0) return null;
	return Math.min(100, (load / host.cpus) * 100);
}
