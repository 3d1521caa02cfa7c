// Sizes: bytes, or Multipass' text (`512M`, `1.5GiB`), as `batwa-api` reads them.
import type { ByteSize } from '$lib/api/types';

const UNITS = ['', 'K', 'M', 'G', 'T'] as const;

/** The bytes of a size as people write it; `null` when it is none. */
export function parseSize(text: string): number | null {
	const match = /^\s*(\d+)(\.\d{1,9})?\s*([kmgt]?)(i?b)?\s*$/i.exec(text);
	if (!match) return null;
	const [, whole = '', fraction = '', unit = ''] = match;
	if (fraction && !unit) return null;
	const shift = UNITS.indexOf(unit.toUpperCase() as (typeof UNITS)[number]);
	const bytes = Math.floor(Number(whole + fraction) * 1024 ** shift);
	return Number.isSafeInteger(bytes) ? bytes : null;
}

/** The bytes of a size on the wire; `null` when it is absent or unreadable. */
export function bytesOf(size: ByteSize | null | undefined): number | null {
	if (size === null || size === undefined) return null;
	return typeof size === 'number' ? size : parseSize(size);
}

/** Bytes for people: `512 MiB`, `1.5 GiB`. */
export function formatBytes(size: ByteSize | null | undefined): string {
	const bytes = bytesOf(size);
	if (bytes === null) return '–';
	let value = bytes;
	let unit = 0;
	while (value >= 1024 && unit < UNITS.length - 1) {
		value /= 1024;
		unit += 1;
	}
	const digits = value >= 100 || Number.isInteger(value) ? 0 : 1;
	return `${value.toFixed(digits)} ${unit === 0 ? 'B' : `${UNITS[unit] ?? ''}iB`}`;
}

/** Bytes as one writes them on the command line: the largest unit that leaves no remainder. */
export function writeSize(bytes: number): string {
	for (let unit = UNITS.length - 1; unit > 0; unit -= 1) {
		const scale = 1024 ** unit;
		if (bytes >= scale && bytes % scale === 0) return `${bytes / scale}${UNITS[unit] ?? ''}`;
	}
	return String(bytes);
}
