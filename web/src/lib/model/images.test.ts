import { describe, expect, it } from 'vitest';
import type { Image } from '$lib/api/types';
import { addCommand, byMachine, contentRange, digestHeader, hereText, nameError, namesOf, storeText, uploadQuery } from './images';

const image = (agent_id: string, name: string): Image =>
	({ agent_id, name, aliases: ['also'], title: 'A title', origin: 'somewhere', driver: 'fake', cached: false, cloud_config: true }) as Image;

describe('images', () => {
	it('are grouped by machine, and found by any of their words', () => {
		const agents = ['b', 'a'].map((agent_id) => ({ agent_id, stores: [], error: null }));
		const items = [image('a', 'tiny'), image('b', 'noble')];
		expect(byMachine(items, agents, '').map((group) => group.agent)).toEqual(['b', 'a']);
		expect(byMachine(items, agents, 'TINY also').map((group) => group.agent)).toEqual(['a']);
		expect(byMachine(items, agents, 'none')).toEqual([]);
	});

	it('say what of them is there', () => {
		expect(hereText({ cached: true, size_on_disk: 1 << 20 })).toBe('on the machine, 1 MiB');
		expect(hereText({ cached: true })).toBe('on the machine');
		expect(hereText({ cached: false, download_size: 2 << 20 })).toBe('not yet, 2 MiB to fetch');
		expect(hereText({ cached: false, size_on_disk: 1 << 20, download_size: 2 << 20 })).toBe('an older one, 1 MiB');
		expect(storeText({ driver: 'qemu', used: 1 << 20, limit: 2 << 20 })).toBe('1 MiB of images · kept below 2 MiB');
	});

	it('are named as the machine takes it', () => {
		for (const good of ['a', 'my-image', 'mine:1.0', 'a_b']) expect(nameError(good)).toBeNull();
		for (const bad of ['', 'Mine', '-a', 'a-', 'a b', 'file:a', 'https:a', 'x'.repeat(64)]) expect(nameError(bad), bad).not.toBeNull();
		expect(namesOf(' a, b  c,')).toEqual(['a', 'b', 'c']);
	});

	it('come with their checksum as HTTP has it', () => {
		expect(digestHeader('00'.repeat(32))).toBe(`sha-256=:${'A'.repeat(43)}=:`);
		expect(digestHeader('00')).toBeNull();
	});

	it('are added by the same command', () => {
		const add = { name: 'mine', aliases: ['other'], title: 'My image', url: 'https://a/b', sha256: 'ff' };
		expect(addCommand('lab', add, null)).toBe("batwa images add mine https://a/b --sha256 ff --alias other --title 'My image' --agent lab");
		expect(addCommand('lab', { name: 'mine' }, 'disk.img')).toBe('batwa images upload mine disk.img --agent lab');
		expect(uploadQuery({ aliases: ['a', 'b'], title: 'x y' })).toBe('?aliases=a%2Cb&title=x+y');
		expect(uploadQuery({})).toBe('');
		expect(uploadQuery({}, 'an-id')).toBe('?upload=an-id');
		expect([contentRange(0, 9), contentRange(4, 9), contentRange(9, 9)]).toEqual(['bytes 0-8/9', 'bytes 4-8/9', 'bytes */9']);
	});
});
