// Sizes that a VM can have on its machine: where sliders stop, and what is wrong with what one typed.
import type { Agent, Vm } from '$lib/api/types';
import { bytesOf, formatBytes, parseSize, writeSize } from './size';

const MIB = 1024 ** 2;
const GIB = 1024 ** 3;
export const LEAST_MEMORY = 128 * MIB;
export const LEAST_DISK = 512 * MIB;

export type Limits = {
	/** What people call the machine. */
	machine: string;
	cpus: number | null;
	memory: number | null;
	disk: number | null;
	/** What is free of its disk now, for a warning: a virtual disk takes its space as it fills. */
	diskFree: number | null;
};

/** What the machine has, as far as it has said. */
export function limitsOf(agent: Agent | undefined): Limits {
	const host = agent?.info?.host;
	return {
		machine: agent?.name ?? 'the machine',
		cpus: host?.cpus ?? null,
		memory: bytesOf(host?.memory),
		disk: bytesOf(host?.disk_total),
		diskFree: bytesOf(host?.disk_free)
	};
}

/** Sizes worth stopping at from `least` to `most`, both among them: halves of a power of two, then whole GiB. */
export function steps(least: number, most: number): number[] {
	const found = new Set([least]);
	for (let power = 128 * MIB; power <= most; power *= 2)
		for (const size of [power, power * 1.5]) if (size > least && size < most) found.add(size);
	if (most > least) found.add(most >= GIB ? Math.floor(most / GIB) * GIB : most);
	return [...found].filter((size) => size >= least && size <= most).sort((a, b) => a - b);
}

/** The step nearest to a size. */
export function nearest(all: readonly number[], size: number): number {
	let best = 0;
	all.forEach((step, i) => {
		if (Math.abs(step - size) < Math.abs((all[best] ?? 0) - size)) best = i;
	});
	return best;
}

export function cpusError(text: string, limits: Limits): string | null {
	const count = Number(text);
	if (!/^\d{1,5}$/.test(text.trim()) || count < 1) return 'a whole number, at least 1';
	return limits.cpus !== null && count > limits.cpus ? `${limits.machine} has ${limits.cpus} CPUs` : null;
}

function sizeError(text: string, least: number, most: number | null, limits: Limits, what: string): string | null {
	const bytes = parseSize(text);
	if (bytes === null) return 'a number with M, G or T, such as 512M or 2G';
	if (bytes < least) return `at least ${writeSize(least)}`;
	return most !== null && bytes > most ? `${limits.machine} has ${formatBytes(most)} ${what}` : null;
}

export function memoryError(text: string, limits: Limits): string | null {
	return sizeError(text, LEAST_MEMORY, limits.memory, limits, 'memory');
}

/** A disk only grows: what is on it would not fit any more, and nobody could tell. */
export function diskError(text: string, now: number | null, limits: Limits): string | null {
	const bytes = parseSize(text);
	if (bytes !== null && now !== null && bytes < now) return `a disk only grows; it has ${formatBytes(now)}`;
	return sizeError(text, LEAST_DISK, limits.disk, limits, 'disk');
}

export type Size = { cpus: string; memory: string; disk: string };

/** A size as it is typed. */
export function sizeOf(vm: Pick<Vm, 'cpus' | 'memory' | 'disk'>): Size {
	const text = (size: number | null) => (size === null ? '' : writeSize(size));
	return { cpus: vm.cpus ? String(vm.cpus) : '', memory: text(bytesOf(vm.memory)), disk: text(bytesOf(vm.disk)) };
}

/** What is to change; fields that say what is so already are left out. */
export function changes(vm: Pick<Vm, 'cpus' | 'memory' | 'disk'>, size: Size): { cpus: number | null; memory: number | null; disk: number | null } {
	const other = <T>(value: T | null, now: T | null) => (value === now ? null : value);
	return {
		cpus: size.cpus.trim() ? other(Number(size.cpus), vm.cpus ?? null) : null,
		memory: other(parseSize(size.memory), bytesOf(vm.memory)),
		disk: other(parseSize(size.disk), bytesOf(vm.disk))
	};
}
