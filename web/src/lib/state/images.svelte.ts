// The images of all machines, followed while somebody looks; and what is asked for with them.
import { api, unwrap } from '$lib/api/client';
import { problemOf } from '$lib/api/problem';
import type { AddImage, Image, ImageList, Operation, Problem } from '$lib/api/types';
import { digestHeader, type ImagePlace, uploadQuery } from '$lib/model/images';
import { isFinished } from '$lib/model/operation';
import { oneAtATime } from './again';
import { freshKey } from './ask';
import { events } from './events.svelte';
import { operations } from './operations.svelte';
import { sendFile, type Progress, type Sending } from './sending';
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

/** Sends a file to be an image of a machine. */
export function upload(place: ImagePlace, add: AddImage, file: Blob, progress: Progress): Sending {
	const address = `/api/v1/agents/${encodeURIComponent(place.agent)}/images/${encodeURIComponent(add.name)}/content${uploadQuery(add, freshKey())}`;
	const digest = digestHeader(add.sha256 ?? '');
	const { done, cancel } = sendFile(address, file, digest ? { 'Repr-Digest': digest } : {}, progress);
	return { done: done.then(() => images.load()), cancel };
}
