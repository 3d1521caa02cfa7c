import { describe, expect, test } from 'vitest';
import type { Agent } from '$lib/api/types';
import { addressesOf } from './address';
import { alertsOf, needsALook } from './alerts';
import { joinCommand } from './cli';
import { labelText, parseLabels, writeLabels } from './labels';
import { linkMark, vmMark } from './state';

const agent = (given: Partial<Agent>): Agent => ({
	id: 'lab-1',
	name: 'lab-1',
	api_url: 'http://10.0.0.9:8001',
	cordoned: false,
	labels: {},
	legacy: false,
	link: 'direct',
	status: 'online',
	status_since: '2026-01-01T00:00:00Z',
	vm_count: 0,
	...given
});
const info = (version: string) =>
	({ version, agent_id: 'lab-1', clock: '', drivers: [], host: { arch: '', cpus: 1, hostname: '', memory: 1, os: '' }, protocol_version: 1, started_at: '' }) as Agent['info'];

describe('alerts of a machine', () => {
	const keys = (given: Partial<Agent>, master: string | null = '1.0.0') => alertsOf(agent(given), master).map((alert) => alert.key);
	test('there are none where all is well', () => {
		expect(keys({ info: info('1.0.0') })).toEqual([]);
		expect(keys({ status: 'offline' })).toEqual([]);
	});
	test('an address that is not reached offers what helps; a machine that dials in has none', () => {
		const [unreachable] = alertsOf(agent({ status: 'error', message: 'connection refused' }), null);
		expect(unreachable).toMatchObject({ title: 'Not reached at http://10.0.0.9:8001', offer: 'join' });
		expect(keys({ status: 'offline', link: 'tunnel', message: 'gone' })).toEqual(['message']);
	});
	test('another version is told, except of the master’s own machine', () => {
		expect(keys({ info: info('0.9.0') })).toEqual(['version']);
		expect(keys({ info: info('0.9.0'), link: 'in_process' })).toEqual([]);
		expect(keys({ info: info('0.9.0') }, null)).toEqual([]);
	});
	test('one key on two machines comes first, and can be changed', () => {
		const shared = { code: 'shared_key' as const, message: 'seen from a and b', since: '2026-01-01T00:00:00Z' };
		const found = alertsOf(agent({ alerts: [shared], warnings: ['its clock is 9 s ahead'], info: info('0.9.0') }), '1.0.0');
		expect(found.map((alert) => alert.key)).toEqual(['shared_key', 'warning-0', 'version']);
		expect(found[0]?.offer).toBe('rotate');
		expect(needsALook(agent({ alerts: [shared] }))).toBe(true);
		expect(needsALook(agent({}))).toBe(false);
	});
});

describe('addresses', () => {
	test('one that only the VM itself knows is no address for others', () => {
		expect(addressesOf({ driver: 'qemu', ipv4: ['10.0.2.15', '192.168.1.7'] })).toEqual([
			{ text: '192.168.1.7', inside: false },
			{ text: '10.0.2.15', inside: true }
		]);
		expect(addressesOf({ driver: 'multipass', ipv4: ['10.0.2.15'] })).toEqual([{ text: '10.0.2.15', inside: false }]);
		expect(addressesOf({ driver: 'qemu', ipv4: ['10.0.20.15'] })[0]?.inside).toBe(false);
		expect(addressesOf({ driver: 'qemu' })).toEqual([]);
	});
});

describe('labels', () => {
	test('are read as people write them, and back', () => {
		expect(parseLabels(' env=prod,rack=2\nold\n\n url=a=b ')).toEqual({ env: 'prod', rack: '2', old: '', url: 'a=b' });
		const labels = { env: 'prod', old: '', url: 'a=b' };
		expect(parseLabels(writeLabels(labels))).toEqual(labels);
		expect(labelText(['old', ''])).toBe('old');
	});
});

describe('joining', () => {
	test('by a batwa that is there goes to the address of the master’s own line', () => {
		expect(joinCommand('https://batwa.example', 'batwa-join.a.b.c')).toBe('batwa agent join https://batwa.example batwa-join.a.b.c');
	});
});

describe('marks', () => {
	test('what is missing is missing, whatever it did before', () => {
		expect(vmMark({ state: 'running', missing_since: '2026-01-01T00:00:00Z' }).word).toBe('Missing');
		expect(vmMark({ state: 'running' }).word).toBe('Running');
	});
	test('a link has a mark for what this page does not know yet', () => {
		expect(linkMark('napping' as 'online').shape).toBe('question');
	});
});
