// Images in words, and what an image that is added has to say of itself.
import type { AddImage, AgentImages, Image, ImageStore } from '$lib/api/types';
import { quote } from './cli';
import { bytesOf, formatBytes } from './size';

/** A machine and one of its drivers. */
export type ImagePlace = { agent: string; driver: ImageStore['driver'] };

/** The images of one machine, with what is known of where they lie. */
export type MachineImages = { agent: string; error: string | null; stores: ImageStore[]; images: Image[] };

/** By machine, in the order of `agents`; only those that have some, where words are looked for. */
export function byMachine(items: Image[], agents: AgentImages[], words: string): MachineImages[] {
	const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
	const groups = agents.map(({ agent_id, error, stores }) => ({
		agent: agent_id,
		error: error ?? null,
		stores,
		images: items.filter((image) => image.agent_id === agent_id && matches(image, wanted))
	}));
	return wanted.length === 0 ? groups : groups.filter((group) => group.images.length > 0);
}

function matches(image: Image, words: string[]): boolean {
	const text = [image.name, ...(image.aliases ?? []), image.title, image.origin, image.agent_id].join(' ').toLowerCase();
	return words.every((word) => text.includes(word));
}

/** What lies on the machine of an image: `on the machine, 612 MiB`. */
export function hereText(image: Pick<Image, 'cached' | 'size_on_disk' | 'download_size'>): string {
	const size = bytesOf(image.size_on_disk);
	if (image.cached) return size === null ? 'on the machine' : `on the machine, ${formatBytes(size)}`;
	if (size) return `an older one, ${formatBytes(size)}`;
	return image.download_size ? `not yet, ${formatBytes(image.download_size)} to fetch` : 'not yet';
}

/** How full the place of images is: `3.2 GiB of images · kept below 10 GiB · 40 GiB free`. */
export function storeText(store: ImageStore): string {
	const parts: string[] = [];
	if (bytesOf(store.used) !== null) parts.push(`${formatBytes(store.used)} of images`);
	if (bytesOf(store.limit) !== null) parts.push(`kept below ${formatBytes(store.limit)}`);
	if (bytesOf(store.free) !== null) parts.push(`${formatBytes(store.free)} free`);
	return parts.join(' · ');
}

const SHA256 = /^[0-9a-f]{64}$/i;
const NAME = /^(?!file:|https?:)[a-z0-9]([a-z0-9.:_-]{0,61}[a-z0-9])?$/;

/** What is wrong with a name that an image is to have. */
export function nameError(name: string): string | null {
	return NAME.test(name) ? null : 'lower-case letters, digits, dots, colons, hyphens and underscores; a letter or digit first and last';
}

export function sumError(sum: string): string | null {
	return SHA256.test(sum) ? null : 'a SHA-256 has 64 hexadecimal digits';
}

/** The names in a list with commas or spaces between. */
export function namesOf(text: string): string[] {
	return text.split(/[\s,]+/).filter(Boolean);
}

/** A checksum as HTTP has it (RFC 9530); `null` where it is none. */
export function digestHeader(sha256: string): string | null {
	if (!SHA256.test(sha256)) return null;
	const bytes = sha256.match(/../g) ?? [];
	return `sha-256=:${btoa(bytes.map((pair) => String.fromCharCode(parseInt(pair, 16))).join(''))}:`;
}

/** What comes of a file that is sent from an offset on, as HTTP has it. */
export function contentRange(offset: number, size: number): string {
	return offset < size ? `bytes ${offset}-${size - 1}/${size}` : `bytes */${size}`;
}

/** What is said of an upload in its address; `upload` is its name, by which it is gone on with. */
export function uploadQuery(add: Pick<AddImage, 'aliases' | 'title' | 'user' | 'driver'>, upload?: string): string {
	const parameters = new URLSearchParams();
	if (add.aliases && add.aliases.length > 0) parameters.set('aliases', add.aliases.join(','));
	if (add.title) parameters.set('title', add.title);
	if (add.user) parameters.set('user', add.user);
	if (add.driver) parameters.set('driver', add.driver);
	if (upload) parameters.set('upload', upload);
	const text = parameters.toString();
	return text ? `?${text}` : '';
}

/** The command that adds the same. */
export function addCommand(agent: string, add: AddImage, file: string | null): string {
	const parts = ['batwa images', file === null ? 'add' : 'upload', quote(add.name || 'NAME')];
	if (file !== null) parts.push(quote(file || 'FILE'));
	else parts.push(quote(add.url || add.file || 'SOURCE'));
	if (file === null && add.sha256) parts.push(`--sha256 ${quote(add.sha256)}`);
	for (const alias of add.aliases ?? []) parts.push(`--alias ${quote(alias)}`);
	if (add.title) parts.push(`--title ${quote(add.title)}`);
	if (add.user) parts.push(`--user ${quote(add.user)}`);
	parts.push(`--agent ${quote(agent)}`);
	return parts.join(' ');
}
