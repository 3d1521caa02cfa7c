import { expect, test } from 'vitest';
import { contentRange } from './sending';

test('what is left of a file is said as HTTP has it', () => {
	expect([contentRange(0, 9), contentRange(4, 9), contentRange(9, 9)]).toEqual(['bytes 0-8/9', 'bytes 4-8/9', 'bytes */9']);
});
