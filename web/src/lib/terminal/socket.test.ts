import { describe, expect, test } from 'vitest';
import {
	HIGH_WATER,
	LOW_WATER,
	MAX_TYPED_AHEAD,
	SILENCE_MS,
	TerminalSocket,
	type Connection,
	type Verdict,
	type WebSocketLike
} from './socket';

class FakeSocket implements WebSocketLike {
	binaryType = '';
	readyState = 0;
	bufferedAmount = 0;
	onopen: ((event: never) => void) | null = null;
	onmessage: ((event: { data: unknown }) => void) | null = null;
	onclose: ((event: { code: number; reason: string }) => void) | null = null;
	onerror: ((event: never) => void) | null = null;
	sent: (string | Uint8Array)[] = [];
	closed = false;
	constructor(readonly url: string) {}
	send(data: string | Uint8Array<ArrayBuffer>) {
		this.sent.push(data);
	}
	close() {
		this.closed = true;
	}
	/** Opens and, unless told otherwise, reaches the session, which begins at `offset` and has taken `input` of what was typed. */
	opens(offset: number | null = 0, input?: number) {
		this.readyState = 1;
		this.onopen?.(undefined as never);
		if (offset !== null) this.says({ type: 'offset', offset, input });
	}
	says(frame: object) {
		this.onmessage?.({ data: JSON.stringify(frame) });
	}
	brings(text: string | Uint8Array<ArrayBuffer>) {
		const bytes = typeof text === 'string' ? new TextEncoder().encode(text) : text;
		this.onmessage?.({ data: bytes.buffer.slice(0, bytes.length) });
	}
	closes(code: number, reason = '') {
		this.readyState = 3;
		this.onclose?.({ code, reason });
	}
	get control() {
		return this.sent.filter((data) => typeof data === 'string').map((data) => JSON.parse(data) as { type: string });
	}
	get typed() {
		const decoder = new TextDecoder();
		return this.sent.filter((data) => typeof data !== 'string').map((data) => decoder.decode(data)).join('');
	}
}

function lab(verdict: Verdict = { kind: 'retry' }) {
	const sockets: FakeSocket[] = [];
	const timers: { at: number; callback: () => void }[] = [];
	const shown: (() => void)[] = [];
	const states: Connection[] = [];
	const gaps: number[] = [];
	const told: string[] = [];
	const replayed: number[] = [];
	let output = '';
	let now = 0;
	const decoder = new TextDecoder();
	const terminal = new TerminalSocket({
		url: (from) => `ws://x/${from ?? 'oldest'}`,
		output: (bytes, done, old) => {
			replayed.push(old);
			output += decoder.decode(bytes, { stream: true });
			shown.push(done);
		},
		gap: (bytes) => gaps.push(bytes),
		state: (text) => told.push(text),
		changed: (connection) => states.push(connection),
		probe: () => Promise.resolve(verdict),
		connect: (url) => {
			const socket = new FakeSocket(url);
			sockets.push(socket);
			return socket;
		},
		now: () => now,
		random: () => 1,
		after: (ms, callback) => {
			const timer = { at: now + ms, callback };
			timers.push(timer);
			return () => {
				const index = timers.indexOf(timer);
				if (index >= 0) timers.splice(index, 1);
			};
		}
	});
	return {
		terminal,
		sockets,
		states,
		gaps,
		told,
		replayed,
		shown,
		output: () => output,
		last: () => {
			const socket = sockets.at(-1);
			if (!socket) throw new Error('nothing has connected yet');
			return socket;
		},
		/** Lets time go on, in order of the timers. */
		pass: (ms: number) => {
			const until = now + ms;
			for (;;) {
				timers.sort((a, b) => a.at - b.at);
				const next = timers[0];
				if (!next || next.at > until) break;
				timers.shift();
				now = next.at;
				next.callback();
			}
			now = until;
		}
	};
}

