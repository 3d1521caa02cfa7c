import { describe, expect, it } from 'vitest';
import type { HostNetwork } from '$lib/api/types';
import { cardWords, networkOptions, offeredNetworks } from './networks';

describe('networks', () => {
	const network = (name: string, refusal: string | null = null, driver: HostNetwork['driver'] = 'qemu'): HostNetwork => ({ name, type: 'bridge', description: '', driver, refusal });

	it('offers those first that VMs may be put on, of the driver that makes the VM', () => {
		const all = [network('br1', 'no'), network('br9'), network('br0'), network('eth0', null, 'multipass')];
		expect(offeredNetworks(all, 'qemu').map(({ name }) => name)).toEqual(['br0', 'br9', 'br1']);
		expect(offeredNetworks(all, undefined)).toHaveLength(4);
	});

	it('says them as the command line does', () => {
		expect(networkOptions(['br0', 'br1'])).toEqual(['--network', 'br0', '--network', 'br1']);
		expect(networkOptions([])).toEqual([]);
		expect(cardWords({ name: 'br0', mode: 'manual', mac: '52:54:00:00:00:07' })).toBe('52:54:00:00:00:07 · set up by hand inside');
		expect(cardWords({ name: 'br0', mode: 'auto' })).toBe('');
	});
});
