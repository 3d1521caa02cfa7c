import { describe, expect, test } from 'vitest';
import { requestCommand, sameAgain, type VmRequest } from './request';

const vm = { agent_id: 'lab-1', name: 'web' };

describe('the equal command', () => {
	test.each<[VmRequest, string | null]>([
		[{ kind: 'start' }, 'batwa start lab-1/web'],
		[{ kind: 'stop', force: true, after_s: null }, 'batwa stop --force lab-1/web'],
		[{ kind: 'stop', force: false, after_s: 300 }, null],
		[{ kind: 'snapshot', name: 'before', comment: "it's on", stop: true }, `batwa snapshot lab-1/web --name before --comment 'it'\\''s on' --stop`],
		[{ kind: 'snapshot', name: null, comment: null, stop: false }, 'batwa snapshot lab-1/web'],
		[{ kind: 'restore', snapshot: 'before', discard: true, stop: false }, 'batwa restore lab-1/web.before --discard'],
		[{ kind: 'delete_snapshot', snapshot: 'before', stop: true }, 'batwa delete-snapshot lab-1/web.before --stop'],
		[{ kind: 'clone', name: 'web-clone1', snapshot: null, stop: false }, 'batwa clone lab-1/web --name web-clone1'],
		[{ kind: 'clone', name: 'two', snapshot: 'before', stop: true }, 'batwa clone lab-1/web.before --name two --stop'],
		[{ kind: 'mount', source: '/srv/my share', target: '/mnt/share', read_only: true, type: null }, `batwa mount --read-only '/srv/my share' lab-1/web:/mnt/share`],
		[{ kind: 'umount', target: '/mnt/share' }, 'batwa umount lab-1/web:/mnt/share'],
		[{ kind: 'resize', cpus: 2, memory: 2 * 1024 ** 3, disk: null, stop: false }, 'batwa set lab-1/web --cpus 2 --memory 2G']
	])('%o', (request, command) => expect(requestCommand(request, vm)).toBe(command));
});

describe('asking again', () => {
	test('is offered where the operation tells all that is needed', () => {
		expect(sameAgain({ kind: 'start' })).toEqual({ kind: 'start' });
		expect(sameAgain({ kind: 'delete' })).toEqual({ kind: 'delete' });
	});
	test('and not where a part is missing or a person should look first', () => {
		for (const kind of ['create', 'stop', 'purge', 'restore', 'delete_snapshot', 'resize'] as const) expect(sameAgain({ kind }), kind).toBeNull();
	});
});
