import { expect, test } from 'vitest';
import { press, presses } from './keys';

test('every character of ASCII that is printed has a key, and no two the same', () => {
	const keys = new Set<string>();
	for (let code = 32; code < 127; code += 1) {
		const character = String.fromCharCode(code);
		const found = press(character);
		expect(found?.keysym, character).toBe(code);
		keys.add(`${found?.code} ${found?.shift}`);
	}
	expect(keys.size).toBe(95);
});

test('a text is typed line by line, and what has no key is counted', () => {
	const { presses: keys, missing } = presses('A1\r\né\t…b');
	expect(keys.map((key) => key.code)).toEqual(['KeyA', 'Digit1', 'Enter', 'Tab', 'KeyB']);
	expect(keys[0]?.shift).toBe(true);
	expect(missing).toBe(2);
});
