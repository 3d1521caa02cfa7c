import { describe, expect, it } from 'vitest';
import type { VmSettings } from '$lib/api/types';
import { changesOf, deletesAtEnd, formErrors, formOf, labelChanges, setCommand, settingLines, settingsOf, timeLeft } from './vm-settings';

const vm = { agent_id: 'lab', name: 'web' };
const none = settingsOf({ settings: undefined });
const all: VmSettings = {
	protected: true,
	autostart: { order: 10, delay_s: 30 },
	restart: 'on_crash',
	lifetime: { ends_at: '2026-01-02T00:00:00Z', warns_at: '2026-01-01T00:00:00Z', end: 'stop' },
	idle_stop: { after_s: 1800, below_percent: 10 },
	revision: 3
};

describe('the form of the settings', () => {
	it('changes nothing when nothing was touched', () => {
		for (const settings of [none, all]) expect(changesOf(settings, formOf(settings))).toEqual({});
	});

	it('sends only what was changed, and null for what is switched off', () => {
		expect(changesOf(none, { ...formOf(none), protected: true, lifetime: '3600', end: 'delete' })).toEqual({
			protected: true,
			lifetime: { after_s: 3600, end: 'delete' }
		});
		const off = { ...formOf(all), autostart: false, lifetime: 'off', idle: 'off', onCrash: false };
		expect(changesOf(all, off)).toEqual({ autostart: null, lifetime: null, idle_stop: null, restart: 'never' });
		expect(changesOf(all, { ...formOf(all), delay: '60' })).toEqual({ autostart: { order: 10, delay_s: 60 } });
		expect(changesOf(all, { ...formOf(all), below: '20' })).toEqual({ idle_stop: { after_s: 1800, below_percent: 20 } });
	});

	it('knows what is no number, where it matters', () => {
		const form = { ...formOf(all), order: 'first', delay: '3601', below: '0' };
		expect(Object.values(formErrors(form)).every(Boolean)).toBe(true);
		expect(Object.values(formErrors({ ...form, autostart: false, idle: 'off' })).some(Boolean)).toBe(false);
	});

	it('knows whether the VM is deleted in the end', () => {
		expect(deletesAtEnd(all, formOf(all))).toBe(false);
		expect(deletesAtEnd(all, { ...formOf(all), lifetime: '60', end: 'delete' })).toBe(true);
		expect(deletesAtEnd(all, { ...formOf(all), lifetime: 'off', end: 'delete' })).toBe(false);
	});
});

describe('the command', () => {
	it('says the same', () => {
		expect(setCommand(vm, {})).toBeNull();
		expect(setCommand(vm, { settings: changesOf(none, { ...formOf(none), protected: true, autostart: true, order: '10', delay: '30', lifetime: '259200', end: 'delete', idle: '1800' }) })).toBe(
			'batwa set lab/web --protect --autostart 10,30s --lifetime 3d --at-end delete --idle-stop 30m'
		);
		expect(setCommand(vm, { display_name: 'The shop', labels: { env: 'prod', old: null } })).toBe("batwa set lab/web --display-name 'The shop' --label env=prod --unlabel old");
		expect(setCommand(vm, { settings: { autostart: null, lifetime: null, idle_stop: null, restart: 'on_crash' } })).toBe(
			'batwa set lab/web --autostart off --restart on-crash --lifetime off --idle-stop off'
		);
	});
});

describe('labels', () => {
	it('are told as what is set and what goes', () => {
		expect(labelChanges({ env: 'test', team: 'a', old: '' }, { env: 'prod', team: 'a', new: '' })).toEqual({ env: 'prod', old: null, new: '' });
	});
});

describe('in words', () => {
	it('says one line for each that is set', () => {
		expect(settingLines(none)).toEqual([]);
		expect(settingLines(all).map(({ title }) => title)).toEqual(['Protected', 'Autostart', 'Restart', 'Idle stop']);
	});

	it('says how much time is left', () => {
		const now = Date.parse('2026-01-01T00:00:00Z');
		expect(timeLeft('2026-01-01T05:00:00Z', now)).toBe('5 h');
		expect(timeLeft('2025-12-31T00:00:00Z', now)).toBe('now');
	});
});
