import { describe, expect, it } from 'vitest';
import { readCast, timeline } from './cast';
import { Player } from './player';

const FILE = [
	'{"version":2,"width":80,"height":24,"timestamp":1,"batwa":{"user":"ann"}}',
	'[0.5,"o","one "]',
	'[1.0,"r","100x30"]',
	'[1.5,"i","x"]',
	'[61.5,"o","two "]',
	'[62.0,"o","three"]',
	'[62.0,"m","ended: the shell ended"]',
	'[63.0,"o","cut of'
].join('\n');

function played() {
	let screen = '';
	let size = '';
	const cast = readCast(FILE);
	if (!cast) throw new Error('no recording');
	const player = new Player(cast, {
		write: (text) => (screen += text),
		resize: (cols, rows) => (size = `${cols}x${rows}`),
		reset: () => (screen = '')
	});
	return { player, screen: () => screen, size: () => size };
}

describe('recordings', () => {
	it('are read as far as they are whole', () => {
		const cast = readCast(FILE);
		expect(cast?.events.map((event) => event.kind)).toEqual(['output', 'resize', 'input', 'output', 'output', 'mark']);
	});

	it('that are none are said to be none', () => {
		for (const file of ['', '[]', 'x', '{"version":1,"width":80,"height":24}', '{"version":2,"width":1e9,"height":24}', '{"version":2}'])
			expect(readCast(file), file).toBeNull();
	});

	it('have their pauses cut', () => {
		expect(timeline(readCast(FILE)?.events ?? [], 2)).toEqual([0.5, 1, 1.5, 3.5, 4, 4]);
		expect(timeline(readCast(FILE)?.events ?? [], null).at(-1)).toBe(62);
	});

	it('are played as time passes, and again from any place', () => {
		const { player, screen, size } = played();
		expect(size()).toBe('80x24');
		player.advance(0.6);
		expect(screen()).toBe('one ');
		player.advance(1);
		expect(size()).toBe('100x30');
		player.advance(100);
		expect([screen(), player.ended, player.position]).toEqual(['one two three', true, 4]);
		player.seek(0.9);
		expect([screen(), size(), player.ended]).toEqual(['one ', '80x24', false]);
		player.seek(3.6);
		expect([screen(), size()]).toEqual(['one two ', '100x30']);
	});

	it('keep their place when idle time is played after all', () => {
		const { player, screen } = played();
		player.seek(3.6);
		player.setSkipIdle(false);
		expect([player.position, player.duration, screen()]).toEqual([61.5, 62, 'one two ']);
		expect(player.placeOf(61.5)).toBe(61.5);
		player.setSkipIdle(true);
		expect(player.placeOf(61.5)).toBe(3.5);
	});
});
