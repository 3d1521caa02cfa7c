import { describe, expect, test } from 'vitest';
import { browserName } from './browser';
import { quote } from './cli';
import { expandNames, nameError, proposeName } from './name';
import { createStep, headline, stageText, timeline } from './operation';
import { bestPlace, placeRefusal } from './placement';
import { GRACEFUL, requestCommand } from './request';
import { formatBytes, parseSize, writeSize } from './size';
import { agentMark, vmMark } from './state';
import { formatAgo, formatClock, formatDuration, formatTook } from './time';
import type { Agent, Operation } from '$lib/api/types';

describe('sizes', () => {
	test('are read as the master reads them', () => {
		expect(parseSize('512M')).toBe(512 * 1024 ** 2);
		expect(parseSize('1.5 GiB')).toBe(1.5 * 1024 ** 3);
		expect(parseSize('2gb')).toBe(2 * 1024 ** 3);
		expect(parseSize('1024')).toBe(1024);
		for (const wrong of ['', 'abc', '-1G', '1.5', '1.G', '1 X', '99999999T', '1e9'])
			expect(parseSize(wrong), wrong).toBeNull();
	});
	test('are written so that they can be read back', () => {
		for (const text of ['1', '3K', '512M', '7G', '2T']) expect(writeSize(parseSize(text) ?? -1)).toBe(text);
		expect(formatBytes(1536 * 1024 ** 2)).toBe('1.5 GiB');
		expect(formatBytes(0)).toBe('0 B');
		expect(formatBytes(null)).toBe('–');
	});
});

describe('times', () => {
	const now = Date.parse('2026-01-01T12:00:00Z');
	test('are told in their largest unit', () => {
		expect(formatDuration(61_000)).toBe('1 min');
		expect(formatDuration(47 * 3_600_000)).toBe('47 h');
		expect(formatDuration(49 * 3_600_000)).toBe('2 d');
		expect(formatClock(3_725_000)).toBe('1:02:05');
		expect(formatTook('2026-01-01T12:00:00.000Z', '2026-01-01T12:00:00.640Z')).toBe('0.6 s');
		expect(formatTook('2026-01-01T12:00:00Z', '2026-01-01T12:01:05Z')).toBe('1:05');
	});
	test('clocks that differ a little do not show', () => {
		expect(formatAgo('2026-01-01T12:00:03Z', now)).toBe('just now');
		expect(formatAgo('2026-01-01T11:58:00Z', now)).toBe('2 min ago');
		expect(formatAgo('2026-01-01T12:10:00Z', now)).toBe('in 10 min');
		expect(formatAgo('rubbish', now)).toBe('at an unknown time');
	});
});

describe('names', () => {
	test('follow the rule for new VMs', () => {
		for (const good of ['a', 'web-1', 'Foo', 'a'.repeat(63)]) expect(nameError(good), good).toBeNull();
		for (const bad of ['', '1a', '-a', 'a-', 'a_b', 'a b', '--all', '../x', 'ü', '🦀', 'a'.repeat(64)])
			expect(nameError(bad), bad).not.toBeNull();
	});
	test('a range stands for several', () => {
		expect(expandNames('web-{1..3}')).toEqual(['web-1', 'web-2', 'web-3']);
		expect(expandNames('web')).toEqual(['web']);
		expect(expandNames('web-{3..1}')).toEqual(['web-{3..1}']);
	});
	test('a proposed name is valid and free', () => {
		const taken = new Set<string>();
		for (let i = 0; i < 100; i += 1) {
			const name = proposeName(taken);
			expect(nameError(name)).toBeNull();
			expect(taken.has(name)).toBe(false);
			taken.add(name);
		}
	});
});

const agent = (id: string, free: number, more: Partial<Agent> = {}): Agent => ({
	id,
	name: id,
	status: 'online',
	status_since: '2026-01-01T00:00:00Z',
	link: 'direct',
	api_url: '',
	legacy: false,
	labels: {},
	vm_count: 0,
	cordoned: false,
	info: {
		agent_id: id,
		version: '1',
		protocol_version: 1,
		host: { hostname: id, os: '', arch: 'x86_64', cpus: 4, memory: 8 * 1024 ** 3, memory_available: free },
		drivers: [
			{ kind: 'qemu', capabilities: { shell: true, console: true, display: true, suspend: false, trash: false, cloud_init: true, snapshots: true, clone: true, resize: true, mounts: true, networks: true, images: true, crashes: true, clone_snapshots: true, settings_at_create: true }, health: { status: 'ok', since: '2026-01-01T00:00:00Z' } }
		],
		started_at: '2026-01-01T00:00:00Z',
		clock: '2026-01-01T00:00:00Z'
	},
	...more
});

