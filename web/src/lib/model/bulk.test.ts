import { describe, expect, test } from 'vitest';
import type { Vm } from '$lib/api/types';
import { countItems, isOver, preview, ready, summary, type BulkItem, type BulkState } from './bulk';

const vm = (machine: string, name: string) => ({ agent_id: machine, name, state: 'stopped' }) as Vm;
const item = (machine: string, name: string, state: BulkState = 'waiting'): BulkItem => ({ vm: vm(machine, name), key: name, state, reason: null, operation: null });
const names = (items: BulkItem[]) => items.map((one) => one.vm.name);

describe('which are next', () => {
	test('at most so many of one machine at once, in their order', () => {
		const items = ['a', 'b', 'c'].map((name) => item('lab', name)).concat(item('office', 'd'));
		expect(names(ready(items, 2))).toEqual(['a', 'b', 'd']);
	});
	test('those under way count', () => {
		const items = [item('lab', 'a', 'running'), item('lab', 'b', 'asking'), item('lab', 'c'), item('office', 'd', 'done'), item('office', 'e')];
		expect(names(ready(items, 2))).toEqual(['e']);
	});
	test('everything gets its turn, and never more at once than allowed', () => {
		const items = Array.from({ length: 50 }, (_, i) => item(`m${i % 3}`, `v${i}`));
		for (let round = 0; !isOver(countItems(items)); round += 1) {
			expect(round).toBeLessThan(50);
			for (const one of ready(items, 4)) one.state = 'running';
			for (const machine of ['m0', 'm1', 'm2']) expect(items.filter((one) => one.vm.agent_id === machine && one.state === 'running').length).toBeLessThanOrEqual(4);
			const first = items.find((one) => one.state === 'running');
			if (first) first.state = 'done';
		}
		expect(countItems(items).done).toBe(50);
	});
});

test('the summary leaves out what is none', () => {
	const items = [item('l', 'a', 'done'), item('l', 'b', 'failed'), item('l', 'c', 'asking'), item('l', 'd', 'running')];
	expect(summary(countItems(items))).toBe('1 of 4 done · 2 under way · 1 failed');
});

test('the preview says who can, and why the others cannot, the commonest reason first', () => {
	const vms = ['a', 'b', 'c', 'd'].map((name) => vm('l', name));
	const found = preview(vms, ({ name }) => ({ a: null, b: 'VM is stopped', c: 'VM is stopped', d: 'VM is starting' })[name] ?? null);
	expect(found.able.map(({ name }) => name)).toEqual(['a']);
	expect(found.refused.map(({ reason, vms: those }) => [reason, those.length])).toEqual([['VM is stopped', 2], ['VM is starting', 1]]);
});
