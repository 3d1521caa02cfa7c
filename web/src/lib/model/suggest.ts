// What can be typed next in the search box.
import type { VmCounts, VmState } from '$lib/api/types';
import { quoteValue, type Writing } from './query';

export type Suggestion = {
	/** What is shown. */
	text: string;
	/** What is put into the box. */
	insert: string;
	/** What it means. */
	note?: string;
	count?: number;
	/** Whether a value follows, so that no space is put behind. */
	opens: boolean;
};

const FIELDS: [string, string][] = [
	['state:', 'what it is doing'],
	['agent:', 'the machine it is on; lab-* for all that begin so'],
	['label:', 'a label: env=prod, or env for any value'],
	['name:', 'a part of its name'],
	['image:', 'what it was made from'],
	['ip:', 'one of its addresses'],
	['is:', 'missing, stale, busy, protected or expiring'],
	['driver:', 'what runs it'],
	['readiness:', 'how far it has booted'],
	['cpus>', 'how many CPUs; also = < >= <='],
	['memory>', 'how much memory: memory>4G'],
	['disk>', 'how large its disk is']
];
const STATES: VmState[] = ['running', 'stopped', 'suspended', 'creating', 'starting', 'restarting', 'stopping', 'suspending', 'unknown', 'error', 'deleted'];
const WORDS: Record<string, [string, string][]> = {
	is: [
		['missing', 'was there, and is gone although nobody asked for it'],
		['stale', 'not heard of lately'],
		['busy', 'an operation runs or waits for it'],
		['protected', 'can neither be deleted nor purged'],
		['expiring', 'has a lifetime that ends']
	],
	driver: [['qemu', ''], ['multipass', ''], ['fake', '']],
	readiness: [['ready', ''], ['booting', ''], ['cloud_init', 'sets itself up'], ['unreachable', 'runs, but does not answer']]
};
const MOST = 9;

/** Suggestions for what is being written; `machines` are known without counts. */
export function suggest(writing: Writing, counts: VmCounts | null, machines: { id: string; name: string }[]): Suggestion[] {
	const prefix = writing.prefix.toLowerCase();
	const value = (text: string, note?: string, count?: number): Suggestion => ({ text, insert: quoteValue(text), note, count, opens: false });
	const fits = (text: string, note = '') => text.toLowerCase().includes(prefix) || note.toLowerCase().includes(prefix);
	switch (writing.field) {
		case null:
			return FIELDS.filter(([name]) => name.startsWith(prefix)).map(([name, note]) => ({ text: name, insert: name, note, opens: true }));
		case 'state':
			return STATES.filter((state) => state.startsWith(prefix)).map((state) => value(state, undefined, counts?.states[state] ?? (counts ? 0 : undefined)));
		case 'agent':
		case 'machine': {
			const listed = counts?.agents ?? machines.map(({ id, name }) => ({ id, name, count: undefined }));
			return listed
				.filter(({ id, name }) => fits(id, name))
				.slice(0, MOST)
				.map(({ id, name, count }) => value(id, name === id ? undefined : name, count));
		}
		case 'label':
			return (counts?.labels ?? [])
				.map(({ key, value: of, count }) => value(of ? `${key}=${of}` : key, undefined, count))
				.filter(({ text }) => fits(text))
				.slice(0, MOST);
		default:
			return (WORDS[writing.field] ?? []).filter(([word]) => word.startsWith(prefix)).map(([word, note]) => value(word, note || undefined));
	}
}
