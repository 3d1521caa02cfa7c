// One terminal session over a WebSocket that may break: no byte lost, none twice, in either direction (DESIGN.md section 7).
//
// Knows nothing of the page or of xterm.js: bytes go out through `output`, whose callback says when they have
// been shown; between two water marks the agent is asked to pause. Offsets count the session's output bytes;
// after a cut it attaches again from the first byte it has not handed out.
import { HEALTHY_AFTER, LOST, NOT_FOUND, cutWords, isFinal, pause } from '$lib/model/closing';
import { Typing } from './typing';

export type Connection =
	| { kind: 'connecting' }
	| { kind: 'open' }
	/** Cut; the next try is at `retryAt` (milliseconds as `Date.now()`). */
	| { kind: 'waiting'; retryAt: number; attempt: number; reason: string }
	/** Over; `resumable` is false, a new session has to be opened. */
	| { kind: 'ended'; reason: string; code: number | null };

export type Access = 'watch' | 'write';
/** That the session is recorded. */
export type RecordingMark = { input: boolean; required: boolean };
/** Somebody who has the session on a screen. */
export type Present = { user: string; access: Access };

/** What a failed attempt was due to, as far as the master says over HTTP. */
export type Verdict = { kind: 'retry'; reason?: string } | { kind: 'ended'; reason: string };

export type TerminalSocketOptions = {
	/** Where to attach; no offset means the oldest byte that the session still holds. */
	url: (from: number | null) => string;
	/**
	 * Shows bytes and calls back when they are shown. The first `replayed` of them were printed before this viewer came:
	 * what they ask of a terminal was answered then.
	 */
	output: (bytes: Uint8Array, shown: () => void, replayed: number) => void;
	/** Output was lost because the session's memory is limited: before this connection, or before the first. */
	gap?: (bytes: number) => void;
	/** What a terminal has to be told before the next byte, in place of the output that is gone. */
	state?: (text: string) => void;
	changed: (connection: Connection) => void;
	/** Who watches; `count` may be above those who are named. */
	crowd?: (present: Present[], count: number) => void;
	/** Whether the session is recorded, and why no longer: told anew for each connection. */
	recording?: (mark: RecordingMark | null, reason: string | null) => void;
	/** What this viewer may do: told anew for each connection, and each time something typed was dropped. */
	access?: (access: Access) => void;
	/** Asks why an attach was refused: a browser is not told the status of a refused upgrade. */
	probe?: () => Promise<Verdict>;
	/** Seams for tests. */
	connect?: (url: string) => WebSocketLike;
	now?: () => number;
	random?: () => number;
	after?: (ms: number, callback: () => void) => () => void;
};

/** What is used of a browser's WebSocket. */
export type WebSocketLike = {
	binaryType: string;
	readonly readyState: number;
	readonly bufferedAmount: number;
	onopen: ((event: never) => void) | null;
	onmessage: ((event: { data: unknown }) => void) | null;
	onclose: ((event: { code: number; reason: string }) => void) | null;
	onerror: ((event: never) => void) | null;
	send(data: string | Uint8Array<ArrayBuffer>): void;
	close(code?: number, reason?: string): void;
};

/** Bytes not yet shown at which the agent is asked to pause, and at which to go on. */
export const HIGH_WATER = 512 * 1024;
export const LOW_WATER = 64 * 1024;
/** Typed bytes kept while the connection is cut; more is refused rather than typed blindly later. */
export const MAX_TYPED_AHEAD = 4 * 1024;
/** How much input may wait in the browser before the rest of a paste does. */
const INPUT_BUFFERED = 256 * 1024;
/** An agent answers what is typed within a second: a line on which nothing comes for so long is dead. */
export const SILENCE_MS = 10_000;

/** How long a program is shown another size to make it draw anew. */
const REDRAW_MS = 200;

/** What a WebSocket calls its open state. */
const OPEN = 1;

