// The terminals of the dock: each a session at an agent, its socket and its picture. They outlive pages of
// the SPA, and a reload finds the same sessions again.
import { api, socketUrl, unwrap } from '$lib/api/client';
import { problemOf, ProblemError } from '$lib/api/problem';
import type { Terminal, TerminalKind } from '$lib/api/types';
import { MAX_TYPED_AHEAD, TerminalSocket, type Access, type Connection, type Present, type RecordingMark, type Verdict } from '$lib/terminal/socket';
import { owns, sessionTitle } from '$lib/model/terminal';
import { keyBytes, withControl, type TouchKey } from '$lib/terminal/keys';
import { TerminalView, type Look } from '$lib/terminal/xterm';
import { freshKey } from './ask';
import { DisplayTab } from './displays.svelte';
import { events } from './events.svelte';
import { FileDrop } from './file-drops.svelte';
import { settings } from './settings.svelte';
import { session as signedIn } from './session.svelte';
import { sessions } from './sessions.svelte';
import { toasts } from './toasts.svelte';

/** Said once: a program that asks, asks often. */
let told = false;

const KEY = 'batwa.terminals';
/** `beside` is on the two that are shown side by side; displays have no id, for there is nothing to find again. */
type Kept = { id?: string; agent: string; vm: string; kind: TerminalKind | 'display'; beside?: boolean };

export type Status = Connection | { kind: 'opening' } | { kind: 'refused'; reason: string };

/** One terminal. */
export class TerminalTab {
	readonly key = freshKey();
	readonly agent: string;
	readonly vm: string;
	readonly kind: TerminalKind;
	id = $state<string | null>(null);
	status = $state.raw<Status>({ kind: 'opening' });
	/** Typed bytes that wait for the connection. */
	waiting = $state(0);
	viewers = $state(1);
	/** Who watches, as far as they are named; empty when nobody else does. */
	present = $state.raw<Present[]>([]);
	/** What may be done here: in a terminal that somebody else shares, perhaps only watching. */
	access = $state<Access>('write');
	/** That it is recorded, as its agent says. */
	recording = $state.raw<RecordingMark | null>(null);
	view = $state.raw<TerminalView | null>(null);
	searching = $state(false);
	found = $state<{ index: number; count: number } | null>(null);
	/** A paste that waits for a word, because each of its lines would run at once. */
	pasting = $state.raw<{ text: string; lines: number } | null>(null);
	/** Files that were dropped here. */
	drops = $state.raw<FileDrop[]>([]);
	/** Ctrl is held for the next key, on a phone. */
	control = $state(false);
	/** Output came while nobody looked. */
	unseen = $state(false);
	resumable = true;
	#socket: TerminalSocket | null = null;
	#early = '';
	#closed = false;

	constructor(agent: string, vm: string, kind: TerminalKind, id: string | null) {
		this.agent = agent;
		this.vm = vm;
		this.kind = kind;
		this.id = id;
	}

	get title(): string {
		return sessionTitle({ name: this.session?.name, vm: this.vm, kind: this.kind });
	}

	/** What the master tells of the session. */
	get session(): Terminal | undefined {
		return sessions.get(this.id);
	}

	/** Whether this is somebody else's, which closing the tab leaves alone. */
	get foreign(): boolean {
		const session = this.session;
		return session !== undefined && !owns(session, signedIn.user);
	}

	/** Makes the picture, opens the session unless there is one, and attaches. */
	async start(): Promise<void> {
		this.status = { kind: 'opening' };
		try {
			this.view ??= await TerminalView.make({
				label: `Terminal of ${this.vm} on ${this.agent}`,
				look: look(),
				pasting: (text, lines) => {
					this.pasting = { text, lines };
				},
				copied: (text) => this.#copied(text),
				typed: (text) => this.#typed(text),
				resized: (cols, rows) => this.#socket?.resize(cols, rows),
				key: (event) => this.#key(event),
				found: (index, count) => {
					this.found = { index, count };
				}
			});
			const isOurs = !this.id;
			if (!this.id) {
				const { cols, rows } = this.view.size;
				const session = await unwrap(
					api.POST('/api/v1/terminals', { body: { agent_id: this.agent, vm: this.vm, kind: this.kind, cols, rows } })
				);
				if (this.#closed) {
					// Closed while it was being opened: nobody would ever see it.
					await end(session.id);
					return;
				}
				this.id = session.id;
				this.resumable = session.resumable;
			}
			terminals.keep();
			this.#attach(this.id, isOurs);
		} catch (thrown) {
			this.status = { kind: 'refused', reason: problemOf(thrown).detail };
		}
	}

