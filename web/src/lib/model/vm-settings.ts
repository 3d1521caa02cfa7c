// What is done about a VM by itself, in words and as a form: what one changes is what is sent.
import type { IdleStop, LifetimeEnd, Notice, SettingsChange, UpdateVm, Vm, VmSettings } from '$lib/api/types';
import { quote } from './cli';
import { labelText } from './labels';
import { formatDuration } from './time';

const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** Lifetimes that are offered, in seconds. */
export const LIFETIMES: [number, string][] = [
	[HOUR, '1 hour'],
	[8 * HOUR, '8 hours'],
	[DAY, '1 day'],
	[3 * DAY, '3 days'],
	[7 * DAY, '7 days'],
	[30 * DAY, '30 days']
];
/** Times of doing nothing that are offered, in seconds. */
export const IDLE_TIMES: [number, string][] = [
	[15 * MINUTE, '15 minutes'],
	[30 * MINUTE, '30 minutes'],
	[HOUR, '1 hour'],
	[4 * HOUR, '4 hours'],
	[DAY, '1 day']
];

/** The settings of a VM of which none were ever changed. */
const NONE: VmSettings = { protected: false, autostart: null, restart: 'never', lifetime: null, idle_stop: null, revision: 0 };

export function settingsOf(vm: Pick<Vm, 'settings'>): VmSettings {
	return { ...NONE, ...vm.settings };
}

/** What one writes into the dialog; numbers as they are typed. */
export type SettingsForm = {
	protected: boolean;
	autostart: boolean;
	order: string;
	delay: string;
	onCrash: boolean;
	/** Seconds from now on; `keep` as it is, `off` for ever. */
	lifetime: string;
	end: LifetimeEnd;
	/** Seconds; `off` never. */
	idle: string;
	below: string;
};

export function formOf(settings: VmSettings): SettingsForm {
	return {
		protected: settings.protected ?? false,
		autostart: Boolean(settings.autostart),
		order: String(settings.autostart?.order ?? 0),
		delay: String(settings.autostart?.delay_s ?? 0),
		onCrash: settings.restart === 'on_crash',
		lifetime: settings.lifetime ? 'keep' : 'off',
		end: settings.lifetime?.end ?? 'stop',
		idle: settings.idle_stop ? String(settings.idle_stop.after_s) : 'off',
		below: String(settings.idle_stop?.below_percent ?? 5)
	};
}

function whole(text: string, least: number, most: number): string | null {
	const number = Number(text);
	return /^\d+$/.test(text.trim()) && number >= least && number <= most ? null : `a whole number from ${least} to ${most}`;
}

/** What is wrong with what is typed, by field. */
export function formErrors(form: SettingsForm): { order: string | null; delay: string | null; below: string | null } {
	return {
		order: form.autostart ? whole(form.order, 0, 9999) : null,
		delay: form.autostart ? whole(form.delay, 0, 3600) : null,
		below: form.idle === 'off' ? null : whole(form.below, 1, 100)
	};
}

/** Why a VM cannot be both protected and deleted in the end. */
export const PROTECTED_STAYS = 'a protected VM is not deleted: let it be stopped then';

/** Whether anything in the form is wrong. */
export function formWrong(settings: VmSettings, form: SettingsForm): boolean {
	return Object.values(formErrors(form)).some(Boolean) || (form.protected && deletesAtEnd(settings, form));
}

/** What the form changes of the settings: only that is sent, so that two people do not undo each other. */
export function changesOf(settings: VmSettings, form: SettingsForm): SettingsChange {
	const change: SettingsChange = {};
	if (form.protected !== (settings.protected ?? false)) change.protected = form.protected;
	const autostart = form.autostart ? { order: Number(form.order), delay_s: Number(form.delay) } : null;
	const before = settings.autostart ?? null;
	if (autostart?.order !== before?.order || autostart?.delay_s !== before?.delay_s) change.autostart = autostart;
	const restart = form.onCrash ? 'on_crash' : 'never';
	if (restart !== (settings.restart ?? 'never')) change.restart = restart;
	if (form.lifetime === 'off') {
		if (settings.lifetime) change.lifetime = null;
	} else if (form.lifetime !== 'keep') change.lifetime = { after_s: Number(form.lifetime), end: form.end };
	const idle: IdleStop | null = form.idle === 'off' ? null : { after_s: Number(form.idle), below_percent: Number(form.below) };
	const was = settings.idle_stop ?? null;
	if (idle?.after_s !== was?.after_s || (idle && idle.below_percent !== was?.below_percent)) change.idle_stop = idle;
	return change;
}

