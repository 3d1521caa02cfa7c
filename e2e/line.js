// A line between two programs of this machine that a test cuts as networks are cut: nothing passes any more, and
// neither end is told.
import { connect, createServer } from 'node:net';

/** Listens on a port of its own and passes everything on to `port`. @param {number} port */
export async function line(port) {
	/** @type {Set<import('node:net').Socket>} */
	const sockets = new Set();
	let isCut = false;
	let passed = 0;
	const keep = (/** @type {import('node:net').Socket} */ socket) => {
		socket.setNoDelay(true);
		sockets.add(socket);
		// The other end goes with it, whatever this one died of.
		socket.on('error', () => {});
		socket.once('close', () => sockets.delete(socket));
	};
	const server = createServer((near) => {
		keep(near);
		if (isCut) {
			near.pause();
			return;
		}
		const far = connect(port, '127.0.0.1');
		keep(far);
		for (const [from, to] of [[near, far], [far, near]]) {
			from.on('data', (bytes) => (passed += bytes.length));
			from.pipe(to);
			from.once('close', () => to.destroy());
		}
	});
	await new Promise((done, fail) => {
		server.once('error', fail);
		server.listen(0, '127.0.0.1', () => done(undefined));
	});
	return {
		port: /** @type {import('node:net').AddressInfo} */ (server.address()).port,
		/** Bytes that have passed, both ways. */
		passed: () => passed,
		/** From now on nothing passes, in what is open or what comes. */
		cut() {
			isCut = true;
			for (const socket of sockets) {
				socket.unpipe();
				socket.removeAllListeners('data');
				socket.pause();
			}
		},
		/** What comes passes again; what was open is gone, as it is when an address has changed meanwhile. */
		mend() {
			isCut = false;
			for (const socket of sockets) socket.destroy();
		},
		async stop() {
			for (const socket of sockets) socket.destroy();
			await new Promise((done) => server.close(done));
		}
	};
}