	/** Opens a new session in the same place, after the old one ended. */
	async reopen(): Promise<void> {
		this.#socket?.close();
		this.#socket = null;
		this.id = null;
		this.view?.note('new session');
		await this.start();
		this.view?.focus();
	}

	retryNow(): void {
		this.#socket?.retryNow();
	}

	focus(): void {
		this.view?.focus();
	}

	/** Closes the tab and ends the session. */
	async close(): Promise<void> {
		this.leave();
		if (this.id && this.status.kind !== 'ended' && !this.foreign) await end(this.id);
	}

	/** Lets go of the session without ending it. */
	leave(): void {
		this.#closed = true;
		this.#socket?.close();
		this.view?.dispose();
	}

	/** `isNew` when nobody but us has seen any of its output. */
	#attach(id: string, isNew: boolean): void {
		const view = this.view;
		if (!view) return;
		const keyboard = freshKey();
		this.#socket = new TerminalSocket({
			url: (from) => socketUrl(`/api/v1/terminals/${encodeURIComponent(id)}/attach?keyboard=${keyboard}${from === null ? '' : `&from=${from}`}`),
			output: (bytes, shown, replayed) => {
				if (document.hidden || !terminals.shown.includes(this)) this.unseen = true;
				view.write(bytes, shown, isNew ? 0 : replayed);
			},
			gap: (bytes) => view.note(`${bytes} bytes of output are no longer held`),
			state: (text) => {
				view.tell(text);
				// What is held may be changes to a picture that is not.
				view.whenFullScreen(() => this.#socket?.redraw());
			},
			changed: (connection) => {
				this.status = connection;
				this.waiting = this.#socket?.waiting ?? 0;
			},
			crowd: (present, count) => {
				this.present = present;
				this.viewers = count;
			},
			access: (access) => {
				this.access = access;
			},
			recording: (mark, reason) => {
				const ended = this.recording !== null && mark === null && reason !== null;
				this.recording = mark;
				if (ended) toasts.show({ tone: 'info', title: `${this.title} is no longer recorded`, detail: reason ?? undefined });
			},
			probe: () => this.#probe(id)
		});
		this.#socket.resize(view.size.cols, view.size.rows);
		this.#socket.open();
		if (this.#early) this.#socket.send(this.#early);
		this.#early = '';
	}

	async #probe(id: string): Promise<Verdict> {
		try {
			// In this order: a master that is not ready knows of no agents, and an agent is online only once its
			// sessions are listed.
			await unwrap(api.GET('/ready'));
			const agent = await unwrap(api.GET('/api/v1/agents/{agent}', { params: { path: { agent: this.agent } } }));
			const { items } = await unwrap(api.GET('/api/v1/terminals'));
			if (items.some((terminal: Terminal) => terminal.id === id)) return { kind: 'retry' };
			if (agent.status !== 'online') return { kind: 'retry', reason: `the machine is ${agent.status}` };
			return { kind: 'ended', reason: 'the session is gone' };
		} catch (thrown) {
			const problem = thrown instanceof ProblemError ? thrown.problem : problemOf(thrown);
			if (problem.status === 401) return { kind: 'ended', reason: 'you are signed out' };
			if (problem.status === 403) return { kind: 'ended', reason: problem.detail };
			if (problem.status === 404) return { kind: 'ended', reason: 'the machine is no longer known here' };
			return { kind: 'retry', reason: problem.detail };
		}
	}

	/** Pastes what waited, or forgets it. */
	paste(text: string | null): void {
		this.pasting = null;
		if (text !== null) this.view?.paste(text);
		this.view?.focus();
	}

	/** Gives the whole text, what has scrolled away included, to the browser as a file. */
	save(): void {
		const { view } = this;
		if (!view) return;
		const link = document.createElement('a');
		link.href = URL.createObjectURL(new Blob([view.text], { type: 'text/plain' }));
		link.download = `${this.title.replace(/[^\p{L}\p{N}._-]+/gu, '-')}.txt`;
		link.click();
		// The browser takes it up after this.
		setTimeout(() => URL.revokeObjectURL(link.href), 1000);
	}

	/** Uploads files into the home folder of the VM's account. */
	drop(files: Iterable<File>): void {
		const over = (drop: FileDrop) => {
			this.drops = this.drops.filter((other) => other !== drop);
		};
		for (const file of files) this.drops = [...this.drops, new FileDrop(this.agent, this.vm, file, over)];
	}

	/** Presses a key that a phone does not have. */
	press(key: TouchKey): void {
		this.#typed(keyBytes(key, this.view?.applicationKeys ?? false));
		this.view?.focus();
	}

	#copied(text: string): void {
		if (!settings.terminal.clipboard) {
			if (!told) toasts.show({ tone: 'info', title: `A program on ${this.vm} wanted to put text into your clipboard`, detail: 'Whether programs may is in the settings of terminals.' });
			told = true;
			return;
		}
		navigator.clipboard?.writeText(text).catch(() => undefined);
	}

	#typed(typed: string): void {
		if (this.access === 'watch') return;
		const text = this.control ? withControl(typed) : typed;
		this.control = false;
		// Whoever types while the session is still being opened means it.
		if (!this.#socket) {
			if (this.#early.length + text.length <= MAX_TYPED_AHEAD) this.#early += text;
			return;
		}
		this.#socket.send(text);
		this.waiting = this.#socket?.waiting ?? 0;
	}

	#key(event: KeyboardEvent): boolean {
		const control = event.ctrlKey && event.shiftKey;
		if ((control && event.code === 'KeyF') || (event.metaKey && event.code === 'KeyF')) {
			this.searching = true;
			return true;
		}
		if (control && event.code === 'KeyC') {
			if (this.view?.selection) void navigator.clipboard?.writeText(this.view.selection);
			return true;
		}
		if (event.ctrlKey && event.code === 'Backquote') {
			terminals.open = false;
			return true;
		}
		return false;
	}
}

