import { describe, expect, it } from 'vitest';
import { mountable, sourceError, targetError } from './mounts';

describe('mounts', () => {
	it('knows paths that no machine takes', () => {
		for (const good of ['/', '/srv', '/srv/my data,x']) expect(sourceError(good), good).toBeNull();
		for (const bad of ['', 'srv', '/srv/../etc', '/srv\n']) expect(sourceError(bad), bad).not.toBeNull();
		for (const good of ['/mnt', '/mnt/a.b_c@d+e-f']) expect(targetError(good), good).toBeNull();
		for (const bad of ['', '/', 'x', '/x/', '//x', '/x/../y', '/x/.', '/x y', '/x:y', '/ü']) expect(targetError(bad), bad).not.toBeNull();
	});

	it('says why nothing can be mounted, and where that would be changed', () => {
		expect(mountable(undefined)).toMatch(/has not said/);
		expect(mountable({ file: '/p.toml', mounts: [] })).toContain('/p.toml');
		expect(mountable({ file: '/p.toml', mounts: [{ path: '/srv', read_only: true }] })).toBeNull();
	});
});
