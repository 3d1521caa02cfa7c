// Which dialog is open. One at a time, and openable from anywhere: table, panel, palette, keyboard.
import type { Vm } from '$lib/api/types';

/** What a dialog about one VM asks for. */
export type About =
	| { kind: 'resize' | 'stop' | 'edit' | 'settings' | 'mount' | 'forward'; vm: Vm }
	| { kind: 'snapshot'; vm: Vm; name?: string }
	| { kind: 'restore' | 'delete_snapshot'; vm: Vm; snapshot: string }
	| { kind: 'clone'; vm: Vm; snapshot?: string; name?: string };

class Dialogs {
	/** The create dialog, with the machine, and perhaps the name, that it was opened for. */
	create = $state<{ agent: string | null; name?: string } | null>(null);
	/** VMs that are to be purged. */
	purge = $state.raw<Vm[]>([]);
	/** The search of which all that match are to be dealt with. */
	matching = $state<string | null>(null);
	/** The question about one VM that is open. */
	about = $state.raw<About | null>(null);
	palette = $state(false);
	help = $state(false);
	addMachine = $state(false);

	get any(): boolean {
		return this.create !== null || this.purge.length > 0 || this.about !== null || this.matching !== null || this.palette || this.help || this.addMachine;
	}
}

export const dialogs = new Dialogs();
