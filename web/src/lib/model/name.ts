// Names of new VMs: checked as one types by the master's own rule, and proposed.

const FORM = /^[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?$/;

/** What is wrong with a new VM's name; `null` when nothing is. */
export function nameError(name: string): string | null {
	if (name === '') return 'a VM needs a name';
	if (FORM.test(name)) return null;
	if (name.length > 63) return `at most 63 characters; this has ${name.length}`;
	if (!/^[A-Za-z]/.test(name)) return 'begin with a letter';
	if (name.endsWith('-')) return 'do not end with a hyphen';
	return 'only letters, digits and hyphens';
}

/** The names that a text stands for: `web-{1..3}` is three. */
export function expandNames(text: string): string[] {
	const match = /^(.*)\{(\d{1,4})\.\.(\d{1,4})\}(.*)$/.exec(text);
	if (!match) return [text];
	const [, before = '', from = '0', to = '0', after = ''] = match;
	const [first, last] = [Number(from), Number(to)];
	if (last < first || last - first >= 50) return [text];
	return Array.from({ length: last - first + 1 }, (_, i) => `${before}${first + i}${after}`);
}

const WORDS = [
	'amber', 'basil', 'cedar', 'clove', 'coral', 'daisy', 'ember', 'fern', 'flint', 'ginger',
	'hazel', 'indigo', 'iris', 'jasper', 'juniper', 'kelp', 'lark', 'linden', 'maple', 'mint',
	'moss', 'olive', 'onyx', 'pearl', 'pepper', 'plum', 'quartz', 'raven', 'reed', 'robin',
	'saffron', 'sage', 'sparrow', 'teal', 'thyme', 'tulip', 'umber', 'walnut', 'willow', 'wren'
]; // prettier-ignore

/** A short name that is not taken. */
export function proposeName(taken: ReadonlySet<string>, random: () => number = Math.random): string {
	const start = Math.floor(random() * WORDS.length);
	for (let round = 1; ; round += 1) {
		for (let i = 0; i < WORDS.length; i += 1) {
			const word = WORDS[(start + i) % WORDS.length] ?? 'vm';
			const name = round === 1 ? word : `${word}-${round}`;
			if (!taken.has(name)) return name;
		}
	}
}
