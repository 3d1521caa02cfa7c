// The snapshots of a VM as a tree, and names for new ones and for clones.
import type { Snapshot } from '$lib/api/types';
import { groupBy } from './group';
import { nameError } from './name';

/** One line of the drawn tree. */
export type Branch = {
	snapshot: Snapshot;
	/** How far to the right it stands: a chain stays in its lane, only what branches off moves over. */
	lane: number;
	/** Whether it branches off from the lane to its left. */
	side: boolean;
	/** Whether a line comes from above in its own lane. */
	continues: boolean;
	/** Whether its lane goes on below. */
	goesOn: boolean;
};

/** The tree from its roots on, what branches off before what goes on. A parent that is not there makes a root. */
export function snapshotTree(snapshots: readonly Snapshot[]): Branch[] {
	const names = new Set(snapshots.map(({ name }) => name));
	const parentOf = (snapshot: Snapshot) => (snapshot.parent && snapshot.parent !== snapshot.name && names.has(snapshot.parent) ? snapshot.parent : null);
	const children = groupBy(snapshots, parentOf);
	const branches: Branch[] = [];
	// What was told is not to be trusted to be a tree: each is drawn once.
	const drawn = new Set<string>();
	const place = (first: Snapshot, lane: number, side: boolean) => {
		let continues = false;
		for (let at: Snapshot | undefined = first; at && !drawn.has(at.name); side = false, continues = true) {
			const snapshot: Snapshot = at;
			drawn.add(snapshot.name);
			const all: Snapshot[] = (children.get(snapshot.name) ?? []).filter(({ name }) => !drawn.has(name));
			branches.push({ snapshot, lane, side, continues, goesOn: all.length > 0 });
			for (const one of all.slice(0, -1)) place(one, lane + 1, true);
			at = all.at(-1);
		}
	};
	for (const root of children.get(null) ?? []) place(root, 0, false);
	for (const snapshot of snapshots) if (!drawn.has(snapshot.name)) place(snapshot, 0, false);
	return branches;
}

/** The next free name of a series: `snapshot3` after `snapshot2`, whatever was removed in between. */
export function nextName(stem: string, taken: Iterable<string>): string {
	let last = 0;
	for (const name of taken) {
		const number = name.startsWith(stem) ? name.slice(stem.length) : '';
		if (/^\d{1,9}$/.test(number)) last = Math.max(last, Number(number));
	}
	return `${stem}${last + 1}`;
}

export const proposeSnapshot = (snapshots: readonly Snapshot[]) => nextName('snapshot', snapshots.map(({ name }) => name));
/** What the agent calls the snapshot that keeps how a VM was before it went back. */
export const safetyName = (snapshots: readonly Snapshot[]) => nextName('before-restore', snapshots.map(({ name }) => name));

/** What is wrong with a new snapshot's name; `null` when nothing is. */
export function snapshotNameError(name: string, snapshots: readonly Snapshot[]): string | null {
	if (name === '') return 'a snapshot needs a name';
	if (snapshots.some((snapshot) => snapshot.name === name)) return `there is a snapshot ${name} already`;
	return nameError(name);
}

/** A free name for a clone, as the command line proposes it: `web-clone1`. */
export function proposeClone(vm: string, taken: Iterable<string>): string {
	const stem = `${vm.replace(/[^A-Za-z0-9-]/g, '-').replace(/^[^A-Za-z]+/, '').slice(0, 50) || 'vm'}-clone`;
	return nextName(stem, taken);
}

/** What is wrong with a clone's name; `null` when nothing is. */
export function cloneNameError(name: string, taken: ReadonlySet<string>): string | null {
	return nameError(name) ?? (taken.has(name) ? `there is a VM ${name} on this machine already` : null);
}
