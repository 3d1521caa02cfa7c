// Saved forwards: addresses of a machine that lead to ports of its VMs; what is said of them, and what can be asked for.
// The machine has the last word.
import type { Forward, ForwardState, Policy, Vm } from '$lib/api/types';
import { quote } from './cli';

/** What is to be said of a forward beside where it leads; nothing of one that is as it should be. */
export const FORWARD_STATES: Record<ForwardState, string> = {
	listening: '',
	waiting: 'once the VM runs',
	failed: 'not now'
};

type Listening = Pick<Policy, 'file' | 'forwards'>;

/** Why a machine with this policy listens for none of its VMs; `null` when it may. */
export function forwardable(policy: Listening | null | undefined): string | null {
	if (!policy) return 'its machine has not said where it may listen';
	return (policy.forwards ?? []).length > 0 ? null : `the policy of its machine names no address to listen on: its owner can, under [forwards] in ${policy.file}`;
}

/** What is wrong with an address and port; `null` when nothing is. */
export function listenError(text: string): string | null {
	const port = /^(?:\d{1,3}(?:\.\d{1,3}){3}|\[[0-9A-Fa-f:.]+\]):(\d{1,5})$/.exec(text)?.[1];
	return port && portError(port) === null ? null : 'write an address of the machine with a port: `127.0.0.1:8080`, `[::1]:8080`';
}

export function portError(text: string): string | null {
	const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
	return port >= 1 && port <= 65535 ? null : 'a number from 1 to 65535';
}

/** An address that a policy allows and none of these has; empty where it allows none. */
export function proposeListen(policy: Listening | null | undefined, taken: readonly string[]): string {
	for (const entry of policy?.forwards ?? []) {
		const at = entry.lastIndexOf(':');
		const [address, ports] = [entry.slice(0, at), entry.slice(at + 1)];
		const [from, to = from] = ports.split('-');
		const [first, last] = ports === '*' ? [8080, 65535] : [Number(from), Number(to)];
		for (let port = first; port <= last && port < first + 100; port += 1) {
			if (!taken.includes(`${address}:${port}`)) return `${address}:${port}`;
		}
	}
	return '';
}

/** Ports that most often speak HTTP, and those that do so by TLS. */
const isHttps = (port: number) => port === 443 || port === 8443;
const isHttp = (port: number) => isHttps(port) || [80, 3000, 5000, 5173, 9090].includes(port) || (port >= 8000 && port < 9000);
const isLoopback = (host: string) => host === 'localhost' || host === '[::1]' || host.startsWith('127.');

/**
 * Where a browser would find what listens there, if it speaks HTTP and can be reached from here; `null` otherwise. `here` is
 * the name by which this page was reached, where the machine is the one that serves it.
 */
export function forwardLink(forward: Pick<Forward, 'listen' | 'port' | 'state'>, here: string | null): string | null {
	if (forward.state !== 'listening' || !isHttp(forward.port)) return null;
	const at = forward.listen.lastIndexOf(':');
	let host = forward.listen.slice(0, at);
	if (host === '0.0.0.0' || host === '[::]') {
		if (here === null) return null;
		host = here;
	} else if (isLoopback(host) && (here === null || !isLoopback(here))) return null;
	return `${isHttps(forward.port) ? 'https' : 'http'}://${host}${forward.listen.slice(at)}/`;
}

type Name = Pick<Vm, 'agent_id' | 'name'>;

export function saveForwardCommand(vm: Name, forward: Pick<Forward, 'listen' | 'port'>): string {
	return `batwa forward --save ${quote(`${vm.agent_id}/${vm.name}:${forward.port}`)} --listen ${quote(forward.listen)}`;
}
