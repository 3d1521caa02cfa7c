import { expect, test } from 'vitest';
import type { Operation } from '$lib/api/types';
import { addressOf, filterOf, fits, KINDS } from './history';
import { headline } from './operation';

const operation = { vm: 'web', agent_id: 'lab', state: 'failed', kind: 'start', requested_by: 'ann' } as Operation;

test('every part of a filter must hold', () => {
	expect(fits(operation, {})).toBe(true);
	expect(fits(operation, { vm: 'web', agent: 'lab', state: 'queued,failed', kind: 'start', by: 'ann' })).toBe(true);
	for (const wrong of [{ vm: 'we' }, { agent: 'office' }, { state: 'queued,running' }, { kind: 'stop' as const }, { by: 'bob' }]) expect(fits(operation, wrong), JSON.stringify(wrong)).toBe(false);
});

test('an address tells the whole filter, and gives it back', () => {
	const filter = { vm: 'web', agent: 'lab-1', state: 'queued,running', kind: 'clone' as const, by: 'ann & bob' };
	const address = addressOf(filter, 'an-id');
	expect(address).toBe('/operations?vm=web&agent=lab-1&state=queued,running&kind=clone&by=ann+%26+bob&operation=an-id');
	expect(filterOf(new URL(address, 'http://x').searchParams)).toEqual(filter);
	expect(addressOf({}, null)).toBe('/operations');
});

test('what an address says wrong is left out', () => {
	expect(filterOf(new URLSearchParams('kind=explode&vm=%20&state=active'))).toEqual({ state: 'queued,running' });
});

test('every kind has its words', () => {
	for (const kind of KINDS) for (const state of ['running', 'succeeded', 'failed'] as const) expect(headline({ kind, state }), `${kind} ${state}`).not.toMatch(/_|undefined/);
});
