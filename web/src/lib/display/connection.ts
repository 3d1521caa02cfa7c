// The way to a VM's display over WebSockets that may break: each whole from its handshake on, so that nothing has to be
// remembered between two of them.
//
// Knows nothing of the page or of noVNC: a socket is handed over with the first message of its other end, for only then is
// there a display.
import { HEALTHY_AFTER, NOT_FOUND, cutWords, isFinal, pause } from '$lib/model/closing';
import type { Connection, Verdict } from '$lib/terminal/socket';

export type DisplayConnectionOptions = {
	url: string;
	/** Takes over a socket, whose first message has to be read before all others. */
	begin: (socket: WebSocket, first: MessageEvent) => void;
	changed: (connection: Connection) => void;
	/** Asks why a handshake was refused: a browser is not told its status. */
	probe: () => Promise<Verdict>;
	/** Seams for tests. */
	connect?: (url: string) => WebSocket;
	now?: () => number;
	random?: () => number;
	after?: (ms: number, callback: () => void) => () => void;
};

export class DisplayConnection {
	#options: DisplayConnectionOptions;
	#socket: WebSocket | null = null;
	#attempt = 0;
	#waiting = false;
	#closed = false;
	#cancelTimer: (() => void) | null = null;

	constructor(options: DisplayConnectionOptions) {
		this.#options = options;
	}

	/** Connects, unless that is done or on its way. */
	open(): void {
		if (this.#socket || this.#closed) return;
		this.#cancelTimer?.();
		this.#cancelTimer = null;
		this.#waiting = false;
		this.#options.changed({ kind: 'connecting' });
		const connect = this.#options.connect ?? ((url: string) => new WebSocket(url));
		const socket = connect(this.#options.url);
		socket.binaryType = 'arraybuffer';
		this.#socket = socket;
		let openedAt: number | null = null;
		const first = (event: MessageEvent) => {
			if (this.#socket !== socket) return;
			openedAt = this.#now();
			socket.removeEventListener('message', first);
			this.#options.changed({ kind: 'open' });
			this.#options.begin(socket, event);
		};
		socket.addEventListener('message', first);
		// Beside the handlers of whoever takes the socket over.
		socket.addEventListener('close', (event) => {
			if (this.#socket !== socket) return;
			this.#socket = null;
			if (openedAt !== null && this.#now() - openedAt >= HEALTHY_AFTER) this.#attempt = 0;
			void this.#over(event, openedAt !== null);
		});
	}

	/** Tries again now, when it is waiting to. */
	retryNow(): void {
		if (this.#waiting) this.open();
	}

	/** Leaves for good. */
	close(): void {
		this.#closed = true;
		this.#cancelTimer?.();
		const socket = this.#socket;
		this.#socket = null;
		socket?.close(1000, 'left');
	}

	async #over({ code, reason }: { code: number; reason: string }, opened: boolean): Promise<void> {
		if (this.#closed) return;
		if (isFinal(code)) {
			this.#end(reason || 'the display was closed');
			return;
		}
		if (opened && code !== NOT_FOUND) {
			this.#wait(reason || cutWords(code));
			return;
		}
		const verdict = await this.#options.probe().catch((): Verdict => ({ kind: 'retry' }));
		if (this.#closed || this.#socket) return;
		if (verdict.kind === 'ended') this.#end(verdict.reason);
		else this.#wait(verdict.reason ?? (reason || cutWords(code)));
	}

	#end(reason: string): void {
		this.#options.changed({ kind: 'ended', reason, code: null });
	}

	#wait(reason: string): void {
		const delay = pause(this.#attempt, (this.#options.random ?? Math.random)());
		this.#attempt += 1;
		this.#waiting = true;
		this.#options.changed({ kind: 'waiting', retryAt: this.#now() + delay, attempt: this.#attempt, reason });
		const after = this.#options.after ?? ((ms: number, callback: () => void) => {
			const timer = setTimeout(callback, ms);
			return () => clearTimeout(timer);
		});
		this.#cancelTimer = after(delay, () => this.open());
	}

	#now(): number {
		return (this.#options.now ?? Date.now)();
	}
}
