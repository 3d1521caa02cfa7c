// The master's event stream: one for the page, kept alive for ever, with the honest state of it.
import type { Event } from '$lib/api/types';

type Listener = (event: Event) => void;
export type Live = 'connecting' | 'live' | 'cut';

const TYPES: Event['type'][] = [
	'agent',
	'agent_removed',
	'vm',
	'vm_removed',
	'agent_vms',
	'operation',
	'terminal',
	'terminal_removed',
	'reload'
];
const RETRY_FIRST = 1000;
const RETRY_MAX = 15_000;

class Events {
	state = $state<Live>('connecting');
	/** When the stream was cut; `null` while it is not. */
	since = $state<number | null>(null);
	/** When it is tried again; `null` while it is being tried, or need not be. */
	retryAt = $state<number | null>(null);

	#listeners = new Set<Listener>();
	#source: EventSource | null = null;
	/** The source that has been live: what it opens again, it resumes. */
	#opened: EventSource | null = null;
	#retry: ReturnType<typeof setTimeout> | null = null;
	#attempt = 0;
	#errors = 0;
	#lastId = '';
	#wasLive = false;

	/** Calls back with every event; returns how to stop that. */
	subscribe(listener: Listener): () => void {
		this.#listeners.add(listener);
		return () => this.#listeners.delete(listener);
	}

	open(): void {
		if (this.#source) return;
		if (this.#retry) clearTimeout(this.#retry);
		this.#retry = null;
		this.retryAt = null;
		const source = new EventSource('/api/v1/events');
		this.#source = source;
		source.onopen = () => {
			// The browser resumes by itself after a short cut. What we opened anew, the first time too, begins now: lists
			// that were asked for before that may have missed something.
			const resumed = this.#opened === source;
			this.#opened = source;
			this.#attempt = 0;
			this.#errors = 0;
			this.#wasLive = true;
			this.state = 'live';
			this.since = null;
			if (!resumed) this.tell({ type: 'reload' });
		};
		source.onerror = () => {
			this.state = this.#wasLive ? 'cut' : 'connecting';
			this.since ??= Date.now();
			this.#errors += 1;
			// The browser tries once by itself, and then resumes where it was. What fails again, and what it does not try
			// again at all, we try with growing pauses, and say so.
			if (source.readyState !== EventSource.CLOSED && this.#errors < 2) return;
			source.close();
			this.#source = null;
			this.#attempt += 1;
			const ceiling = Math.min(RETRY_MAX, RETRY_FIRST * 2 ** (this.#attempt - 1));
			const wait = ceiling * (0.5 + Math.random() / 2);
			this.retryAt = Date.now() + wait;
			this.#retry = setTimeout(() => this.open(), wait);
		};
		for (const type of TYPES) source.addEventListener(type, (message) => this.#receive(message));
	}

	/** Tries at once rather than when its time has come. */
	retryNow(): void {
		if (this.state === 'live') return;
		this.#source?.close();
		this.#source = null;
		this.#attempt += 1;
		this.open();
	}

	close(): void {
		if (this.#retry) clearTimeout(this.#retry);
		this.#retry = null;
		this.retryAt = null;
		this.#source?.close();
		this.#source = null;
		this.#opened = null;
		this.#wasLive = false;
		this.#attempt = 0;
		this.state = 'connecting';
		this.since = null;
	}

	#receive(message: MessageEvent<string>): void {
		if (message.lastEventId && message.lastEventId === this.#lastId) return;
		this.#lastId = message.lastEventId;
		try {
			this.tell(JSON.parse(message.data) as Event);
		} catch {
			// A line that is no event cannot be placed: what it told is in the lists.
			this.tell({ type: 'reload' });
		}
	}

	/** Passes an event on, whoever it comes from. */
	tell(event: Event): void {
		for (const listener of this.#listeners) listener(event);
	}
}

export const events = new Events();
