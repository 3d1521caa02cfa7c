// Which dialog is open. One at a time, and openable from anywhere: table, panel, palette, keyboard.
import type { Vm } from '$lib/api/types';

class Dialogs {
	/** The create dialog, with the machine it was opened for. */
	create = $state<{ agent: string | null } | null>(null);
	/** VMs that are to be purged. */
	purge = $state.raw<Vm[]>([]);
	palette = $state(false);
	help = $state(false);
	addMachine = $state(false);

	get any(): boolean {
		return this.create !== null || this.purge.length > 0 || this.palette || this.help || this.addMachine;
	}
}

export const dialogs = new Dialogs();