describe('the best place', () => {
	test('has the most memory free and is able', () => {
		const agents = [agent('a', 1e9), agent('b', 5e9), agent('c', 9e9, { cordoned: true })];
		expect(bestPlace(agents, 1e8)?.agent.id).toBe('b');
		expect(bestPlace(agents, 6e9)?.reason).toContain('only');
		expect(bestPlace([agent('x', 1, { status: 'offline' })], 1)).toBeNull();
		expect(placeRefusal(agent('x', 1, { status: 'pending' }))).toBe('it waits for approval');
	});
});

describe('states', () => {
	test('a running VM that cannot be reached says so', () => {
		expect(vmMark({ state: 'running', readiness: 'ready' }).word).toBe('Running');
		expect(vmMark({ state: 'running', readiness: 'unreachable' }).shape).toBe('triangle');
	});
	test('an agent with a stuck driver is not shown as well', () => {
		const stuck = agent('a', 1);
		const [driver] = stuck.info?.drivers ?? [];
		if (driver) driver.health.status = 'stuck';
		expect(agentMark(stuck).word).toBe('Driver stuck');
		expect(agentMark(agent('a', 1)).word).toBe('Online');
	});
	test('an operation says what it has been at, and for how long', () => {
		const steps = [
			{ stage: 'preparing' as const, began_at: '2026-01-01T12:00:00Z' },
			{ stage: 'booting' as const, began_at: '2026-01-01T12:00:02Z' }
		];
		const now = Date.parse('2026-01-01T12:00:10Z');
		expect(timeline({ steps, finished_at: null }, now).map(({ title, took, current }) => [title, took, current])).toEqual([
			['Preparing disk and seed', 2000, false],
			['Booting', 8000, true]
		]);
		expect(timeline({ steps, finished_at: '2026-01-01T12:00:05Z' }, now).map(({ took, current }) => [took, current])).toEqual([[2000, false], [3000, false]]);
		expect(timeline({ finished_at: null }, now)).toEqual([]);
	});
	test('an operation says what it is at', () => {
		const operation = {
			kind: 'create', state: 'running', stage: 'downloading', progress: 43.7,
			bytes_done: 12 * 1024 ** 2, bytes_total: 28 * 1024 ** 2
		} as Operation; // prettier-ignore
		expect(stageText(operation)).toBe('Downloading the image · 43 % · 12 MiB of 28 MiB');
		expect(createStep(operation)).toBe(0);
		expect(headline(operation)).toBe('Creating');
		expect(headline({ ...operation, state: 'failed' })).toBe('Create failed');
	});
});

describe('browsers', () => {
	test('are called by their own name, not by those they claim to be like', () => {
		const like = 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)';
		expect(browserName(`${like} Chrome/156.0.0.0 Safari/537.36`)).toBe('Chrome on Linux');
		expect(browserName(`${like} HeadlessChrome/156.0.0.0 Safari/537.36`)).toBe('Chrome on Linux');
		expect(browserName(`${like.replace('X11; Linux x86_64', 'Windows NT 10.0')} Chrome/1 Safari/1 Edg/1`)).toBe('Edge on Windows');
		expect(browserName('curl/8.5.0')).toBe('curl/8.5.0');
	});
});

describe('commands', () => {
	test('are quoted for the shell', () => {
		expect(quote(`it's`)).toBe(`'it'\\''s'`);
		expect(requestCommand(GRACEFUL, { agent_id: 'lab-1', name: 'web' })).toBe('batwa stop lab-1/web');
		expect(requestCommand(GRACEFUL, { agent_id: 'lab', name: '$(reboot)' })).toBe(`batwa stop 'lab/$(reboot)'`);
	});
});
