// How states look: every state has a mark (shape and colour) and a word. Total maps, so that a new state
// does not compile until somebody has decided how it looks.
import type { AgentStatus, HealthStatus, Operation, Vm, VmState } from '$lib/api/types';

export type Tone = 'good' | 'working' | 'waiting' | 'off' | 'warn' | 'bad' | 'odd';
export type Shape =
	| 'disc'
	| 'ring'
	| 'spin'
	| 'half'
	| 'triangle'
	| 'cross'
	| 'question'
	| 'bin';
export type Mark = { shape: Shape; tone: Tone; word: string };

const VM: Record<VmState, Mark> = {
	creating: { shape: 'spin', tone: 'working', word: 'Creating' },
	starting: { shape: 'spin', tone: 'working', word: 'Starting' },
	running: { shape: 'disc', tone: 'good', word: 'Running' },
	restarting: { shape: 'spin', tone: 'working', word: 'Restarting' },
	stopping: { shape: 'spin', tone: 'working', word: 'Stopping' },
	stopped: { shape: 'ring', tone: 'off', word: 'Stopped' },
	suspending: { shape: 'spin', tone: 'working', word: 'Suspending' },
	suspended: { shape: 'half', tone: 'waiting', word: 'Suspended' },
	deleted: { shape: 'bin', tone: 'off', word: 'In trash' },
	unknown: { shape: 'question', tone: 'odd', word: 'Unknown' },
	error: { shape: 'cross', tone: 'bad', word: 'Broken' }
};

const UNHEARD: Mark = { shape: 'question', tone: 'odd', word: 'Unknown' };

const AGENT: Record<AgentStatus, Mark> = {
	online: { shape: 'disc', tone: 'good', word: 'Online' },
	offline: { shape: 'ring', tone: 'off', word: 'Offline' },
	error: { shape: 'cross', tone: 'bad', word: 'Error' },
	pending: { shape: 'half', tone: 'waiting', word: 'Waiting for approval' },
	revoked: { shape: 'cross', tone: 'off', word: 'Revoked' }
};

const OPERATION: Record<Operation['state'], Mark> = {
	queued: { shape: 'half', tone: 'working', word: 'Queued' },
	running: { shape: 'spin', tone: 'working', word: 'Running' },
	succeeded: { shape: 'disc', tone: 'good', word: 'Succeeded' },
	failed: { shape: 'cross', tone: 'bad', word: 'Failed' },
	cancelled: { shape: 'ring', tone: 'off', word: 'Cancelled' }
};

/** What a VM is doing; a running one that nobody can reach yet, or at all, says so, and so does one that is not there. */
export function vmMark(vm: Pick<Vm, 'state' | 'readiness' | 'missing_since'>): Mark {
	if (vm.missing_since) return { shape: 'triangle', tone: 'warn', word: 'Missing' };
	if (vm.state === 'running') {
		if (vm.readiness === 'booting') return { shape: 'spin', tone: 'working', word: 'Booting' };
		if (vm.readiness === 'cloud_init')
			return { shape: 'spin', tone: 'working', word: 'Setting up' };
		if (vm.readiness === 'unreachable')
			return { shape: 'triangle', tone: 'warn', word: 'Unreachable' };
	}
	// A newer master may know states that this page does not.
	return VM[vm.state] ?? UNHEARD;
}

/** How an agent stands; one that answers but whose driver does not is not well. */
export function agentMark(agent: {
	status: AgentStatus;
	info?: { drivers: { health: { status: string } }[] } | null;
}): Mark {
	if (agent.status === 'online' && agent.info) {
		const drivers = agent.info.drivers;
		if (drivers.length === 0) return { shape: 'triangle', tone: 'warn', word: 'No driver' };
		if (drivers.some((driver) => driver.health.status === 'stuck'))
			return { shape: 'triangle', tone: 'warn', word: 'Driver stuck' };
		if (drivers.every((driver) => driver.health.status === 'missing'))
			return { shape: 'triangle', tone: 'warn', word: 'No driver' };
	}
	return AGENT[agent.status] ?? UNHEARD;
}

/** Since when it stands as [`agentMark`] says. */
export function agentSince(agent: { status: AgentStatus; status_since: string; info?: { drivers: { health: { status: string; since: string } }[] } | null }): string {
	const stuck = agent.info?.drivers.find((driver) => driver.health.status === 'stuck');
	return agent.status === 'online' && stuck ? stuck.health.since : agent.status_since;
}

const HEALTH: Record<HealthStatus, Mark> = {
	ok: { shape: 'disc', tone: 'good', word: 'Answers' },
	slow: { shape: 'half', tone: 'waiting', word: 'Slow' },
	stuck: { shape: 'triangle', tone: 'warn', word: 'Stuck' },
	missing: { shape: 'ring', tone: 'off', word: 'Not there' }
};

/** How a driver is. */
export function healthMark(status: HealthStatus): Mark {
	return HEALTH[status] ?? UNHEARD;
}

/** How a machine stands, for its link alone: whatever its drivers do. */
export function linkMark(status: AgentStatus): Mark {
	return AGENT[status] ?? UNHEARD;
}

export function operationMark(operation: Pick<Operation, 'state'>): Mark {
	return OPERATION[operation.state] ?? UNHEARD;
}

/** Whether somebody should look at this VM. */
export function needsAttention(vm: Pick<Vm, 'state' | 'readiness' | 'missing_since'>): boolean {
	return Boolean(vm.missing_since) || vm.state === 'error' || vm.state === 'unknown' || vm.readiness === 'unreachable';
}
