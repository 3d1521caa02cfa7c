// A file on its way to a machine or a VM, gone on with after each cut from where the other side says (docs/protocol.md).
import { ProblemError, problemOfBody } from '$lib/api/problem';

/** `cancel` makes `done` an `AbortError`. */
export type Sending = { done: Promise<void>; cancel: () => void };
/** Hears how many bytes have gone, and whether it is cut off now. */
export type Progress = (bytes: number, cut: boolean) => void;

/** How long to try to come back after a cut, since something last moved. */
const PATIENCE = 5 * 60_000;
/** Between tries. */
const PAUSE = 1000;
/** The link to the machine was cut, or it is asked too much: both pass. */
const PASSES = [429, 503, 504];

/** Sends a file to an address, which names the upload, with `PUT`. */
export function sendFile(address: string, file: Blob, headers: Record<string, string>, progress: Progress): Sending {
	const stop = new AbortController();
	const work = async () => {
		let offset = 0;
		let moved = Date.now();
		for (;;) {
			const sent = await send(address, file, offset, headers, stop.signal, (bytes) => {
				moved = Date.now();
				progress(offset + bytes, false);
			});
			if (sent.status >= 200 && sent.status < 300) return;
			const passes = sent.status === 0 || PASSES.includes(sent.status);
			if (!passes || Date.now() - moved > PATIENCE) {
				if (sent.status === 0) throw new TypeError('the upload was cut off');
				throw new ProblemError(problemOfBody(bodyOf(sent.text), sent.status));
			}
			progress(offset, true);
			await pause(stop.signal);
			offset = Math.min((await held(address, stop.signal)) ?? offset, file.size);
		}
	};
	return { done: work(), cancel: () => stop.abort() };
}

/** What comes of a file that is sent from an offset on, as HTTP has it. */
export function contentRange(offset: number, size: number): string {
	return offset < size ? `bytes ${offset}-${size - 1}/${size}` : `bytes */${size}`;
}

/** One try, from an offset on; status 0 is a cut. `fetch` cannot tell how far it is. */
function send(address: string, file: Blob, offset: number, headers: Record<string, string>, stop: AbortSignal, progress: (bytes: number) => void): Promise<{ status: number; text: string }> {
	const request = new XMLHttpRequest();
	return new Promise((resolve, reject) => {
		if (stop.aborted) return reject(cancelled());
		stop.addEventListener('abort', () => request.abort(), { once: true });
		request.upload.addEventListener('progress', (event) => progress(event.loaded));
		request.addEventListener('load', () => resolve({ status: request.status, text: request.responseText }));
		request.addEventListener('error', () => resolve({ status: 0, text: '' }));
		request.addEventListener('abort', () => reject(cancelled()));
		request.open('PUT', address);
		request.setRequestHeader('Content-Type', 'application/octet-stream');
		request.setRequestHeader('Content-Range', contentRange(offset, file.size));
		for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
		request.send(file.slice(offset));
	});
}

/** How much of it has arrived; `null` where that cannot be known now. */
async function held(address: string, signal: AbortSignal): Promise<number | null> {
	try {
		const answer = await fetch(address, { method: 'HEAD', signal });
		const offset = answer.headers.get('Upload-Offset');
		return answer.ok && offset !== null ? Number(offset) : null;
	} catch (thrown) {
		if (signal.aborted) throw cancelled();
		if (thrown instanceof TypeError) return null;
		throw thrown;
	}
}

function pause(signal: AbortSignal): Promise<void> {
	return new Promise((resolve, reject) => {
		const timer = setTimeout(resolve, PAUSE);
		signal.addEventListener('abort', () => {
			clearTimeout(timer);
			reject(cancelled());
		}, { once: true });
	});
}

function cancelled(): DOMException {
	return new DOMException('cancelled', 'AbortError');
}

function bodyOf(text: string): unknown {
	try {
		return JSON.parse(text);
	} catch {
		return null;
	}
}