/** The lifetime that the form would leave, for what depends on it. */
export function deletesAtEnd(settings: VmSettings, form: SettingsForm): boolean {
	if (form.lifetime === 'off') return false;
	return (form.lifetime === 'keep' ? settings.lifetime?.end : form.end) === 'delete';
}

/** Seconds as the command line takes them. */
function span(seconds: number): string {
	if (seconds % DAY === 0) return `${seconds / DAY}d`;
	if (seconds % HOUR === 0) return `${seconds / HOUR}h`;
	return seconds % MINUTE === 0 ? `${seconds / MINUTE}m` : `${seconds}s`;
}

/** The command that changes the same; `null` when nothing changes. */
export function setCommand(vm: Pick<Vm, 'agent_id' | 'name'>, update: UpdateVm): string | null {
	const words = updateWords(update);
	return words.length === 0 ? null : ['batwa set', quote(`${vm.agent_id}/${vm.name}`), ...words.map(quote)].join(' ');
}

/** The same as options of the command line, word by word. */
export function updateWords(update: UpdateVm): string[] {
	const words: string[] = [];
	const add = (...more: string[]) => words.push(...more);
	if (update.display_name !== undefined && update.display_name !== null) add('--display-name', update.display_name);
	if (update.notes !== undefined && update.notes !== null) add('--notes', update.notes);
	for (const [key, value] of Object.entries(update.labels ?? {})) {
		if (value === null || value === undefined) add('--unlabel', key);
		else add('--label', `${key}=${value}`);
	}
	const { settings } = update;
	if (settings?.protected !== undefined && settings.protected !== null) add(settings.protected ? '--protect' : '--unprotect');
	if (settings?.autostart === null) add('--autostart', 'off');
	else if (settings?.autostart) {
		const { order = 0, delay_s = 0 } = settings.autostart;
		add('--autostart', delay_s ? `${order},${delay_s}s` : String(order));
	}
	if (settings?.restart) add('--restart', settings.restart === 'on_crash' ? 'on-crash' : 'never');
	if (settings?.lifetime === null) add('--lifetime', 'off');
	else if (settings?.lifetime) {
		add('--lifetime', span(settings.lifetime.after_s));
		if (settings.lifetime.end === 'delete') add('--at-end', 'delete');
	}
	if (settings?.idle_stop === null) add('--idle-stop', 'off');
	else if (settings?.idle_stop) {
		add('--idle-stop', span(settings.idle_stop.after_s));
		if (settings.idle_stop.below_percent !== 5) add('--idle-below', String(settings.idle_stop.below_percent));
	}
	return words;
}

/** Labels as they are to be, as what is sent: what is set, and `null` for what goes. */
export function labelChanges(before: Record<string, string>, after: Record<string, string>): Record<string, string | null> {
	const changes: Record<string, string | null> = {};
	for (const key of Object.keys(before)) if (!(key in after)) changes[key] = null;
	for (const [key, value] of Object.entries(after)) if (before[key] !== value) changes[key] = value;
	return changes;
}

/** How a label came, for people. */
export function labelTitle(vm: Pick<Vm, 'label_sources'>, label: [string, string]): string {
	const by = vm.label_sources?.[label[0]];
	return by ? `${labelText(label)}, set by ${by}` : labelText(label);
}

/** What is set, one line each, in words; empty when nothing is. */
export function settingLines(settings: VmSettings): { title: string; text: string }[] {
	const lines: { title: string; text: string }[] = [];
	if (settings.protected) lines.push({ title: 'Protected', text: 'can neither be deleted nor purged' });
	if (settings.autostart) {
		const { order = 0, delay_s = 0 } = settings.autostart;
		lines.push({ title: 'Autostart', text: `after the machine’s boot, at place ${order}${delay_s ? `, ${delay_s} s after it at the earliest` : ''}` });
	}
	if (settings.restart === 'on_crash') lines.push({ title: 'Restart', text: 'when it crashes, up to 5 times in a row' });
	if (settings.idle_stop) {
		const { after_s, below_percent = 5 } = settings.idle_stop;
		lines.push({ title: 'Idle stop', text: `after ${formatDuration(after_s * 1000)} below ${below_percent} % CPU with nobody inside` });
	}
	return lines;
}

/** What is done when its lifetime ends. */
export function endWords(end: LifetimeEnd): string {
	return end === 'delete' ? 'is moved to the trash' : 'is stopped';
}

/** The time that is left, short; `now` when none is. */
export function timeLeft(time: string, now: number): string {
	const left = Date.parse(time) - now;
	return left > 0 ? formatDuration(left) : 'now';
}

/** Whether a notice is worth interrupting people for. */
export function isUrgent(notice: Notice): boolean {
	return notice.kind === 'lifetime_ends' || notice.kind === 'given_up' || notice.kind === 'failed';
}
