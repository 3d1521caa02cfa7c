// What the search box holds: `state:running agent:lab-* label:env=prod -label:old memory>4G "free words"`.
//
// The master reads it and says what is wrong; here it is only taken apart, to colour it, to complete it, and to
// change one field of it by a click. So everything is read, and nothing is refused.
import type { Problem } from '$lib/api/types';

export type Value = { text: string; from: number; to: number };
export type Token = {
	from: number;
	to: number;
	negated: boolean;
	/** The field in lower case; `null` for words. */
	field: string | null;
	op: string;
	values: Value[];
};

const FIELD = /^([A-Za-z_]+)(>=|<=|[:=<>])/;

/** The parts of a search, in order, with their places in the text. */
export function tokens(text: string): Token[] {
	const found: Token[] = [];
	let at = 0;
	while (at < text.length) {
		if (/\s/.test(text[at] ?? '')) {
			at += 1;
			continue;
		}
		const from = at;
		const negated = text[at] === '-' && /\S/.test(text[at + 1] ?? '');
		if (negated) at += 1;
		const match = FIELD.exec(text.slice(at));
		if (match) at += match[0].length;
		const values: Value[] = [];
		for (;;) {
			const value = readValue(text, at, match !== null);
			values.push(value);
			at = value.to;
			if (match === null || text[at] !== ',') break;
			at += 1;
		}
		found.push({ from, to: at, negated, field: match?.[1]?.toLowerCase() ?? null, op: match?.[2] ?? '', values });
	}
	return found;
}

function readValue(text: string, from: number, inField: boolean): Value {
	let at = from;
	let value = '';
	let quoted = false;
	for (; at < text.length; at += 1) {
		const c = text[at] ?? '';
		if (quoted && c === '\\' && /["\\]/.test(text[at + 1] ?? '')) {
			at += 1;
			value += text[at];
		} else if (c === '"') quoted = !quoted;
		else if (!quoted && (/\s/.test(c) || (inField && c === ','))) break;
		else value += c;
	}
	return { text: value, from, to: at };
}

/** A value as it has to be typed. */
export function quoteValue(value: string): string {
	return /^[^\s",\\-][^\s",\\]*$/.test(value) ? value : `"${value.replaceAll(/["\\]/g, '\\$&')}"`;
}

const same = (field: string | null, wanted: string) => field === wanted || (wanted === 'agent' && field === 'machine');
const asks = (token: Token, field: string) => same(token.field, field) && !token.negated && token.op === ':';

/** What the search wants a field to be; empty when it does not ask. */
export function valuesOf(text: string, field: string): string[] {
	return tokens(text)
		.filter((token) => asks(token, field))
		.flatMap((token) => token.values.map((value) => value.text))
		.filter(Boolean);
}

/** Whether the search says anything of a field, be it that it must not be something. */
export function speaksOf(text: string, field: string): boolean {
	return tokens(text).some((token) => same(token.field, field));
}

/** The text with what a field must be replaced by these alternatives, or taken out. */
export function withField(text: string, field: string, values: string[]): string {
	const kept = tokens(text).filter((token) => !asks(token, field));
	const rest = kept.map((token) => text.slice(token.from, token.to));
	return (values.length === 0 ? rest : [`${field}:${values.map(quoteValue).join(',')}`, ...rest]).join(' ');
}

/** The text with one alternative of a field put in or taken out. */
export function toggled(text: string, field: string, value: string): string {
	const values = valuesOf(text, field);
	return withField(text, field, values.includes(value) ? values.filter((other) => other !== value) : [...values, value]);
}

/** The same for fields that can hold several things at once, as labels do: each value is a term of its own. */
export function toggledTerm(text: string, field: string, value: string): string {
	const term = `${field}:${quoteValue(value)}`;
	const all = tokens(text);
	const there = all.filter((token) => asks(token, field) && token.values.length === 1 && token.values[0]?.text === value);
	if (there.length === 0) return [text.trim(), term].filter(Boolean).join(' ');
	return all
		.filter((token) => !there.includes(token))
		.map((token) => text.slice(token.from, token.to))
		.join(' ');
}

/** What somebody with the caret at `at` is writing, and which part of the text that is. */
export type Writing = {
	from: number;
	to: number;
	/** The field whose value it is; `null` for words, which may become a field; empty where nothing can be offered. */
	field: string | null;
	prefix: string;
};

export function writingAt(text: string, at: number): Writing {
	const token = tokens(text).find((one) => one.from <= at && at <= one.to);
	if (!token) return { from: at, to: at, field: null, prefix: '' };
	if (token.field === null) {
		const from = token.from + (token.negated ? 1 : 0);
		return { from, to: token.to, field: null, prefix: text.slice(from, at) };
	}
	const value = token.values.find((one) => one.from <= at && at <= one.to);
	// The caret stands in the field's name: nothing to complete there.
	if (!value) return { from: at, to: at, field: '', prefix: '' };
	return { from: value.from, to: value.to, field: token.op === ':' || token.op === '=' ? token.field : '', prefix: text.slice(value.from, at).replaceAll('"', '') };
}

/** The text with what is being written replaced, and where the caret goes. */
export function complete(text: string, writing: Writing, by: string, then = ' '): { text: string; caret: number } {
	const after = text.slice(writing.to);
	const gap = after.startsWith(then) ? '' : then;
	return { text: text.slice(0, writing.from) + by + gap + after, caret: writing.from + by.length + then.length };
}

/** What the master found wrong with a search, and where. */
export type SearchError = { at: number; message: string };

export function searchError(problem: Problem | null): SearchError | null {
	const said = problem?.errors?.find((error) => error.field === 'q')?.message;
	if (said === undefined) return null;
	const match = /^at character (\d+): (.*)$/s.exec(said);
	return match ? { at: Number(match[1]) - 1, message: match[2] ?? '' } : { at: 0, message: said };
}
