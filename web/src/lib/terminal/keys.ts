// Keys that a phone does not have, as the bytes that a terminal sends for them.

export type TouchKey = 'Esc' | 'Tab' | '←' | '↑' | '↓' | '→' | 'Home' | 'End' | '|' | '~' | '/' | '-';

const LETTERS: Partial<Record<TouchKey, string>> = { '←': 'D', '↑': 'A', '↓': 'B', '→': 'C', Home: 'H', End: 'F' };

/** The bytes of a key; full-screen programs ask for arrows of another kind. */
export function keyBytes(key: TouchKey, application: boolean): string {
	if (key === 'Esc') return '\x1b';
	if (key === 'Tab') return '\t';
	const letter = LETTERS[key];
	return letter ? `\x1b${application ? 'O' : '['}${letter}` : key;
}

/**
 * Whether this is what a terminal answers when a program asks it for its kind, its state, the cursor's place or a
 * colour; what people press looks otherwise.
 */
export function isAnswer(text: string): boolean {
	// eslint-disable-next-line no-control-regex -- that is what they begin with
	return /^\x1b(?:\[[?>=]?[\d;]*(?:[cnRtx]|\$y)|[P\]_])/.test(text);
}

/** What is typed while Ctrl is held: `c` is 3. What has no such form stays as it is. */
export function withControl(text: string): string {
	if (text.length !== 1) return text;
	const char = text.toUpperCase();
	if (char === ' ') return '\0';
	if (char === '?') return '\x7f';
	return char >= '@' && char <= '_' ? String.fromCharCode(char.charCodeAt(0) & 31) : text;
}