/** Ends a session; one that has ended already is as good. */
async function end(terminal: string): Promise<void> {
	await unwrap(api.DELETE('/api/v1/terminals/{terminal}', { params: { path: { terminal } } })).catch(() => undefined);
}

/** What a tab of the dock shows. */
export type Tab = TerminalTab | DisplayTab;

class Terminals {
	tabs = $state.raw<Tab[]>([]);
	active = $state.raw<Tab | null>(null);
	open = $state(false);
	maximised = $state(false);
	/** Two that are shown side by side whenever one of them is chosen. */
	pair = $state.raw<readonly [Tab, Tab] | null>(null);
	/** What is on the screen: one, or two from left to right. */
	shown = $derived.by((): readonly Tab[] => {
		const active = this.active;
		if (!this.open || !active) return [];
		return this.pair?.includes(active) ? this.pair : [active];
	});

	constructor() {
		events.subscribe((event) => {
			// The master is back: no need to wait for the next try.
			if (event.type === 'reload') for (const tab of this.tabs) tab.retryNow();
		});
		if (typeof window === 'undefined') return;
		window.addEventListener('online', () => {
			for (const tab of this.tabs) tab.retryNow();
		});
		matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.recolour());
	}

	/** Opens a terminal in a VM, or shows the one that is open already. */
	show(agent: string, vm: string, kind: TerminalKind = 'shell'): void {
		if (!this.#find(agent, vm, kind)) this.another(agent, vm, kind);
	}

	/** Opens the display of a VM, or shows the one that is open already. */
	showDisplay(agent: string, vm: string): void {
		if (this.#find(agent, vm, 'display')) return;
		const tab = new DisplayTab(agent, vm);
		this.tabs = [...this.tabs, tab];
		this.select(tab);
		this.keep();
		void tab.start();
	}

	/** Shows a tab that is there already, and opens it anew where it had ended; whether there is one. */
	#find(agent: string, vm: string, kind: Tab['kind']): boolean {
		const known = this.tabs.find((tab) => tab.agent === agent && tab.vm === vm && tab.kind === kind);
		if (!known) return false;
		this.select(known);
		if (known.status.kind === 'ended' || known.status.kind === 'refused') void known.reopen();
		return true;
	}

	/** Shows a session that is open already, in another browser perhaps, or somebody else's. */
	join(session: Terminal): void {
		const known = this.tabs.find((tab) => tab.kind !== 'display' && tab.id === session.id);
		if (known) {
			this.select(known);
			return;
		}
		const tab = new TerminalTab(session.agent_id, session.vm, session.kind, session.id);
		this.tabs = [...this.tabs, tab];
		this.select(tab);
		void tab.start().then(() => tab.view?.focus());
	}

	/** Opens one more terminal in a VM. */
	another(agent: string, vm: string, kind: TerminalKind = 'shell'): TerminalTab {
		const tab = new TerminalTab(agent, vm, kind, null);
		this.tabs = [...this.tabs, tab];
		this.select(tab);
		void tab.start().then(() => tab.view?.focus());
		return tab;
	}

	/** Shows one more terminal of the same VM beside the one that is shown. */
	split(): void {
		const left = this.active;
		if (!left || left.kind === 'display') return;
		this.pair = [left, this.another(left.agent, left.vm, left.kind)];
		this.keep();
	}

	/** Shows one at a time again; both stay open. */
	unsplit(): void {
		this.pair = null;
		this.keep();
	}

	select(tab: Tab): void {
		this.active = tab;
		this.open = true;
		if (tab.kind !== 'display') tab.unseen = false;
		requestAnimationFrame(() => tab.focus());
	}

	remove(tab: Tab, what: 'end' | 'leave' = 'end'): void {
		const index = this.tabs.indexOf(tab);
		this.tabs = this.tabs.filter((other) => other !== tab);
		const other = this.pair?.find((one) => one !== tab);
		if (other && this.pair?.includes(tab)) {
			this.pair = null;
			if (this.active === tab) this.active = other;
		}
		if (this.active === tab) this.active = this.tabs[Math.max(0, index - 1)] ?? null;
		if (this.tabs.length === 0) {
			this.open = false;
			this.maximised = false;
		}
		if (what === 'end' && tab.kind !== 'display') void tab.close();
		else tab.leave();
		this.keep();
	}

	/** Takes up the sessions that this browser tab had before a reload. */
	restore(): void {
		if (this.tabs.length > 0) return;
		let kept: Kept[];
		try {
			kept = JSON.parse(sessionStorage.getItem(KEY) ?? '[]') as Kept[];
		} catch {
			return;
		}
		const tabs = kept.map(({ id, agent, vm, kind }) => (kind === 'display' ? new DisplayTab(agent, vm) : new TerminalTab(agent, vm, kind, id ?? null)));
		this.tabs = tabs;
		this.active = tabs.at(-1) ?? null;
		const [left, right] = tabs.filter((_, i) => kept[i]?.beside);
		this.pair = left && right ? [left, right] : null;
		this.open = tabs.length > 0;
		for (const tab of tabs) void tab.start();
	}

	keep(): void {
		const kept = this.tabs.flatMap((tab): Kept[] => {
			if (tab.kind === 'display') return [{ agent: tab.agent, vm: tab.vm, kind: tab.kind }];
			const { id, agent, vm, kind } = tab;
			return id ? [{ id, agent, vm, kind, ...(this.pair?.includes(tab) ? { beside: true } : {}) }] : [];
		});
		try {
			sessionStorage.setItem(KEY, JSON.stringify(kept));
		} catch {
			// Then a reload begins anew.
		}
	}

	/** Lets go of all sessions; they are found again by [`restore`], unless they are forgotten. */
	leave(): void {
		for (const tab of this.tabs) tab.leave();
		this.tabs = [];
		this.pair = null;
		this.active = null;
		this.open = false;
	}

	/** At sign-out: whoever signs in next starts with no terminals. */
	forget(): void {
		this.leave();
		this.keep();
	}

	/** Takes up theme and settings, after either has changed. */
	recolour(): void {
		for (const tab of this.tabs) if (tab.kind !== 'display') tab.view?.setLook(look());
	}
}

function look(): Look {
	const { fontSize, font, screenReader } = settings.terminal;
	return { dark: isDark(), fontSize, font, screenReader };
}

/** Whether terminals are dark, by the settings. */
export function isDark(): boolean {
	if (settings.terminal.colours !== 'page') return settings.terminal.colours === 'dark';
	if (settings.theme === 'auto') return matchMedia('(prefers-color-scheme: dark)').matches;
	return settings.theme !== 'light';
}

export const terminals = new Terminals();
