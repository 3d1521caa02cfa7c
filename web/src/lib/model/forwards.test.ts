import { describe, expect, it } from 'vitest';
import { forwardable, forwardLink, listenError, portError, proposeListen, saveForwardCommand } from './forwards';

describe('forwards', () => {
	it('knows addresses that no machine takes', () => {
		for (const good of ['127.0.0.1:80', '0.0.0.0:65535', '[::1]:8080', '[::]:1']) expect(listenError(good), good).toBeNull();
		for (const bad of ['', '80', '127.0.0.1', '127.0.0.1:', '127.0.0.1:0', '127.0.0.1:65536', 'localhost:80', '::1:80']) expect(listenError(bad), bad).not.toBeNull();
		for (const bad of ['', '0', '-1', '80a', '65536', '1e3']) expect(portError(bad), bad).not.toBeNull();
	});

	it('says why nothing can be forwarded, and where that would be changed', () => {
		expect(forwardable(undefined)).toMatch(/has not said/);
		expect(forwardable({ file: '/p.toml', forwards: [] })).toContain('/p.toml');
		expect(forwardable({ file: '/p.toml', forwards: ['127.0.0.1:*'] })).toBeNull();
	});

	it('proposes an address that is allowed and free', () => {
		const policy = (...forwards: string[]) => ({ file: '', forwards });
		expect(proposeListen(policy('127.0.0.1:*'), [])).toBe('127.0.0.1:8080');
		expect(proposeListen(policy('[::1]:8000-8001', '10.0.0.5:80'), ['[::1]:8000'])).toBe('[::1]:8001');
		expect(proposeListen(policy('[::1]:8000-8001', '10.0.0.5:80'), ['[::1]:8000', '[::1]:8001'])).toBe('10.0.0.5:80');
		expect(proposeListen(policy(), [])).toBe('');
		expect(proposeListen(null, [])).toBe('');
	});

	it('links to what a browser can open from here, and to nothing else', () => {
		const link = (listen: string, port: number, here: string | null, state: 'listening' | 'waiting' = 'listening') => forwardLink({ listen, port, state }, here);
		expect(link('192.0.2.5:8080', 80, null)).toBe('http://192.0.2.5:8080/');
		expect(link('192.0.2.5:8443', 443, null)).toBe('https://192.0.2.5:8443/');
		expect(link('0.0.0.0:8080', 3000, 'lab.example')).toBe('http://lab.example:8080/');
		expect(link('[::]:8080', 3000, null)).toBeNull();
		expect(link('127.0.0.1:8080', 80, 'localhost')).toBe('http://127.0.0.1:8080/');
		expect(link('127.0.0.1:8080', 80, 'lab.example')).toBeNull();
		expect(link('127.0.0.1:8080', 80, null)).toBeNull();
		expect(link('192.0.2.5:2222', 22, null)).toBeNull();
		expect(link('192.0.2.5:8080', 80, null, 'waiting')).toBeNull();
	});

	it('shows the same as a command', () => {
		expect(saveForwardCommand({ agent_id: 'lab', name: 'web' }, { listen: '127.0.0.1:8080', port: 80 })).toBe('batwa forward --save lab/web:80 --listen 127.0.0.1:8080');
		expect(saveForwardCommand({ agent_id: 'lab', name: 'web' }, { listen: '[::1]:8080', port: 80 })).toBe("batwa forward --save lab/web:80 --listen '[::1]:8080'");
	});
});
