import { describe, expect, test } from 'vitest';
import { complete, quoteValue, searchError, speaksOf, toggled, toggledTerm, tokens, valuesOf, withField, writingAt } from './query';
import { suggest } from './suggest';

describe('a search', () => {
	test('is taken apart, each part with its place', () => {
		const text = 'state:running,stopped  -label:"old one" memory>=4G "free words" a-b';
		const found = tokens(text);
		expect(found.map((token) => text.slice(token.from, token.to))).toEqual(['state:running,stopped', '-label:"old one"', 'memory>=4G', '"free words"', 'a-b']);
		expect(found.map(({ field, op, negated, values }) => [field, op, negated, values.map((value) => value.text)])).toEqual([
			['state', ':', false, ['running', 'stopped']],
			['label', ':', true, ['old one']],
			['memory', '>=', false, ['4G']],
			[null, '', false, ['free words']],
			[null, '', false, ['a-b']]
		]);
	});

	test('is never refused here, whatever is typed', () => {
		for (const text of ['', ' ', '-', '- ', ':', 'state:', 'state:,', '"', 'label:"a', ',', '::', '-"', 'a\\', '\t\n', 'x:y:z', '🦀:🦀']) {
			const found = tokens(text);
			let at = 0;
			for (const token of found) {
				expect(token.from, text).toBeGreaterThanOrEqual(at);
				expect(token.to, text).toBeGreaterThan(token.from);
				expect(text.slice(at, token.from).trim(), text).toBe('');
				at = token.to;
			}
			expect(text.slice(at).trim(), text).toBe('');
		}
	});

	test('what a field must be is read, whichever way it is written', () => {
		expect(valuesOf('State:running state:stopped -state:error', 'state')).toEqual(['running', 'stopped']);
		expect(valuesOf('machine:lab-1', 'agent')).toEqual(['lab-1']);
		expect(valuesOf('state:', 'state')).toEqual([]);
		expect(speaksOf('-state:error', 'state')).toBe(true);
		expect(speaksOf('"state:error"', 'state')).toBe(false);
	});

	test('one field changes and the rest stays as it was typed', () => {
		expect(withField('state:running web', 'state', ['stopped'])).toBe('state:stopped web');
		expect(withField('web state:running -state:error', 'state', [])).toBe('web -state:error');
		expect(toggled('web', 'state', 'running')).toBe('state:running web');
		expect(toggled('state:running web', 'state', 'stopped')).toBe('state:running,stopped web');
		expect(toggled('state:running,stopped web', 'state', 'running')).toBe('state:stopped web');
		expect(toggledTerm('label:a=1', 'label', 'b=x y')).toBe('label:a=1 label:"b=x y"');
		expect(toggledTerm('label:a=1 label:"b=x y" web', 'label', 'b=x y')).toBe('label:a=1 web');
	});

	test('values that would be read as something else are quoted, and read back', () => {
		for (const value of ['plain', 'lab-*', 'a b', 'say "hi"', 'a,b', '-x', 'back\\slash', ''])
			expect(tokens(`label:${quoteValue(value)}`)[0]?.values[0]?.text, value).toBe(value);
		expect(quoteValue('env=prod')).toBe('env=prod');
	});

	test('errors of the master have their place', () => {
		const problem = (message: string) => ({ code: 'invalid_field' as const, status: 422, title: '', detail: '', errors: [{ field: 'q', message }] });
		expect(searchError(problem('at character 7: there is no state `x`'))).toEqual({ at: 6, message: 'there is no state `x`' });
		expect(searchError(problem('too long'))).toEqual({ at: 0, message: 'too long' });
		expect(searchError({ ...problem(''), errors: [] })).toBeNull();
		expect(searchError(null)).toBeNull();
	});
});

describe('suggestions', () => {
	const counts = {
		total: 9,
		states: { running: 7, stopped: 2 },
		agents: [{ id: 'lab-1', name: 'Laboratory', count: 5 }],
		labels: [{ key: 'env', value: 'prod', count: 3 }, { key: 'my label', value: 'a b', count: 1 }]
	};
	/** The text after the first suggestion is taken at the caret, which `|` marks. */
	const take = (marked: string) => {
		const at = marked.indexOf('|');
		const text = marked.replace('|', '');
		const writing = writingAt(text, at);
		const [first] = suggest(writing, counts, []);
		if (!first) return null;
		const { text: after, caret } = complete(text, writing, first.insert, first.opens ? '' : ' ');
		return `${after.slice(0, caret)}|${after.slice(caret)}`;
	};
	test('complete what is being written, and nothing else', () => {
		expect(take('sta|')).toBe('state:|');
		expect(take('web sta|')).toBe('web state:|');
		expect(take('-sta|')).toBe('-state:|');
		expect(take('state:st| web')).toBe('state:stopped |web');
		expect(take('state:running,st|')).toBe('state:running,stopped |');
		expect(take('agent:labo|')).toBe('agent:lab-1 |');
		expect(take('label:my|')).toBe('label:"my label=a b" |');
		expect(take('is:m|')).toBe('is:missing |');
		expect(take('web-1|')).toBeNull();
		expect(take('memory>|')).toBeNull();
		expect(take('memory>4|')).toBeNull();
		expect(take('st|ate:running')).toBeNull();
	});
	test('tell how many there are', () => {
		const of = (text: string) => suggest(writingAt(text, text.length), counts, []).map(({ text: said, count }) => [said, count]);
		expect(of('state:s')).toEqual([['stopped', 2], ['suspended', 0], ['starting', 0], ['stopping', 0], ['suspending', 0]]);
		expect(of('label:env')).toEqual([['env=prod', 3]]);
	});
	test('machines are known without counts too', () => {
		expect(suggest(writingAt('agent:', 6), null, [{ id: 'a', name: 'A' }])[0]).toMatchObject({ insert: 'a', note: 'A', count: undefined });
	});
});
