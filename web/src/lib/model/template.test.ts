import { expect, test } from 'vitest';
import { launchCommand } from './cli';
import { variablesOf } from './template';

test('variables are names between braces, each once and in order', () => {
	expect(variablesOf('b: {{b}}\na: {{ a }} {{b}} {{ v1.region }} {{Other}} {{{c}}} {{d e}} {{')).toEqual(['b', 'a', 'c']);
	expect(variablesOf('#cloud-config\n')).toEqual([]);
});

test('the command is one that can be typed', () => {
	const launch = { agent: 'local', name: 'web', image: 'ubuntu:24.04', cpus: 2, memory: 2 * 1024 ** 3, disk: 10 * 1024 ** 3 };
	expect(launchCommand({ ...launch, options: [] })).toBe('batwa launch ubuntu:24.04 --name web --cpus 2 --memory 2G --disk 10G');
	expect(launchCommand({ ...launch, agent: 'lab 1', options: ['--var', "a=it's"] })).toBe(
		"batwa launch ubuntu:24.04 --name web --agent 'lab 1' --cpus 2 --memory 2G --disk 10G --var 'a=it'\\''s'"
	);
});
