import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { api } from '$lib/api/client';
import type { Agent, Event } from '$lib/api/types';
import { agents } from './agents.svelte';
import { events } from './events.svelte';

/** The browser's end of a stream, of which the test is the network. */
class FakeSource {
	static readonly CLOSED = 2;
	static made: FakeSource[] = [];
	static get last(): FakeSource {
		const last = FakeSource.made.at(-1);
		if (!last) throw new Error('no stream was opened');
		return last;
	}
	readyState = 0;
	onopen: (() => void) | null = null;
	onerror: (() => void) | null = null;
	constructor(readonly url: string) {
		FakeSource.made.push(this);
	}
	addEventListener() {}
	close() {
		this.readyState = FakeSource.CLOSED;
	}
	opens() {
		this.readyState = 1;
		this.onopen?.();
	}
	/** Is cut; the browser tries again by itself. */
	breaks() {
		this.readyState = 0;
		this.onerror?.();
	}
}

let told: Event['type'][] = [];
let unsubscribe = () => {};
beforeEach(() => {
	vi.useFakeTimers();
	vi.stubGlobal('EventSource', FakeSource);
	FakeSource.made = [];
	told = [];
	unsubscribe = events.subscribe((event) => told.push(event.type));
});
afterEach(() => {
	events.close();
	unsubscribe();
	vi.useRealTimers();
	vi.unstubAllGlobals();
	vi.restoreAllMocks();
});

test('a stream that begins makes the lists load anew, one that is resumed does not', () => {
	vi.spyOn(api, 'GET').mockRejectedValue(new Error('no master'));
	events.open();
	expect(told).toEqual([]);
	FakeSource.last.opens();
	expect(told).toEqual(['reload']);
	FakeSource.last.breaks();
	expect(events.state).toBe('cut');
	FakeSource.last.opens();
	expect([told, events.state]).toEqual([['reload'], 'live']);

	// Cut for longer: we open a stream of our own, which begins when it begins.
	FakeSource.last.breaks();
	FakeSource.last.breaks();
	vi.runAllTimers();
	expect(FakeSource.made).toHaveLength(2);
	FakeSource.last.opens();
	expect(told).toEqual(['reload', 'reload']);

	// Signed out and in again.
	events.close();
	events.open();
	FakeSource.last.opens();
	expect(told).toEqual(['reload', 'reload', 'reload']);
});

test('what changes between the first answer and the begin of the stream is not missed', async () => {
	const agent = (status: Agent['status']) => ({ id: 'barn', name: 'barn', status }) as Agent;
	const answers: ((status: Agent['status']) => void)[] = [];
	vi.spyOn(api, 'GET').mockImplementation(((path: string) =>
		new Promise((resolve) => {
			if (path === '/api/v1/agents') answers.push((status) => resolve({ data: { items: [agent(status)] }, response: { ok: true } }));
		})) as never);
	events.open();
	const first = agents.load();
	expect(answers).toHaveLength(1);
	// The master has answered already; the machine goes offline; only then the stream begins, and tells nothing of it.
	FakeSource.last.opens();
	answers[0]?.('online');
	await first;
	expect(agents.get('barn')?.status).toBe('online');
	await vi.waitFor(() => expect(answers).toHaveLength(2));
	answers[1]?.('offline');
	await vi.waitFor(() => expect(agents.get('barn')?.status).toBe('offline'));
});
