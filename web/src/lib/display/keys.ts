// Text as keys of a US keyboard: what a boot menu or a log-in prompt takes, which know no clipboard.

/** One press: `keysym` is X's name of what is typed, `code` the key as `KeyboardEvent.code` has it. */
export type Press = { keysym: number; code: string; shift: boolean };

/** Longest text that is typed at once: at some twenty keys a second it takes a minute. */
export const MAX_TYPED = 1000;
/** Between two presses, in milliseconds: a VM takes each key from a short queue, with 10 ms for each way of it. */
export const PRESS_EVERY = 50;

export const SHIFT = { keysym: 0xffe1, code: 'ShiftLeft' };

const PLAIN: Record<string, string> = {
	' ': 'Space', '`': 'Backquote', '-': 'Minus', '=': 'Equal', '[': 'BracketLeft', ']': 'BracketRight', '\\': 'Backslash',
	';': 'Semicolon', "'": 'Quote', ',': 'Comma', '.': 'Period', '/': 'Slash'
};
const SHIFTED: Record<string, string> = {
	'~': 'Backquote', _: 'Minus', '+': 'Equal', '{': 'BracketLeft', '}': 'BracketRight', '|': 'Backslash', ':': 'Semicolon',
	'"': 'Quote', '<': 'Comma', '>': 'Period', '?': 'Slash',
	'!': 'Digit1', '@': 'Digit2', '#': 'Digit3', $: 'Digit4', '%': 'Digit5', '^': 'Digit6', '&': 'Digit7', '*': 'Digit8', '(': 'Digit9', ')': 'Digit0'
};

/** The press that types a character; `null` where a US keyboard has none. */
export function press(character: string): Press | null {
	if (character === '\n') return { keysym: 0xff0d, code: 'Enter', shift: false };
	if (character === '\t') return { keysym: 0xff09, code: 'Tab', shift: false };
	const keysym = character.charCodeAt(0);
	if (/^[a-z]$/.test(character)) return { keysym, code: `Key${character.toUpperCase()}`, shift: false };
	if (/^[A-Z]$/.test(character)) return { keysym, code: `Key${character}`, shift: true };
	if (/^[0-9]$/.test(character)) return { keysym, code: `Digit${character}`, shift: false };
	const plain = PLAIN[character];
	if (plain) return { keysym, code: plain, shift: false };
	const shifted = SHIFTED[character];
	return shifted ? { keysym, code: shifted, shift: true } : null;
}

/** The presses that type a text, and how many of its characters have none. */
export function presses(text: string): { presses: Press[]; missing: number } {
	const all = [...text.replaceAll('\r\n', '\n').replaceAll('\r', '\n')].map(press);
	const there = all.filter((one) => one !== null);
	return { presses: there, missing: all.length - there.length };
}
