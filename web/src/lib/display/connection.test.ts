import { expect, test } from 'vitest';
import type { Connection, Verdict } from '$lib/terminal/socket';
import { DisplayConnection } from './connection';

class FakeSocket extends EventTarget {
	binaryType = '';
	left = false;
	close() {
		this.left = true;
	}
	speaks() {
		this.dispatchEvent(new MessageEvent('message', { data: new ArrayBuffer(12) }));
	}
	closes(code: number, reason = '') {
		this.dispatchEvent(Object.assign(new Event('close'), { code, reason }));
	}
}

function lab(verdict: Verdict = { kind: 'retry' }) {
	const sockets: FakeSocket[] = [];
	const states: Connection[] = [];
	const timers: { delay: number; callback: () => void }[] = [];
	const begun: MessageEvent[] = [];
	const connection = new DisplayConnection({
		url: 'ws://master/display',
		begin: (_, first) => begun.push(first),
		changed: (state) => states.push(state),
		probe: () => Promise.resolve(verdict),
		connect: () => {
			const socket = new FakeSocket();
			sockets.push(socket);
			return socket as unknown as WebSocket;
		},
		now: () => 1000,
		random: () => 1,
		after: (delay, callback) => {
			timers.push({ delay, callback });
			return () => undefined;
		}
	});
	const socket = () => sockets.at(-1) as FakeSocket;
	return { connection, sockets, states, timers, begun, socket, last: () => states.at(-1) };
}

test('a display is open once its other end has spoken, and its first words are handed on', () => {
	const it = lab();
	it.connection.open();
	it.connection.open();
	expect(it.sockets).toHaveLength(1);
	expect(it.last()).toEqual({ kind: 'connecting' });
	it.socket().speaks();
	it.socket().speaks();
	expect(it.last()).toEqual({ kind: 'open' });
	expect(it.begun).toHaveLength(1);
});

test('a cut is mended after longer and longer pauses, or at once when asked', async () => {
	const it = lab();
	it.connection.open();
	it.socket().speaks();
	it.socket().closes(1006);
	expect(it.last()).toMatchObject({ kind: 'waiting', retryAt: 1500, reason: 'connection lost' });
	it.timers[0]?.callback();
	it.socket().closes(4003, '');
	await Promise.resolve();
	await Promise.resolve();
	expect(it.timers.map((timer) => timer.delay)).toEqual([500, 1000]);
	it.connection.retryNow();
	expect(it.sockets).toHaveLength(3);
	it.connection.retryNow();
	expect(it.sockets).toHaveLength(3);
});

test('what is final is not tried again, and is told with its reason', async () => {
	for (const code of [1000, 1002, 1008, 4009]) {
		const it = lab();
		it.connection.open();
		it.socket().speaks();
		it.socket().closes(code, 'because');
		expect(it.last()).toEqual({ kind: 'ended', reason: 'because', code: null });
		expect(it.timers).toHaveLength(0);
	}
	const refused = lab({ kind: 'ended', reason: 'you are signed out' });
	refused.connection.open();
	refused.socket().closes(1006);
	await Promise.resolve();
	await Promise.resolve();
	expect(refused.last()).toEqual({ kind: 'ended', reason: 'you are signed out', code: null });
});

test('one that was left says nothing more', () => {
	const it = lab();
	it.connection.open();
	it.connection.close();
	expect(it.socket().left).toBe(true);
	it.socket().closes(1006);
	expect(it.last()).toEqual({ kind: 'connecting' });
});
