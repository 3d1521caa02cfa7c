// Short notices over the dock: at most three, errors stay until dismissed, never the only place of an error.
import { problemOf } from '$lib/api/problem';
import { sentences } from '$lib/model/sentence';

export type Toast = {
	id: number;
	tone: 'info' | 'good' | 'bad';
	title: string;
	detail?: string;
	action?: { title: string; run: () => void };
};

const SHOWN_MS = 6000;
const SHOWN_WITH_ACTION_MS = 10_000;
const MOST = 3;

class Toasts {
	items = $state<Toast[]>([]);
	#next = 1;

	show(toast: Omit<Toast, 'id'>): void {
		const id = this.#next++;
		this.items = [...this.items, { ...toast, id }].slice(-MOST);
		if (toast.tone !== 'bad')
			setTimeout(() => this.dismiss(id), toast.action ? SHOWN_WITH_ACTION_MS : SHOWN_MS);
	}

	/** Tells that something the user asked for did not happen. */
	failure(what: string, thrown: unknown): void {
		this.show({ tone: 'bad', title: what, detail: sentences(problemOf(thrown).detail) });
	}

	dismiss(id: number): void {
		this.items = this.items.filter((toast) => toast.id !== id);
	}
}

export const toasts = new Toasts();
