// xterm.js with what a good terminal needs: fits its window, GPU drawing where there is one, search, links,
// wide characters. Made once for a session and moved between places of the page; loaded when first needed.
import type { FitAddon } from '@xterm/addon-fit';
import type { ISearchOptions, SearchAddon } from '@xterm/addon-search';
import type { Terminal } from '@xterm/xterm';
import { isAnswer } from './keys';
import { copied, linesRun } from './paste';
import { DARK, LIGHT } from './theme';

/** What can be changed while it is open. */
export type Look = { dark: boolean; fontSize: number; /** Empty for the usual one. */ font: string; screenReader: boolean };

export type ViewOptions = {
	label: string;
	look: Look;
	/** A paste that would run so many lines at once; who takes it pastes it later, or never. */
	pasting: (text: string, lines: number) => void;
	/** A program put this into the clipboard. */
	copied: (text: string) => void;
	typed: (text: string) => void;
	resized: (cols: number, rows: number) => void;
	/** Keys that the page wants, such as the one that opens the search; `true` takes them from the terminal. */
	key: (event: KeyboardEvent) => boolean;
	found: (index: number, count: number) => void;
};

const FONTS = 'ui-monospace, "SF Mono", "Cascadia Mono", "JetBrains Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace';

const SEARCH: ISearchOptions = {
	decorations: {
		matchBackground: '#e0b26866',
		matchOverviewRuler: '#e0b268',
		activeMatchBackground: '#e0b268',
		activeMatchColorOverviewRuler: '#f2cc8c'
	}
};

export class TerminalView {
	/** What is put on the page. */
	readonly element: HTMLDivElement;
	#term: Terminal;
	#fit: FitAddon;
	#search: SearchAddon;
	#opened = false;
	#observer: ResizeObserver;
	#loadWebgl: () => Promise<void>;

	private constructor(
		term: Terminal,
		fit: FitAddon,
		search: SearchAddon,
		loadWebgl: () => Promise<void>
	) {
		this.element = document.createElement('div');
		this.element.className = 'xterm-host';
		this.#term = term;
		this.#fit = fit;
		this.#search = search;
		this.#loadWebgl = loadWebgl;
		this.#observer = new ResizeObserver(() => this.fit());
	}

