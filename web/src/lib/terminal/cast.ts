// asciicast v2, as Batwa's agents write it: https://docs.asciinema.org/manual/asciicast/v2/. Pure.

export type CastEvent =
	| { at: number; kind: 'output'; text: string }
	| { at: number; kind: 'resize'; cols: number; rows: number }
	| { at: number; kind: 'input' | 'mark'; text: string };

export type Cast = { cols: number; rows: number; events: CastEvent[] };

/** Longest pause that is played where idle time is skipped, in seconds. */
export const IDLE_LIMIT = 2;
/** A recording asks for no screen larger than this. */
const MAX_SIDE = 1000;

/** Reads a file; lines that are none, such as one that was cut off, are passed over. `null` when it is no recording. */
export function readCast(file: string): Cast | null {
	const lines = file.split('\n');
	const header = parse(lines[0] ?? '');
	if (typeof header !== 'object' || header === null || Array.isArray(header)) return null;
	const { version, width, height } = header as Record<string, unknown>;
	if (version !== 2 || !isSide(width) || !isSide(height)) return null;
	const events: CastEvent[] = [];
	let last = 0;
	for (const line of lines.slice(1)) {
		const value = line ? parse(line) : null;
		if (!Array.isArray(value) || value.length < 3) continue;
		const [time, code, text] = value as unknown[];
		if (typeof time !== 'number' || !Number.isFinite(time) || typeof text !== 'string') continue;
		// Time does not run backwards.
		const at = (last = Math.max(last, time));
		if (code === 'o') events.push({ at, kind: 'output', text });
		else if (code === 'i') events.push({ at, kind: 'input', text });
		else if (code === 'm') events.push({ at, kind: 'mark', text });
		else if (code === 'r') {
			const [cols, rows] = text.split('x').map(Number);
			if (isSide(cols) && isSide(rows)) events.push({ at, kind: 'resize', cols, rows });
		}
	}
	return { cols: width, rows: height, events };
}

function parse(line: string): unknown {
	try {
		return JSON.parse(line);
	} catch {
		return null;
	}
}

function isSide(value: unknown): value is number {
	return typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= MAX_SIDE;
}

/** When each event is played: pauses above `idle` seconds are cut to that; `null` plays them as they were. */
export function timeline(events: readonly CastEvent[], idle: number | null): number[] {
	let played = 0;
	let before = 0;
	return events.map(({ at }) => {
		const pause = at - before;
		before = at;
		played += idle === null ? pause : Math.min(pause, idle);
		return played;
	});
}
