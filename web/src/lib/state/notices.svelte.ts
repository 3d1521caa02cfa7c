// What agents do about VMs by themselves interrupts people once where it is urgent; it stays to be read at the VM.
import { goto } from '$app/navigation';
import type { Event, Vm } from '$lib/api/types';
import { sentences } from '$lib/model/sentence';
import { endWords, isUrgent } from '$lib/model/vm-settings';
import { dialogs } from './dialogs.svelte';
import { events } from './events.svelte';
import { session } from './session.svelte';
import { toasts } from './toasts.svelte';

/** Most notices that are remembered as told. */
const REMEMBERED = 1000;

class Notices {
	#told = new Set<string>();

	/** Tells of urgent notices until the returned function is called. */
	follow(): () => void {
		return events.subscribe((event) => this.#hear(event));
	}

	#hear(event: Event): void {
		if (event.type !== 'vm' || event.vm.stale) return;
		for (const notice of event.vm.notices ?? []) {
			const key = `${event.vm.agent_id}/${event.vm.name}/${notice.kind}/${notice.at}`;
			if (!isUrgent(notice) || this.#told.has(key)) continue;
			if (this.#told.size >= REMEMBERED) this.#told.clear();
			this.#told.add(key);
			tell(event.vm, notice.kind, notice.text);
		}
	}
}

function tell(vm: Vm, kind: string, text: string): void {
	if (kind === 'lifetime_ends') {
		toasts.show({
			tone: 'info',
			title: `${vm.name} ${endWords(vm.settings?.lifetime?.end ?? 'stop')} soon`,
			detail: 'Its lifetime ends.',
			action: session.operateRefusal ? undefined : { title: 'Extend', run: () => (dialogs.about = { kind: 'settings', vm }) }
		});
		return;
	}
	toasts.show({
		tone: 'bad',
		title: kind === 'given_up' ? `${vm.name} keeps crashing` : `${vm.name} needs a look`,
		detail: sentences(text),
		action: { title: 'Look at it', run: () => void goto(`/vms/${encodeURIComponent(vm.agent_id)}/${encodeURIComponent(vm.name)}`) }
	});
}

export const notices = new Notices();
