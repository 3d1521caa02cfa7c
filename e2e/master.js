// The real binary, each time in a state folder of its own and on a free port.
import { spawn } from 'node:child_process';
import { createWriteStream, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));

/** The binary under test. */
export function binary() {
	const path = resolve(process.env.BATWA ?? join(here, '../target/debug/batwa'));
	if (!existsSync(path)) throw new Error(`there is no ${path}: build it with \`cargo build -p batwa\` or set BATWA`);
	return path;
}

/**
 * A process of the binary whose output is read until it has said what we wait for.
 * @param {string} log name of its log among the artifacts
 * @param {string[]} args
 * @param {RegExp} ready
 */
async function start(log, args, ready) {
	const child = spawn(binary(), args, { stdio: ['ignore', 'pipe', 'pipe'] });
	const file = createWriteStream(join(here, 'artifacts', `${log}.log`), { flags: 'a' });
	let output = '';
	const exited = new Promise((done) => child.once('exit', (code, signal) => done(`${code ?? signal}`)));
	await new Promise((done, fail) => {
		const timer = setTimeout(() => fail(new Error(`batwa ${args[0]} is not ready after 30 s:\n${output}`)), 30_000);
		const read = (/** @type {Buffer} */ chunk) => {
			file.write(chunk);
			output += chunk;
			if (ready.test(output)) {
				clearTimeout(timer);
				done(undefined);
			}
		};
		child.stdout.on('data', read);
		child.stderr.on('data', read);
		child.once('error', fail);
		void exited.then((how) => {
			clearTimeout(timer);
			fail(new Error(`batwa ${args[0]} ended (${how}):\n${output}`));
		});
	});
	return {
		output: () => output,
		exited,
		kill: (/** @type {NodeJS.Signals} */ signal) => child.kill(signal),
		/** Ends it in order; by force when it does not within 15 s. */
		async stop() {
			if (child.exitCode !== null || child.signalCode !== null) return;
			child.kill('SIGTERM');
			const force = setTimeout(() => child.kill('SIGKILL'), 15_000);
			await exited;
			clearTimeout(force);
			file.end();
		}
	};
}

/** A fresh state folder. */
export function stateDir() {
	return mkdtempSync(join(tmpdir(), 'batwa-e2e-'));
}

/**
 * `batwa up`, or `batwa master`, in a state folder; the folder goes with it unless it is told to keep it.
 * @param {{ log: string, dir: string, port?: number, args: string[], role?: 'up' | 'master' }} options
 */
export async function up({ log, dir, port = 0, args, role = 'up' }) {
	const child = await start(
		log,
		[role, '--host', '127.0.0.1', '--port', String(port), '--state-dir', dir, '--log-level', 'info', ...args],
		/Batwa is at\s+http:\/\/\S+\/\n/
	);
	const url = /Batwa is at\s+(http:\/\/\S+?)\/\n/.exec(child.output())?.[1] ?? '';
	return {
		...child,
		url,
		port: Number(new URL(url).port),
		/** The one-time set-up link, which is printed after the address. */
		setupLink: () => /http:\/\/\S+\/setup#\S+/.exec(child.output())?.[0],
		remove: () => rmSync(dir, { recursive: true, force: true })
	};
}

/**
 * `batwa agent` with the guide's flags.
 * @param {{ log: string, dir: string, id: string, key: string, master: string, args: string[] }} options
 */
export function agent({ log, dir, id, key, master, args }) {
	return start(
		log,
		['agent', '--agent-id', id, '--api-key', key, '--master-url', master, '--host', '127.0.0.1', '--port', '0', '--state-dir', dir, ...args],
		/listens on http:\/\/\S+/
	);
}

/**
 * `batwa agent join`: enrols with a token, then runs; ready once it has joined or waits for approval.
 * @param {{ log: string, dir: string, id: string, token: string, master: string, args: string[] }} options
 */
export function joined({ log, dir, id, token, master, args }) {
	return start(log, ['agent', 'join', master, token, '--agent-id', id, '--state-dir', dir, ...args], /^joined |waits for an admin/m);
}

/**
 * `batwa agent` in the folder of one that has joined.
 * @param {{ log: string, dir: string, args: string[] }} options
 */
export function rejoin({ log, dir, args }) {
	return start(log, ['agent', '--state-dir', dir, ...args], /the tunnel to .* is open/);
}
