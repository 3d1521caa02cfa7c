import { describe, expect, test } from 'vitest';
import { isAnswer, keyBytes, withControl } from './keys';
import { copied, linesRun, MOST_COPIED, oneLine } from './paste';

const osc = (text: string) => `c;${btoa(String.fromCharCode(...new TextEncoder().encode(text)))}`;

describe('keys that a phone does not have', () => {
	test('arrows are of the kind that the program asked for', () => {
		expect(keyBytes('↑', false)).toBe('\x1b[A');
		expect(keyBytes('↑', true)).toBe('\x1bOA');
		expect(keyBytes('Esc', true)).toBe('\x1b');
		expect(keyBytes('|', true)).toBe('|');
	});
	test('Ctrl makes control characters, and nothing of what has none', () => {
		expect(withControl('c')).toBe('\x03');
		expect(withControl('C')).toBe('\x03');
		expect(withControl('[')).toBe('\x1b');
		expect(withControl(' ')).toBe('\0');
		for (const none of ['1', 'ü', 'cc', '\x1b[A', '']) expect(withControl(none)).toBe(none);
	});
});

describe('what a terminal says by itself', () => {
	test('is told from keys', () => {
		for (const answer of ['\x1b[?1;2c', '\x1b[>0;276;0c', '\x1b[0n', '\x1b[12;1R', '\x1b[?2026;2$y', '\x1bP1$r0m\x1b\\', '\x1b]11;rgb:ffff/ffff/ffff\x1b\\'])
			expect(isAnswer(answer), JSON.stringify(answer)).toBe(true);
		for (const key of ['c', '12R', '\x1b', '\x1b[A', '\x1bOA', '\x1b[1;5C', '\x1b[15~', '\x1bx', '\x1b[200~pasted\x1b[201~', '\x1b[<0;3;4M', '\x1b[I'])
			expect(isAnswer(key), JSON.stringify(key)).toBe(false);
	});
});

describe('pasting', () => {
	test('lines count where the shell would run them', () => {
		expect(linesRun('ls', false)).toBe(0);
		expect(linesRun('ls\n', false)).toBe(1);
		expect(linesRun('a\r\nb\rc\nd', false)).toBe(3);
		expect(linesRun('a\nb\n', true)).toBe(0);
	});
	test('several lines can be made one', () => {
		expect(oneLine('  apt install \n\n  htop\r\n')).toBe('apt install htop');
	});
});

describe('what a program puts into the clipboard', () => {
	test('is read as UTF-8', () => expect(copied(osc('grüße 🦀'))).toBe('grüße 🦀'));
	test('is nothing when it asks to read, is empty, no base64, no text, or too long', () => {
		for (const wrong of ['c;?', 'c;', 'c', '', 'c;%%%', 'c;/w==', osc('x'.repeat(MOST_COPIED + 1))]) expect(copied(wrong), wrong.slice(0, 20)).toBeNull();
	});
});
