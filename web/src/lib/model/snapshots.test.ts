import { describe, expect, test } from 'vitest';
import type { Snapshot } from '$lib/api/types';
import { cloneNameError, nextName, proposeClone, safetyName, snapshotNameError, snapshotTree } from './snapshots';

const snapshot = (name: string, parent: string | null = null): Snapshot => ({ name, parent });
/** The tree as one reads it: lane, what leads to it, name. */
const drawn = (all: Snapshot[]) =>
	snapshotTree(all).map(({ snapshot: { name }, lane, side, continues, goesOn }) => `${'  '.repeat(lane)}${side ? '└' : continues ? '│' : '·'} ${name}${goesOn ? ' ↓' : ''}`);

describe('the tree of snapshots', () => {
	test('a chain stays in its lane', () => {
		expect(drawn([snapshot('a'), snapshot('b', 'a'), snapshot('c', 'b')])).toEqual(['· a ↓', '│ b ↓', '│ c']);
	});
	test('what branches off stands beside, before what goes on', () => {
		const all = [snapshot('a'), snapshot('b', 'a'), snapshot('c', 'a'), snapshot('d', 'b'), snapshot('e', 'a')];
		expect(drawn(all)).toEqual(['· a ↓', '  └ b ↓', '  │ d', '  └ c', '│ e']);
	});
	test('several beginnings, and a parent that is gone, are roots', () => {
		expect(drawn([snapshot('a'), snapshot('b', 'gone'), snapshot('c', 'b')])).toEqual(['· a', '· b ↓', '│ c']);
	});
	test('what is no tree is still told, each once', () => {
		const all = [snapshot('a', 'b'), snapshot('b', 'a'), snapshot('self', 'self')];
		expect(snapshotTree(all).map((branch) => branch.snapshot.name).sort()).toEqual(['a', 'b', 'self']);
	});
	test('a hundred in a row are drawn', () => {
		const all = Array.from({ length: 100 }, (_, i) => snapshot(`s${i}`, i ? `s${i - 1}` : null));
		const tree = snapshotTree(all);
		expect(tree).toHaveLength(100);
		expect(tree.every(({ lane }) => lane === 0)).toBe(true);
	});
});

describe('names', () => {
	test('a series goes on after its highest number', () => {
		expect(nextName('snapshot', [])).toBe('snapshot1');
		expect(nextName('snapshot', ['snapshot2', 'snapshot10', 'snapshotX', 'other99'])).toBe('snapshot11');
		expect(safetyName([snapshot('before-restore1'), snapshot('snapshot7')])).toBe('before-restore2');
	});
	test('of snapshots are checked against the others', () => {
		expect(snapshotNameError('fine', [])).toBeNull();
		expect(snapshotNameError('there', [snapshot('there')])).toMatch(/already/);
		for (const bad of ['', '1st', 'a.b', '-x', 'x-']) expect(snapshotNameError(bad, []), bad).not.toBeNull();
	});
	test('of clones are proposed good and free', () => {
		const taken = new Set(['web', 'web-clone1']);
		expect(proposeClone('web', taken)).toBe('web-clone2');
		for (const odd of ['1a', 'a.b', 'ünï', 'x'.repeat(255), '-', '42'])
			expect(cloneNameError(proposeClone(odd, taken), taken), odd).toBeNull();
		expect(cloneNameError('web', taken)).toMatch(/already/);
	});
});
