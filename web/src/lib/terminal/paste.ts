// What is pasted into a shell, and what a program in the VM may put into the clipboard.

/** Longest text that a program may put into the clipboard. */
export const MOST_COPIED = 100_000;

/**
 * How many lines a paste would run at once; 0 when nothing runs before one presses Enter. A shell that knows
 * bracketed paste shows the lines instead of running them.
 */
export function linesRun(text: string, bracketed: boolean): number {
	if (bracketed) return 0;
	return text.split(/\r\n|\r|\n/).length - 1;
}

/** The lines as one, for those who meant one: without the line ends and what surrounds them. */
export function oneLine(text: string): string {
	return text
		.split(/\r\n|\r|\n/)
		.map((line) => line.trim())
		.filter(Boolean)
		.join(' ');
}

/** The text that OSC 52 asks to be copied; `null` when it asks to read the clipboard, which is never told, or says nothing good. */
export function copied(data: string): string | null {
	const at = data.indexOf(';');
	const encoded = at < 0 ? '' : data.slice(at + 1);
	if (!encoded || encoded === '?' || encoded.length > MOST_COPIED * 2) return null;
	try {
		const bytes = Uint8Array.from(atob(encoded), (char) => char.charCodeAt(0));
		const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
		return text && text.length <= MOST_COPIED ? text : null;
	} catch {
		return null;
	}
}
