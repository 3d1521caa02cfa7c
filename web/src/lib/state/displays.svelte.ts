// The display of one VM in a tab of the dock: its way there, and noVNC, which draws it. It outlives pages of the SPA.
import { api, socketUrl, unwrap } from '$lib/api/client';
import { problemOf } from '$lib/api/problem';
import { DisplayConnection } from '$lib/display/connection';
import { MAX_TYPED, PRESS_EVERY, SHIFT, presses } from '$lib/display/keys';
import type { Connection, Verdict } from '$lib/terminal/socket';
import type RFB from '@novnc/novnc';
import { freshKey } from './ask';

type Viewer = { rfb: RFB; stop: () => void };

/** One display. */
export class DisplayTab {
	readonly key = freshKey();
	readonly agent: string;
	readonly vm: string;
	readonly kind = 'display' as const;
	status = $state.raw<Connection | { kind: 'opening' } | { kind: 'refused'; reason: string }>({ kind: 'opening' });
	/** Keys and pointer stay here. */
	viewOnly = $state(false);
	/** Whether the picture is scaled to its place; else it has its own size. */
	fit = $state(true);
	/** Text that is being typed, in presses. */
	typing = $state.raw<{ done: number; all: number } | null>(null);
	/** Where it is drawn; the pane puts it into its place. */
	readonly screen = document.createElement('div');
	#connection: DisplayConnection | null = null;
	#viewer: Viewer | null = null;
	#closed = false;
	/** The keyboard is to be its, as soon as there is something to take it. */
	#wantsFocus = false;

	constructor(agent: string, vm: string) {
		this.agent = agent;
		this.vm = vm;
		this.screen.className = 'display-host';
	}

	get title(): string {
		return `${this.vm} display`;
	}

	/** Fetches noVNC and connects. */
	async start(): Promise<void> {
		this.status = { kind: 'opening' };
		try {
			const { default: Rfb } = await import('@novnc/novnc');
			if (this.#closed) return;
			const path = `/api/v1/agents/${encodeURIComponent(this.agent)}/vms/${encodeURIComponent(this.vm)}/display`;
			this.#connection = new DisplayConnection({
				url: socketUrl(path),
				begin: (socket, first) => this.#begin(Rfb, socket, first),
				changed: (connection) => this.#changed(connection),
				probe: () => this.#probe()
			});
			this.#connection.open();
		} catch (thrown) {
			// The page's own file could not be fetched.
			this.status = { kind: 'refused', reason: problemOf(thrown).detail };
		}
	}

	/** Connects anew after it has ended. */
	async reopen(): Promise<void> {
		this.#connection?.close();
		await this.start();
	}

	retryNow(): void {
		this.#connection?.retryNow();
	}

	focus(): void {
		this.#wantsFocus = this.#viewer === null;
		this.#viewer?.rfb.focus();
	}

	/** Lets go of the display; the VM does not notice. */
	leave(): void {
		this.#closed = true;
		this.#drop();
		this.#connection?.close();
	}

	setViewOnly(on: boolean): void {
		this.viewOnly = on;
		if (on) this.typing = null;
		if (this.#viewer) this.#viewer.rfb.viewOnly = on;
	}

	setFit(on: boolean): void {
		this.fit = on;
		if (this.#viewer) this.#viewer.rfb.scaleViewport = on;
	}

	pressCtrlAltDel(): void {
		this.#viewer?.rfb.sendCtrlAltDel();
		this.focus();
	}

	/** Types a text as keys of a US keyboard, until all is typed or [`stopTyping`] is called. */
	async type(text: string): Promise<void> {
		const all = presses(text.slice(0, MAX_TYPED)).presses;
		const mine = { done: 0, all: all.length };
		this.typing = mine;
		let last = mine;
		for (const { keysym, code, shift } of all) {
			const rfb = this.#viewer?.rfb;
			// Stopped, or the picture is gone: the rest would go to who knows what.
			if (!rfb || this.typing !== last) break;
			if (shift) rfb.sendKey(SHIFT.keysym, SHIFT.code, true);
			rfb.sendKey(keysym, code);
			if (shift) rfb.sendKey(SHIFT.keysym, SHIFT.code, false);
			last = { done: last.done + 1, all: all.length };
			this.typing = last;
			await new Promise((resolve) => setTimeout(resolve, PRESS_EVERY));
		}
		if (this.typing === last) this.typing = null;
	}

	stopTyping(): void {
		this.typing = null;
	}

	#begin(Rfb: typeof RFB, socket: WebSocket, first: MessageEvent): void {
		this.#drop();
		const rfb = new Rfb(this.screen, socket);
		rfb.background = 'transparent';
		rfb.scaleViewport = this.fit;
		rfb.viewOnly = this.viewOnly;
		const refuse = () => {
			this.#connection?.close();
			this.#drop();
			this.status = { kind: 'refused', reason: 'the display asks for a password, which those of Batwa never do' };
		};
		rfb.addEventListener('credentialsrequired', refuse);
		rfb.addEventListener('securityfailure', refuse);
		this.#viewer = { rfb, stop: () => rfb.disconnect() };
		// It listens from now on, and this came before.
		socket.onmessage?.(first);
		if (this.#wantsFocus) this.focus();
	}

	#changed(connection: Connection): void {
		if (connection.kind !== 'open' && connection.kind !== 'connecting') this.#drop();
		this.status = connection;
	}

	#drop(): void {
		this.typing = null;
		const viewer = this.#viewer;
		this.#viewer = null;
		viewer?.stop();
		// What it leaves behind, whatever state it was in.
		this.screen.replaceChildren();
	}

	async #probe(): Promise<Verdict> {
		const { agent, vm } = this;
		try {
			await unwrap(api.GET('/ready'));
			const machine = await unwrap(api.GET('/api/v1/agents/{agent}', { params: { path: { agent } } }));
			if (machine.status !== 'online') return { kind: 'retry', reason: `the machine is ${machine.status}` };
			const known = await unwrap(api.GET('/api/v1/agents/{agent}/vms/{vm}', { params: { path: { agent, vm } } }));
			const reason = known.actions?.display;
			return reason ? { kind: 'ended', reason } : { kind: 'retry' };
		} catch (thrown) {
			const problem = problemOf(thrown);
			if (problem.status === 401) return { kind: 'ended', reason: 'you are signed out' };
			if (problem.status === 403 || problem.status === 404) return { kind: 'ended', reason: problem.detail };
			return { kind: 'retry', reason: problem.detail };
		}
	}
}
