// What one can do with a VM, as a menu: in the order of use, the dangerous last, the impossible with its reason.
import { goto } from '$app/navigation';
import type { Vm } from '$lib/api/types';
import { actWhenOnline, dismiss, plain, refusal, request, TITLES, type Verb } from '$lib/state/actions.svelte';
import { agents } from '$lib/state/agents.svelte';
import { dialogs } from '$lib/state/dialogs.svelte';
import { session } from '$lib/state/session.svelte';
import { terminals } from '$lib/state/terminals.svelte';
import type { IconName } from './Icon.svelte';
import type { MenuItem } from './Menu.svelte';

const ICONS: Partial<Record<Verb, IconName>> = { delete: 'trash' };
const KEYS: Partial<Record<Verb, string>> = { start: 's', stop: 's' };

export function vmMenu(vm: Vm): MenuItem[] {
	const action = (verb: Verb): MenuItem => ({
		title: TITLES[verb],
		icon: ICONS[verb] ?? (verb as Exclude<Verb, 'delete'>),
		key: KEYS[verb],
		refusal: refusal(vm, verb),
		danger: verb === 'purge',
		run: () => request(vm, verb)
	});
	// A machine that may come back by itself does then what is asked now.
	const away = ['offline', 'error'].includes(agents.get(vm.agent_id)?.status ?? '');
	const later = (verb: 'start' | 'stop' | 'restart'): MenuItem => ({
		title: `${TITLES[verb]} once its machine is back`,
		icon: verb,
		refusal: session.operateRefusal,
		run: () => void actWhenOnline(vm, plain(verb))
	});
	const terminal = (kind: 'shell' | 'console'): MenuItem => ({
		title: TITLES[kind],
		icon: kind === 'shell' ? 'terminal' : 'console',
		key: kind === 'shell' ? 't' : undefined,
		refusal: refusal(vm, kind),
		run: () => terminals.show(vm.agent_id, vm.name, kind)
	});
	const display: MenuItem = {
		title: TITLES.display,
		icon: 'display',
		refusal: refusal(vm, 'display'),
		run: () => terminals.showDisplay(vm.agent_id, vm.name)
	};
	const open: MenuItem = {
		title: 'Open as a page',
		icon: 'open',
		key: 'o',
		run: () => void goto(`/vms/${encodeURIComponent(vm.agent_id)}/${encodeURIComponent(vm.name)}`)
	};
	if (vm.missing_since) return [open, 'line', { title: 'Dismiss', icon: 'check', refusal: session.operateRefusal, run: () => void dismiss(vm) }];
	if (vm.state === 'deleted') return [open, 'line', action('recover'), action('purge')];
	// What the driver can never do is left out; what it cannot do now says why.
	const able = (verb: Verb) => vm.actions?.[verb] === null || vm.actions?.[verb] === undefined || !/driver cannot/.test(vm.actions[verb] ?? '');
	const power = ['start', 'stop', 'restart'] as const;
	const memory = (vm.state === 'suspended' ? ['resume'] : ['suspend']) as Verb[];
	return [
		terminal('shell'),
		...(/driver cannot/.test(vm.actions?.console ?? '') ? [] : [terminal('console')]),
		display,
		open,
		'line',
		...power.map(away ? later : action),
		{ title: 'More ways to stop…', icon: 'stop', refusal: refusal(vm, 'stop'), run: () => (dialogs.about = { kind: 'stop', vm }) },
		...memory.filter(able).map(action),
		'line',
		action('snapshot'),
		action('clone'),
		action('resize'),
		'line',
		{ title: 'Name and notes…', icon: 'edit', refusal: session.operateRefusal, run: () => (dialogs.about = { kind: 'edit', vm }) },
		{ title: 'Settings…', icon: 'settings', refusal: session.operateRefusal, run: () => (dialogs.about = { kind: 'settings', vm }) },
		'line',
		...(able('delete') ? [action('delete')] : []),
		action('purge')
	];
}