describe('offsets', () => {
	test('the first attach takes what the session still holds, later ones go on where it broke', () => {
		const it = lab();
		it.terminal.open();
		expect(it.last().url).toBe('ws://x/oldest');
		it.last().opens(100);
		it.last().brings('hello');
		expect(it.terminal.offset).toBe(105);
		it.last().closes(1006);
		it.pass(500);
		expect(it.last().url).toBe('ws://x/105');
		it.last().opens(105);
		it.last().brings(' world');
		expect(it.output()).toBe('hello world');
		// What was gone before the first attach, and nothing since.
		expect(it.gaps).toEqual([100]);
	});

	test('bytes that come a second time are not shown a second time', () => {
		const it = lab();
		it.terminal.open();
		it.last().opens(0);
		it.last().brings('abcdef');
		it.last().closes(1006);
		it.pass(500);
		it.last().opens(2);
		it.last().brings('cd');
		it.last().brings('efgh');
		expect(it.output()).toBe('abcdefgh');
		expect(it.terminal.offset).toBe(8);
	});

	test('lost output is told, not hidden', () => {
		const it = lab();
		it.terminal.open();
		it.last().opens(0);
		it.last().brings('ab');
		it.last().closes(1006);
		it.pass(500);
		it.last().opens(50);
		it.last().brings('z');
		expect(it.gaps).toEqual([48]);
		expect(it.terminal.offset).toBe(51);
	});

	test('what a terminal has to be told in place of lost output is shown, and is no output', () => {
		const it = lab();
		it.terminal.open();
		it.last().opens(100);
		it.last().says({ type: 'state', text: '\x1b[?1049h' });
		it.last().says({ type: 'state', text: 7 });
		it.last().brings('a');
		expect(it.told).toEqual(['\x1b[?1049h']);
		expect([it.output(), it.terminal.offset]).toEqual(['a', 101]);
	});

	test('what is older than the viewer is known from what is new', () => {
		const it = lab();
		it.terminal.open();
		it.last().opens(100);
		it.last().says({ type: 'replay', end: 105 });
		for (const text of ['abc', 'defg', 'hi']) it.last().brings(text);
		it.last().closes(1006);
		it.pass(500);
		it.last().opens(109);
		it.last().brings('j');
		expect(it.replayed).toEqual([3, 2, 0, 0]);
		expect(it.output()).toBe('abcdefghij');
	});

	test('a program draws anew when it is shown another size for a moment', () => {
		const it = lab();
		it.terminal.resize(80, 24);
		it.terminal.redraw();
		it.terminal.open();
		it.last().opens(0);
		it.terminal.redraw();
		it.pass(1000);
		const size = (rows: number) => ({ type: 'resize', cols: 80, rows });
		expect(it.last().control).toEqual([size(24), size(23), size(24)]);
	});
});

describe('flow control', () => {
	test('asks to pause above the high mark and to go on below the low one', () => {
		const it = lab();
		it.terminal.open();
		it.last().opens(0);
		const piece = new Uint8Array(LOW_WATER);
		for (let sum = 0; sum < HIGH_WATER; sum += LOW_WATER) it.last().brings(piece);
		expect(it.last().control.map((frame) => frame.type)).toEqual(['pause']);
		while (it.shown.length > 1) it.shown.shift()?.();
		expect(it.last().control.map((frame) => frame.type)).toEqual(['pause', 'resume']);
	});

	test('a new connection is told to pause again while output waits', () => {
		const it = lab();
		it.terminal.open();
		it.last().opens(0);
		it.last().brings(new Uint8Array(HIGH_WATER));
		it.last().closes(1006);
		it.pass(500);
		it.last().opens();
		expect(it.last().control.map((frame) => frame.type)).toEqual(['pause']);
	});

	test('a large paste waits for the browser to send it, in order', () => {
		const it = lab();
		it.terminal.open();
		it.last().opens();
		it.last().bufferedAmount = 1e9;
		const text = 'x'.repeat(100_000) + 'end';
		expect(it.terminal.send(text)).toBe(true);
		expect(it.last().typed).toBe('');
		it.last().bufferedAmount = 0;
		it.pass(20);
		expect(it.last().typed).toBe(text);
	});
});

