import { describe, expect, test } from 'vitest';
import { changes, cpusError, diskError, memoryError, nearest, sizeOf, steps, type Limits } from './resize';

const GIB = 1024 ** 3;
const limits: Limits = { machine: 'lab', cpus: 4, memory: 8 * GIB, disk: 100 * GIB, diskFree: 50 * GIB };
const unknown: Limits = { machine: 'the machine', cpus: null, memory: null, disk: null, diskFree: null };

describe('limits', () => {
	test('are those of the machine, where it has told them', () => {
		expect(cpusError('4', limits)).toBeNull();
		expect(cpusError('5', limits)).toBe('lab has 4 CPUs');
		expect(cpusError('5', unknown)).toBeNull();
		for (const wrong of ['', '0', '1.5', '-1', 'two', '1e3']) expect(cpusError(wrong, limits), wrong).not.toBeNull();
		expect(memoryError('8G', limits)).toBeNull();
		expect(memoryError('9G', limits)).toMatch(/8 GiB/);
		expect(memoryError('1M', limits)).toMatch(/at least/);
		expect(memoryError('much', limits)).toMatch(/a number/);
	});
	test('a disk only grows', () => {
		expect(diskError('10G', 10 * GIB, limits)).toBeNull();
		expect(diskError('9G', 10 * GIB, limits)).toMatch(/only grows/);
		expect(diskError('101G', 10 * GIB, limits)).toMatch(/100 GiB/);
	});
});

describe('what changes', () => {
	const vm = { cpus: 2, memory: 2 * GIB, disk: 10 * GIB };
	test('is only what is not so already', () => {
		expect(changes(vm, sizeOf(vm))).toEqual({ cpus: null, memory: null, disk: null });
		expect(changes(vm, { cpus: '3', memory: '2048M', disk: '20G' })).toEqual({ cpus: 3, memory: null, disk: 20 * GIB });
	});
	test('a size that is not known is left alone until it is typed', () => {
		const nothing = { cpus: null, memory: null, disk: null };
		expect(changes(nothing, sizeOf(nothing))).toEqual(nothing);
	});
});

describe('where sliders stop', () => {
	test('begins and ends at the limits, and grows', () => {
		const all = steps(128 * 1024 ** 2, 12.5 * GIB);
		expect(all[0]).toBe(128 * 1024 ** 2);
		expect(all.at(-1)).toBe(12 * GIB);
		expect(all).toEqual([...all].sort((a, b) => a - b));
		expect(all).toContain(2 * GIB);
		expect(steps(5 * GIB, 5 * GIB)).toEqual([5 * GIB]);
		expect(all[nearest(all, 2.1 * GIB)]).toBe(2 * GIB);
	});
});
