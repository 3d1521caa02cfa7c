// What this browser remembers for itself: theme, rail, dock. Never anything secret.
export type Theme = 'auto' | 'light' | 'dark' | 'contrast';
export const THEMES: { value: Theme; title: string }[] = [
	{ value: 'auto', title: 'As the system' },
	{ value: 'light', title: 'Light' },
	{ value: 'dark', title: 'Dark' },
	{ value: 'contrast', title: 'High contrast' }
];

/** How terminals look and what they may do. */
export type TerminalSettings = {
	/** Pixels. */
	fontSize: number;
	/** The name of a font of this computer; the usual one when empty. */
	font: string;
	/** The colours; as the page when `page`. */
	colours: 'page' | 'light' | 'dark';
	/** Tells screen readers what is printed. */
	screenReader: boolean;
	/** Lets programs in a VM put text into this computer's clipboard (OSC 52). */
	clipboard: boolean;
};
export const FONT_SIZES = { least: 8, most: 32 };

const KEY = 'batwa.settings';
type Kept = { theme: Theme; dockHeight: number; compact: boolean; filters: boolean; terminal: TerminalSettings };
const TERMINAL: TerminalSettings = { fontSize: 13, font: '', colours: 'page', screenReader: false, clipboard: false };
const DEFAULTS: Kept = { theme: 'auto', dockHeight: 320, compact: false, filters: true, terminal: TERMINAL };

class Settings {
	#kept = $state<Kept>(read());

	get theme() {
		return this.#kept.theme;
	}
	set theme(theme: Theme) {
		this.#keep({ theme });
		this.apply();
	}
	get dockHeight() {
		return this.#kept.dockHeight;
	}
	set dockHeight(dockHeight: number) {
		this.#keep({ dockHeight: Math.round(dockHeight) });
	}
	get compact() {
		return this.#kept.compact;
	}
	set compact(compact: boolean) {
		this.#keep({ compact });
	}

	/** Whether the filters stand beside the list of VMs. */
	get filters() {
		return this.#kept.filters;
	}
	set filters(filters: boolean) {
		this.#keep({ filters });
	}

	get terminal(): TerminalSettings {
		return this.#kept.terminal;
	}
	set terminal(terminal: TerminalSettings) {
		this.#keep({ terminal: checked(terminal) });
	}

	/** Puts the theme on the document, where the tokens are. */
	apply(): void {
		document.documentElement.dataset.theme = this.#kept.theme;
	}

	#keep(change: Partial<Kept>): void {
		this.#kept = { ...this.#kept, ...change };
		try {
			localStorage.setItem(KEY, JSON.stringify(this.#kept));
		} catch {
			// Storage may be forbidden; then it holds until the page is closed.
		}
	}
}

function read(): Kept {
	try {
		const kept = JSON.parse(localStorage.getItem(KEY) ?? '{}') as Partial<Kept>;
		const theme = THEMES.some(({ value }) => value === kept.theme) ? kept.theme : undefined;
		return {
			theme: theme ?? DEFAULTS.theme,
			dockHeight: typeof kept.dockHeight === 'number' ? kept.dockHeight : DEFAULTS.dockHeight,
			compact: kept.compact === true,
			filters: kept.filters !== false,
			terminal: checked(kept.terminal ?? {})
		};
	} catch {
		return DEFAULTS;
	}
}

/** What was kept is somebody's text file: only what is sensible is taken from it. */
function checked(kept: Partial<TerminalSettings>): TerminalSettings {
	const size = Number(kept.fontSize);
	return {
		fontSize: Number.isFinite(size) && size >= FONT_SIZES.least && size <= FONT_SIZES.most ? Math.round(size) : TERMINAL.fontSize,
		font: typeof kept.font === 'string' ? kept.font.replace(/["\\;{}]/g, '').slice(0, 100) : '',
		colours: kept.colours === 'light' || kept.colours === 'dark' ? kept.colours : 'page',
		screenReader: kept.screenReader === true,
		clipboard: kept.clipboard === true
	};
}

export const settings = new Settings();