describe('a cut', () => {
	test('keeps what is typed, up to a bound, and sends it afterwards', () => {
		const it = lab();
		it.terminal.open();
		it.last().opens();
		it.last().closes(1006);
		expect(it.terminal.send('ls\r')).toBe(true);
		expect(it.terminal.waiting).toBe(3);
		expect(it.terminal.send('y'.repeat(MAX_TYPED_AHEAD))).toBe(false);
		it.pass(500);
		it.last().opens();
		expect(it.last().typed).toBe('ls\r');
		expect(it.terminal.waiting).toBe(0);
	});

	test('keeps what is typed when the master takes the connection but does not find the session', async () => {
		const it = lab({ kind: 'retry' });
		it.terminal.open();
		it.last().opens();
		it.last().closes(1006);
		it.terminal.send('ls\r');
		it.pass(500);
		const lost = it.last();
		lost.opens(null);
		lost.closes(4004, 'there is no such session');
		expect(lost.typed).toBe('');
		await Promise.resolve();
		await Promise.resolve();
		it.pass(1000);
		it.last().opens();
		expect(it.last().typed).toBe('ls\r');
	});

	test('loses no key that is typed while the connection is already closing', () => {
		const it = lab();
		it.terminal.open();
		it.last().opens();
		it.last().readyState = 2;
		expect(it.terminal.send('ls\r')).toBe(true);
		expect(it.last().typed).toBe('');
		it.last().closes(1006);
		it.pass(500);
		it.last().opens();
		expect(it.last().typed).toBe('ls\r');
	});

	test('loses no key that was sent into a line that was dead already, and sends none twice', () => {
		const it = lab();
		it.terminal.open();
		it.last().opens(0, 0);
		it.terminal.send('ls');
		it.last().says({ type: 'input', offset: 1 });
		it.terminal.send(' -l');
		expect(it.last().typed).toBe('ls -l');
		it.last().closes(1006);
		it.terminal.send('\r');
		it.pass(500);
		it.last().opens(0, 3);
		expect(it.last().typed).toBe('-l\r');
		it.last().closes(1006);
		it.pass(1000);
		it.last().opens(0, 6);
		expect(it.last().typed).toBe('');
	});

	test('what was sent to an agent that does not count it is not sent again', () => {
		const it = lab();
		it.terminal.open();
		it.last().opens();
		it.terminal.send('ls\r');
		it.last().closes(1006);
		it.pass(500);
		it.last().opens();
		expect(it.last().typed).toBe('');
	});

	test('an agent that has forgotten the keyboard is sent nothing twice', () => {
		const it = lab();
		it.terminal.open();
		it.last().opens(0, 0);
		it.terminal.send('rm x\r');
		it.last().says({ type: 'input', offset: 2 });
		it.last().closes(1006);
		it.terminal.send('y');
		it.pass(500);
		it.last().opens(0, 0);
		expect(it.last().typed).toBe('y');
	});

	test('is what a line is taken for on which nothing answers what is typed', () => {
		const it = lab();
		it.terminal.open();
		it.last().opens(0, 0);
		it.terminal.send('l');
		it.pass(SILENCE_MS - 1);
		it.last().brings('l');
		it.pass(SILENCE_MS);
		expect(it.sockets).toHaveLength(1);
		it.pass(SILENCE_MS);
		expect(it.sockets[0]?.closed).toBe(true);
		it.pass(500);
		it.last().opens(1, 0);
		expect(it.last().typed).toBe('l');
		it.last().says({ type: 'input', offset: 1 });
		it.pass(10 * SILENCE_MS);
		expect(it.sockets).toHaveLength(2);
	});

	test('is retried ever more slowly, and quickly again after a healthy while', () => {
		const it = lab();
		it.terminal.open();
		const waits: number[] = [];
		for (let i = 0; i < 8; i += 1) {
			it.last().opens();
			it.last().closes(1006);
			const state = it.states.at(-1);
			if (state?.kind !== 'waiting') throw new Error(`it is ${state?.kind}`);
			const before = it.sockets.length;
			let waited = 0;
			while (it.sockets.length === before) {
				it.pass(500);
				waited += 500;
			}
			waits.push(waited);
		}
		expect(waits).toEqual([500, 1000, 2000, 4000, 8000, 15000, 15000, 15000]);
		it.last().opens();
		it.pass(10_000);
		it.last().closes(1006);
		const count = it.sockets.length;
		it.pass(500);
		expect(it.sockets.length).toBe(count + 1);
	});

	test('the size is told again after it', () => {
		const it = lab();
		it.terminal.open();
		it.terminal.resize(120, 40);
		it.last().opens();
		it.last().closes(4003, 'the agent is offline');
		expect(it.states.at(-1)).toMatchObject({ kind: 'waiting', reason: 'the agent is offline' });
		it.terminal.retryNow();
		it.last().opens();
		expect(it.last().control).toEqual([{ type: 'resize', cols: 120, rows: 40 }]);
	});
});

describe('the end', () => {
	test('is shown with the program’s reason and is not retried', () => {
		const it = lab();
		it.terminal.open();
		it.last().opens();
		it.last().says({ type: 'exit', code: 0, reason: 'the shell ended' });
		it.last().closes(1000);
		expect(it.states.at(-1)).toEqual({ kind: 'ended', reason: 'the shell ended', code: 0 });
		it.pass(100_000);
		expect(it.sockets.length).toBe(1);
		expect(it.terminal.send('x')).toBe(false);
	});

	test('a refused attach asks why, and stops when the session is gone', async () => {
		const it = lab({ kind: 'ended', reason: 'the session is gone' });
		it.terminal.open();
		it.last().closes(1006);
		await Promise.resolve();
		await Promise.resolve();
		expect(it.states.at(-1)).toEqual({ kind: 'ended', reason: 'the session is gone', code: null });
	});

	test('a master that does not know the session is asked again while its agent is not there', async () => {
		const it = lab({ kind: 'retry', reason: 'the machine is offline' });
		it.terminal.open();
		it.last().opens();
		it.last().closes(4004, 'the session does not exist');
		await Promise.resolve();
		await Promise.resolve();
		expect(it.states.at(-1)).toMatchObject({ kind: 'waiting', reason: 'the machine is offline' });
		it.pass(500);
		expect(it.sockets.length).toBe(2);
	});

	test('a closed terminal connects no more', () => {
		const it = lab();
		it.terminal.open();
		it.last().opens();
		it.last().closes(1006);
		it.terminal.close();
		it.pass(100_000);
		expect(it.sockets.length).toBe(1);
	});
});