/** Those of a frame's viewers that are what they should be. */
function present(value: unknown): Present[] {
	if (!Array.isArray(value)) return [];
	return value.flatMap((one: unknown) => {
		if (typeof one !== 'object' || one === null) return [];
		const { user, access } = one as Record<string, unknown>;
		return typeof user === 'string' && (access === 'watch' || access === 'write') ? [{ user, access }] : [];
	});
}

export class TerminalSocket {
	#options: TerminalSocketOptions;
	#socket: WebSocketLike | null = null;
	#connection: Connection = { kind: 'connecting' };
	/** Offset of the next byte that we have not handed out; `null` before the first attach. */
	#next: number | null = null;
	/** Offset of the next byte that this connection sends. */
	#arriving: number | null = null;
	/** Whether this connection has reached the session. */
	#attached = false;
	/** Up to here output is older than this viewer. */
	#replayEnd = 0;
	#unshown = 0;
	#paused = false;
	#attempt = 0;
	#openedAt = 0;
	#ending: { reason: string; code: number | null } | null = null;
	#size: { cols: number; rows: number } | null = null;
	#typing = new Typing();
	#heardAt = 0;
	#cancelWatch: (() => void) | null = null;
	#cancelTimer: (() => void) | null = null;
	#cancelDrain: (() => void) | null = null;
	#cancelRedraw: (() => void) | null = null;
	#closed = false;

	constructor(options: TerminalSocketOptions) {
		this.#options = options;
	}

	get connection(): Connection {
		return this.#connection;
	}

	/** Offset up to which output was handed out. */
	get offset(): number | null {
		return this.#next;
	}

	/** Typed bytes that wait for the connection. */
	get waiting(): number {
		return this.#connection.kind === 'open' ? 0 : this.#typing.unsent;
	}

