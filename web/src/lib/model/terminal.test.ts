import { describe, expect, it } from 'vitest';
import type { Terminal } from '$lib/api/types';
import { entryRefusal, lifetime, people, sessionTitle } from './terminal';

describe('terminal sessions in words', () => {
	it('says who is there, each account once', () => {
		expect(people([{ user: 'ann', access: 'write' }, { user: 'ann', access: 'write' }, { user: 'bob', access: 'watch' }, { user: '', access: 'write' }], 6)).toBe(
			'ann, bob (watches), somebody, 2 more'
		);
	});

	it('says how long it lives on', () => {
		expect(lifetime({ ttl_s: 1800 })).toBe('30 min unwatched');
		expect(lifetime({ ttl_s: 0 })).toBe('until nobody watches');
		expect(lifetime({ ttl_s: 1800, keep: true })).toBe('until it is ended');
	});

	it('goes by its name', () => {
		expect(sessionTitle({ name: 'the build', vm: 'web', kind: 'shell' })).toBe('the build');
		expect(sessionTitle({ name: null, vm: 'web', kind: 'console' })).toBe('web console');
	});

	it('knows who gets in', () => {
		const session = { opened_by: 'ann', guests: [{ user: 'bob', access: 'watch' }] } as unknown as Terminal;
		const user = (name: string, role = 'operator', terminal = true) => ({ name, role, terminal });
		expect(entryRefusal(session, user('ann'))).toBeNull();
		expect(entryRefusal(session, user('ann', 'operator', false))).toBe('your account may not open terminals');
		expect(entryRefusal(session, user('bob', 'viewer', false))).toBeNull();
		expect(entryRefusal(session, user('eve'))).toBe('it is not shared with you: ask ann');
		expect(entryRefusal(session, user('root', 'admin'))).toBeNull();
	});
});
