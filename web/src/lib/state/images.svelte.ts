// The images of all machines, followed while somebody looks; and what is asked for with them.
import { api, unwrap } from '$lib/api/client';
import { ProblemError, problemOf, problemOfBody } from '$lib/api/problem';
import type { AddImage, Image, ImageList, Operation, Problem } from '$lib/api/types';
import { contentRange, digestHeader, type ImagePlace, uploadQuery } from '$lib/model/images';
import { isFinished } from '$lib/model/operation';
import { oneAtATime } from './again';
import { freshKey } from './ask';
import { events } from './events.svelte';
import { operations } from './operations.svelte';
import { toasts } from './toasts.svelte';

const REFRESH_MS = 400;

class Images {
	list = $state.raw<ImageList | null>(null);
	problem = $state.raw<Problem | null>(null);
	#timer: ReturnType<typeof setTimeout> | null = null;
	#status = new Map<string, string>();

	/** Follows what changes them until the returned function is called. */
	follow(): () => void {
		void this.load();
		return events.subscribe((event) => {
			if (event.type === 'reload') this.soon();
			// What fetches an image, and what makes and ends its users.
			else if (event.type === 'operation' && isFinished(event.operation) && ['pull_image', 'create', 'clone', 'purge'].includes(event.operation.kind)) this.soon();
			else if (event.type === 'agent' && this.#status.get(event.agent.id) !== event.agent.status) {
				this.#status.set(event.agent.id, event.agent.status);
				this.soon();
			}
		});
	}

	/** Fetches all of them; asked during a fetch, once more after it. */
	readonly load = oneAtATime(() => this.#load());

	async #load(): Promise<void> {
		try {
			this.list = await unwrap(api.GET('/api/v1/images'));
			this.problem = null;
		} catch (thrown) {
			this.problem = problemOf(thrown);
		}
	}

	soon(): void {
		this.#timer ??= setTimeout(() => {
			this.#timer = null;
			void this.load();
		}, REFRESH_MS);
	}
}

export const images = new Images();

/** Brings an image to a machine; tells when that cannot be asked for, and how it went. */
export async function pull(agent: string, name: string, driver?: Image['driver']): Promise<void> {
	try {
		const params = { path: { agent, image: name } };
		const headers = { 'Idempotency-Key': freshKey() };
		const operation = await unwrap(api.POST('/api/v1/agents/{agent}/images/{image}/pull', { params, headers, body: { driver: driver ?? null } }));
		operations.whenFinished(operation, tellPull);
	} catch (thrown) {
		toasts.failure(`Cannot pull ${name}`, thrown);
	}
}

function tellPull(operation: Operation): void {
	const name = operation.image ?? '';
	if (operation.state === 'succeeded') toasts.show({ tone: 'good', title: `${name} is on ${operation.agent_id}` });
	else if (operation.state === 'failed') toasts.show({ tone: 'bad', title: `Could not pull ${name}`, detail: operation.error?.detail });
}

/** Takes an image off a machine; whether it went. */
export async function removeImage(image: Image): Promise<boolean> {
	try {
		const params = { path: { agent: image.agent_id, image: image.name }, query: { driver: image.driver } };
		await unwrap(api.DELETE('/api/v1/agents/{agent}/images/{image}', { params }));
		toasts.show({
			tone: 'info',
			title: `${image.name} is removed from ${image.agent_id}`,
			action: image.own ? undefined : { title: 'Pull it again', run: () => void pull(image.agent_id, image.name, image.driver) }
		});
		return true;
	} catch (thrown) {
		toasts.failure(`Cannot remove ${image.name}`, thrown);
		return false;
	} finally {
		images.soon();
	}
}

export async function addImage(agent: string, add: AddImage): Promise<void> {
	await unwrap(api.POST('/api/v1/agents/{agent}/images', { params: { path: { agent } }, body: add }));
	await images.load();
}

/** A file on its way to a machine. */
export type Upload = { done: Promise<void>; cancel: () => void };

/** How long to try to come back after a cut, since something last moved. */
const PATIENCE = 5 * 60_000;
/** Between tries. */
const PAUSE = 1000;
/** The link to the machine was cut, or it is asked too much: both pass. */
const PASSES = [429, 503, 504];

/** Sends a file; what is cut off is gone on with. `progress` hears how many bytes have gone, and whether it is cut off now. */
export function upload(place: ImagePlace, add: AddImage, file: Blob, progress: (bytes: number, cut: boolean) => void): Upload {
	const stop = new AbortController();
	const address = `/api/v1/agents/${encodeURIComponent(place.agent)}/images/${encodeURIComponent(add.name)}/content${uploadQuery(add, freshKey())}`;
	const work = async () => {
		let offset = 0;
		let moved = Date.now();
		for (;;) {
			const sent = await send(address, add, file, offset, stop.signal, (bytes) => {
				moved = Date.now();
				progress(offset + bytes, false);
			});
			if (sent.status === 201) return;
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
	return { done: work().then(() => images.load()), cancel: () => stop.abort() };
}

/** One try, from an offset on; status 0 is a cut. `fetch` cannot tell how far it is. */
function send(address: string, add: AddImage, file: Blob, offset: number, stop: AbortSignal, progress: (bytes: number) => void): Promise<{ status: number; text: string }> {
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
		const digest = digestHeader(add.sha256 ?? '');
		if (digest) request.setRequestHeader('Repr-Digest', digest);
		request.send(file.slice(offset));
	});
}

/** How much of it the machine has; `null` where that cannot be known now. */
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
