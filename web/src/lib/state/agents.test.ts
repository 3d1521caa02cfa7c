import { expect, test } from 'vitest';
import type { Agent, Event } from '$lib/api/types';
import { agents } from './agents.svelte';
import { events } from './events.svelte';

const agent = (id: string, given: Partial<Agent> = {}): Agent => ({
	id,
	name: id,
	api_url: '',
	cordoned: false,
	labels: {},
	legacy: false,
	link: 'tunnel',
	status: 'online',
	status_since: '2026-01-01T00:00:00Z',
	vm_count: 0,
	...given
});
const tell = (event: Event) => events.tell(event);

test('an answer that was overtaken by an event does not undo what the event told', async () => {
	tell({ type: 'agent', agent: agent('a', { status: 'pending' }) });
	await agents.answered('a', () => {
		// The master let it in, it came online and that was told, all before the answer arrived.
		tell({ type: 'agent', agent: agent('a', { status: 'online' }) });
		return Promise.resolve(agent('a', { status: 'offline' }));
	});
	expect(agents.get('a')?.status).toBe('online');
	await agents.answered('a', () => Promise.resolve(agent('a', { cordoned: true })));
	expect(agents.get('a')?.cordoned).toBe(true);
	tell({ type: 'agent_removed', agent_id: 'a' });
	expect(agents.get('a')).toBeUndefined();
});

test('machines of one name are told apart by their ids', () => {
	tell({ type: 'agent', agent: agent('b', { name: 'localhost' }) });
	expect(agents.title('b')).toBe('localhost');
	tell({ type: 'agent', agent: agent('c', { name: 'localhost' }) });
	expect([agents.title('b'), agents.title('c'), agents.title('d', 'other')]).toEqual(['b', 'c', 'other']);
});