	static async make(options: ViewOptions): Promise<TerminalView> {
		const [{ Terminal }, { FitAddon }, { SearchAddon }, { WebLinksAddon }, { Unicode11Addon }] = await Promise.all([
			import('@xterm/xterm'),
			import('@xterm/addon-fit'),
			import('@xterm/addon-search'),
			import('@xterm/addon-web-links'),
			import('@xterm/addon-unicode11'),
			import('@xterm/xterm/css/xterm.css')
		]);
		// Links open only with a modifier held, as in other terminals: output is not to be trusted.
		const follow = (event: MouseEvent, uri: string) => {
			if ((event.ctrlKey || event.metaKey) && /^https?:/i.test(uri)) window.open(uri, '_blank', 'noopener,noreferrer');
		};
		const term = new Terminal({
			allowProposedApi: true,
			// Those that a program sets itself (OSC 8), whose text may name another place.
			linkHandler: { activate: follow },
			lineHeight: 1.15,
			scrollback: 10_000,
			cursorBlink: !matchMedia('(prefers-reduced-motion: reduce)').matches,
			minimumContrastRatio: 4.5,
			macOptionIsMeta: true,
			rightClickSelectsWord: false
		});
		const fit = new FitAddon();
		const search = new SearchAddon();
		term.loadAddon(fit);
		term.loadAddon(search);
		term.loadAddon(new WebLinksAddon(follow));
		term.loadAddon(new Unicode11Addon());
		term.unicode.activeVersion = '11';
		const loadWebgl = async () => {
			const { WebglAddon } = await import('@xterm/addon-webgl');
			try {
				const webgl = new WebglAddon();
				webgl.onContextLoss(() => webgl.dispose());
				term.loadAddon(webgl);
			} catch {
				// No GPU: xterm.js draws with elements, more slowly.
			}
		};
		const view = new TerminalView(term, fit, search, loadWebgl);
		view.setLook(options.look);
		term.parser.registerOscHandler(52, (data) => {
			const text = copied(data);
			if (text !== null) options.copied(text);
			return true;
		});
		// Before xterm.js hears of it.
		view.element.addEventListener(
			'paste',
			(event) => {
				const text = event.clipboardData?.getData('text/plain') ?? '';
				const lines = linesRun(text, term.modes.bracketedPasteMode);
				if (lines === 0) return;
				event.preventDefault();
				event.stopPropagation();
				options.pasting(text, lines);
			},
			true
		);
		term.onData((text) => {
			if (!(view.#replaying && isAnswer(text))) options.typed(text);
		});
		term.onBinary(options.typed);
		term.onResize(({ cols, rows }) => options.resized(cols, rows));
		search.onDidChangeResults(({ resultIndex, resultCount }) => options.found(resultIndex, resultCount));
		term.attachCustomKeyEventHandler((event) => {
			if (event.type === 'keydown' && options.key(event)) {
				event.preventDefault();
				return false;
			}
			// The browser pastes by itself.
			return !(event.type === 'keydown' && event.ctrlKey && event.shiftKey && event.code === 'KeyV');
		});
		view.#label = options.label;
		return view;
	}

	#label = '';

	/** Called when the element has been put somewhere; the first time, it starts to draw. */
	placed(): void {
		if (!this.#opened) {
			this.#opened = true;
			this.#term.open(this.element);
			this.#term.textarea?.setAttribute('aria-label', this.#label);
			this.#observer.observe(this.element);
			void this.#loadWebgl();
		}
		this.fit();
	}

	get size(): { cols: number; rows: number } {
		return { cols: this.#term.cols, rows: this.#term.rows };
	}

	/** Keeps to this size whatever its place, as somebody else's window makes it; `null` for that of its place again. */
	keepSize(size: { cols: number; rows: number } | null): void {
		this.#kept = size;
		this.element.style.overflow = size ? 'auto' : '';
		this.fit();
	}

	#kept: { cols: number; rows: number } | null = null;

	/** Takes the size of its place; not while it has none. */
	fit(): void {
		if (this.#kept) {
			this.#term.resize(this.#kept.cols, this.#kept.rows);
			return;
		}
		if (this.element.offsetWidth < 40 || this.element.offsetHeight < 20) return;
		this.#fit.fit();
	}

	/** Shows bytes; what the first `replayed` of them ask of a terminal is not answered, as it was when they were new. */
	write(bytes: Uint8Array, shown: () => void, replayed: number): void {
		if (replayed > 0) {
			// These are called in the order in which it is shown.
			this.#term.write('', () => {
				this.#replaying = true;
			});
			this.#term.write(bytes.subarray(0, replayed), () => {
				this.#replaying = false;
			});
		}
		this.#term.write(bytes.subarray(replayed), shown);
	}

	#replaying = false;

	/** Writes a line of our own, set apart from what the VM prints. */
	note(text: string): void {
		this.#term.write(`\r\n\x1b[0;2m── ${text} ──\x1b[0m\r\n`);
	}

	/** Takes control sequences that are no output. */
	tell(text: string): void {
		this.#term.write(text);
	}

	/** Calls back once all so far is shown, if a full-screen program has the screen then. */
	whenFullScreen(then: () => void): void {
		this.#term.write('', () => {
			if (this.#term.buffer.active.type === 'alternate') then();
		});
	}

	reset(): void {
		this.#term.reset();
	}

	focus(): void {
		this.#term.focus();
	}

	get selection(): string {
		return this.#term.getSelection();
	}

	paste(text: string): void {
		this.#term.paste(text);
	}

	/** The text of the whole buffer, what has scrolled away included; a line that was wrapped is one line. */
	get text(): string {
		const buffer = this.#term.buffer.active;
		let text = '';
		for (let i = 0; i < buffer.length; i += 1) {
			const line = buffer.getLine(i);
			if (!line) continue;
			const wraps = buffer.getLine(i + 1)?.isWrapped ?? false;
			text += `${i > 0 && !line.isWrapped ? '\n' : ''}${line.translateToString(!wraps)}`;
		}
		return `${text.trimEnd()}\n`;
	}

	find(text: string, direction: 'next' | 'previous'): void {
		if (direction === 'next') this.#search.findNext(text, SEARCH);
		else this.#search.findPrevious(text, SEARCH);
	}

	endFind(): void {
		this.#search.clearDecorations();
		this.#term.focus();
	}

	/** Whether a full-screen program wants arrows of its own kind. */
	get applicationKeys(): boolean {
		return this.#term.modes.applicationCursorKeysMode;
	}

	setLook({ dark, fontSize, font, screenReader }: Look): void {
		const options = this.#term.options;
		options.theme = dark ? DARK : LIGHT;
		options.fontSize = fontSize;
		options.fontFamily = font ? `"${font}", ${FONTS}` : FONTS;
		// Screen readers need the text beside the picture; that costs, so only they get it.
		options.screenReaderMode = screenReader;
		this.element.dataset.colours = dark ? 'dark' : 'light';
		if (this.#opened) this.fit();
	}

	dispose(): void {
		this.#observer.disconnect();
		this.#term.dispose();
		this.element.remove();
	}
}