	/** Connects; a second call while a connection is up or on its way does nothing. */
	open(): void {
		if (this.#socket || this.#closed) return;
		this.#cancelTimer?.();
		this.#cancelTimer = null;
		this.#set({ kind: 'connecting' });
		const connect = this.#options.connect ?? ((url: string) => new WebSocket(url) as WebSocketLike);
		const socket = connect(this.#options.url(this.#next));
		socket.binaryType = 'arraybuffer';
		this.#socket = socket;
		this.#arriving = this.#next;
		this.#attached = false;
		// Not open before the session has answered with its offset: a master that takes the connection and then
		// does not find the session would swallow what was typed.
		socket.onopen = null;
		socket.onmessage = (event) => {
			if (this.#socket === socket) this.#receive(event.data);
		};
		socket.onclose = (event) => {
			if (this.#socket === socket) this.#over(event);
		};
		// An error is always followed by a close, which says as much as a page is told.
		socket.onerror = null;
	}

	/** Tries again now, when it is waiting to. */
	retryNow(): void {
		if (this.#connection.kind === 'waiting') this.open();
	}

	/** Sends typed or pasted text; `false` when the connection is cut and enough waits already. */
	send(text: string): boolean {
		if (this.#closed || this.#connection.kind === 'ended') return false;
		const bytes = new TextEncoder().encode(text);
		if (this.#connection.kind !== 'open' && this.waiting + bytes.length > MAX_TYPED_AHEAD) return false;
		this.#typing.push(bytes);
		if (this.#connection.kind === 'open') this.#drain();
		else this.#options.changed(this.#connection);
		return true;
	}

	/** Tells the size of the window, now and after each reconnect. */
	resize(cols: number, rows: number): void {
		if (this.#size?.cols === cols && this.#size.rows === rows) return;
		this.#size = { cols, rows };
		if (this.#connection.kind === 'open') this.#control({ type: 'resize', cols, rows });
	}

	/** Makes a full-screen program draw everything anew: it does when its window changes. */
	redraw(): void {
		const size = this.#size;
		if (!size || size.rows < 2 || this.#connection.kind !== 'open') return;
		this.#control({ type: 'resize', cols: size.cols, rows: size.rows - 1 });
		this.#cancelRedraw?.();
		// Two sizes at once would be none: the program has to see the first.
		this.#cancelRedraw = this.#after(REDRAW_MS, () => {
			if (this.#connection.kind === 'open' && this.#size) this.#control({ type: 'resize', ...this.#size });
		});
	}

	/** Leaves the session; it lives on at the agent until its time is up. */
	close(): void {
		this.#closed = true;
		this.#cancelTimer?.();
		this.#cancelDrain?.();
		this.#cancelWatch?.();
		this.#cancelRedraw?.();
		const socket = this.#socket;
		this.#socket = null;
		socket?.close(1000, 'left');
	}

	#receive(data: unknown): void {
		this.#heardAt = this.#now();
		if (typeof data === 'string') {
			this.#frame(data);
			return;
		}
		if (!(data instanceof ArrayBuffer)) return;
		let bytes = new Uint8Array(data);
		const from = this.#arriving ?? 0;
		this.#arriving = from + bytes.length;
		// What an earlier connection brought already is not shown again.
		if (this.#next !== null && from < this.#next) bytes = bytes.subarray(this.#next - from);
		if (bytes.length === 0) return;
		this.#next = this.#arriving;
		this.#unshown += bytes.length;
		this.#flowControl();
		const shown = bytes.length;
		const replayed = Math.max(0, Math.min(shown, this.#replayEnd - (this.#next - shown)));
		this.#options.output(
			bytes,
			() => {
				this.#unshown -= shown;
				this.#flowControl();
			},
			replayed
		);
	}

	#frame(text: string): void {
		let frame: unknown;
		try {
			frame = JSON.parse(text);
		} catch {
			return;
		}
		if (typeof frame !== 'object' || frame === null) return;
		const fields = frame as Record<string, unknown>;
		switch (fields.type) {
			case 'offset':
				if (typeof fields.offset !== 'number') return;
				if (fields.offset > (this.#next ?? 0)) this.#options.gap?.(fields.offset - (this.#next ?? 0));
				this.#arriving = fields.offset;
				if (this.#next === null || fields.offset > this.#next) this.#next = fields.offset;
				this.#attach(typeof fields.input === 'number' ? fields.input : null);
				return;
			case 'input':
				if (typeof fields.offset === 'number') this.#typing.arrived(fields.offset);
				return;
			case 'replay':
				if (typeof fields.end === 'number') this.#replayEnd = fields.end;
				return;
			case 'state':
				if (typeof fields.text === 'string') this.#options.state?.(fields.text);
				return;
			case 'exit':
				this.#ending = {
					reason: typeof fields.reason === 'string' ? fields.reason : 'the program ended',
					code: typeof fields.code === 'number' ? fields.code : null
				};
				return;
			case 'error':
				this.#ending = {
					reason: typeof fields.message === 'string' ? fields.message : 'the session failed',
					code: null
				};
				return;
			case 'viewers':
				if (typeof fields.viewers === 'number') this.#options.crowd?.(present(fields.present), fields.viewers);
				return;
			case 'recording': {
				const mark = fields.recording as Record<string, unknown> | null | undefined;
				this.#options.recording?.(mark ? { input: mark.input === true, required: mark.required === true } : null, typeof fields.reason === 'string' ? fields.reason : null);
				return;
			}
			case 'access':
				if (fields.access === 'watch' || fields.access === 'write') this.#options.access?.(fields.access);
		}
	}

	/** The session is reached, and has taken so much of what was typed; `null` where it does not count that. */
	#attach(taken: number | null): void {
		if (this.#attached) return;
		this.#attached = true;
		this.#typing.attached(taken);
		this.#openedAt = this.#now();
		this.#paused = false;
		// Those who may only watch are told so after this.
		this.#options.access?.('write');
		this.#options.recording?.(null, null);
		this.#set({ kind: 'open' });
		if (this.#size) this.#control({ type: 'resize', ...this.#size });
		this.#flowControl();
		this.#drain();
	}

	#over(event: { code: number; reason: string }): void {
		const opened = this.#attached;
		this.#socket = null;
		this.#cancelDrain?.();
		this.#cancelWatch?.();
		this.#cancelWatch = null;
		if (this.#closed) return;
		if (opened && this.#now() - this.#openedAt >= HEALTHY_AFTER) this.#attempt = 0;
		const ending = this.#ending;
		this.#ending = null;
		if (isFinal(event.code)) {
			this.#end(ending?.reason || event.reason || 'the session ended', ending?.code ?? null);
			return;
		}
		const reason = event.reason || ending?.reason || cutWords(event.code);
		// A master that has just started does not know of the agents' sessions yet: its no may not be the last word.
		const unsure = !opened || event.code === NOT_FOUND;
		if (!unsure || !this.#options.probe) {
			if (event.code === NOT_FOUND) this.#end(reason, null);
			else this.#wait(reason);
			return;
		}
		this.#options.probe().then(
			(verdict) => {
				if (this.#closed || this.#socket) return;
				if (verdict.kind === 'ended') this.#end(verdict.reason, null);
				else this.#wait(verdict.reason ?? reason);
			},
			() => {
				if (!this.#closed && !this.#socket) this.#wait(reason);
			}
		);
	}

	#end(reason: string, code: number | null): void {
		this.#typing.clear();
		this.#set({ kind: 'ended', reason, code });
	}

	#wait(reason: string): void {
		const delay = pause(this.#attempt, (this.#options.random ?? Math.random)());
		this.#attempt += 1;
		this.#set({ kind: 'waiting', retryAt: this.#now() + delay, attempt: this.#attempt, reason });
		this.#cancelTimer = this.#after(delay, () => {
			this.#cancelTimer = null;
			this.open();
		});
	}

	#flowControl(): void {
		if (this.#connection.kind !== 'open') return;
		if (!this.#paused && this.#unshown >= HIGH_WATER) {
			this.#paused = true;
			this.#control({ type: 'pause' });
		} else if (this.#paused && this.#unshown <= LOW_WATER) {
			this.#paused = false;
			this.#control({ type: 'resume' });
		}
	}

	#drain(): void {
		this.#cancelDrain?.();
		this.#cancelDrain = null;
		// A socket that has begun to close takes nothing more: what is typed then waits for the next one.
		while (this.#attached && this.#socket?.readyState === OPEN) {
			if (this.#socket.bufferedAmount >= INPUT_BUFFERED) {
				// A browser does not say when its buffer empties.
				this.#cancelDrain = this.#after(20, () => this.#drain());
				return;
			}
			const piece = this.#typing.next();
			if (!piece) return;
			this.#socket.send(piece);
			this.#watch();
		}
	}

	/** Gives a line up on which nothing comes although something was typed: a browser would wait for minutes. */
	#watch(): void {
		if (this.#cancelWatch || !this.#typing.isOpen) return;
		const since = this.#now();
		this.#cancelWatch = this.#after(SILENCE_MS, () => {
			this.#cancelWatch = null;
			const socket = this.#socket;
			if (!socket) return;
			// A machine that slept hears of the time first, and of what came in it then.
			const late = this.#now() > since + 2 * SILENCE_MS;
			if (late || this.#heardAt >= since) this.#watch();
			else {
				this.#over({ code: LOST, reason: 'nothing answers' });
				socket.close();
			}
		});
	}

	#control(frame: object): void {
		if (this.#socket?.readyState === OPEN) this.#socket.send(JSON.stringify(frame));
	}

	#set(connection: Connection): void {
		this.#connection = connection;
		this.#options.changed(connection);
	}

	#now(): number {
		return (this.#options.now ?? Date.now)();
	}

	#after(ms: number, callback: () => void): () => void {
		if (this.#options.after) return this.#options.after(ms, callback);
		const timer = setTimeout(callback, ms);
		return () => clearTimeout(timer);
	}
}
