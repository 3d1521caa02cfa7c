// What this browser remembers for itself: theme, rail, dock. Never anything secret.
export type Theme = 'auto' | 'light' | 'dark' | 'contrast';
export const THEMES: { value: Theme; title: string }[] = [
	{ value: 'auto', title: 'As the system' },
	{ value: 'light', title: 'Light' },
	{ value: 'dark', title: 'Dark' },
	{ value: 'contrast', title: 'High contrast' }
];

const KEY = 'batwa.settings';
type Kept = { theme: Theme; dockHeight: number; compact: boolean; filters: boolean };
const DEFAULTS: Kept = { theme: 'auto', dockHeight: 320, compact: false, filters: true };

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
			filters: kept.filters !== false
		};
	} catch {
		return DEFAULTS;
	}
}

export const settings = new Settings();
