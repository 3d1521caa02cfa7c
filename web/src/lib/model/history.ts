// Which operations are looked for, as the address of the page says it.
import type { Operation, OperationKind } from '$lib/api/types';

/** `state` has several separated by commas, as the API takes them; the other values are whole. */
export type OperationFilter = { vm?: string; agent?: string; state?: string; kind?: OperationKind; by?: string };

/** All kinds, in the order in which one meets them. */
export const KINDS: OperationKind[] = ['create', 'start', 'stop', 'restart', 'suspend', 'resume', 'snapshot', 'restore', 'delete_snapshot', 'clone', 'resize', 'mount', 'umount', 'delete', 'recover', 'purge', 'pull_image'];
export const STATES = [
	{ title: 'All', state: undefined },
	{ title: 'Under way', state: 'queued,running' },
	{ title: 'Failed', state: 'failed' },
	{ title: 'Succeeded', state: 'succeeded' },
	{ title: 'Cancelled', state: 'cancelled' }
] as const;

/** A clone is of both: the VM that it is made of, and the new one. */
export function fits(operation: Pick<Operation, 'vm' | 'agent_id' | 'state' | 'kind' | 'requested_by'>, filter: OperationFilter): boolean {
	return (
		(!filter.vm || operation.vm === filter.vm) &&
		(!filter.agent || operation.agent_id === filter.agent) &&
		(!filter.state || filter.state.split(',').includes(operation.state)) &&
		(!filter.kind || operation.kind === filter.kind) &&
		(!filter.by || operation.requested_by === filter.by)
	);
}

const FIELDS = ['vm', 'agent', 'state', 'kind', 'by'] as const;

/** The filter in an address; what it does not know, it leaves out. */
export function filterOf(parameters: URLSearchParams): OperationFilter {
	const filter: OperationFilter = {};
	for (const field of FIELDS) {
		const value = parameters.get(field)?.trim();
		if (!value) continue;
		if (field === 'kind') {
			const kind = KINDS.find((one) => one === value);
			if (kind) filter.kind = kind;
		} else if (field === 'state') filter.state = value === 'active' ? 'queued,running' : value;
		else filter[field] = value;
	}
	return filter;
}

/** The address of a filter, with the operation that is open. */
export function addressOf(filter: OperationFilter, operation: string | null): string {
	const parameters = new URLSearchParams();
	for (const field of FIELDS) {
		const value = filter[field];
		if (value) parameters.set(field, value);
	}
	if (operation) parameters.set('operation', operation);
	const text = parameters.toString().replaceAll('%2C', ',');
	return text ? `/operations?${text}` : '/operations';
}
