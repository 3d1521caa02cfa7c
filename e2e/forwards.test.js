// Saved forwards on the page: against `batwa up --driver fake` with a policy, and a real server behind the VM's port.
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { keepFailure, open, setUp, shoot } from './browser.js';
import { check, eventually, suite } from './harness.js';
import { stateDir, up } from './master.js';

const PASSWORD = 'correct horse battery';

const test = suite('forwards', {
	async start() {
		const dir = stateDir();
		const policy = join(dir, 'policy.toml');
		const write = (/** @type {string} */ text) => writeFileSync(policy, text);
		write('[forwards]\nlisten = ["127.0.0.1:*"]\n');
		// What a fake VM's port is: this machine's.
		const inside = createServer((_, answer) => answer.end('from the inside'));
		await new Promise((done) => inside.listen(0, '127.0.0.1', () => done(undefined)));
		const free = createServer();
		await new Promise((done) => free.listen(0, '127.0.0.1', () => done(undefined)));
		const listen = `127.0.0.1:${/** @type {import('node:net').AddressInfo} */ (free.address()).port}`;
		await new Promise((done) => free.close(done));
		const master = await up({ log: 'forwards-master', dir, args: ['--driver', 'fake', '--fake', 'vms=2,latency=50ms,ports=host', '--policy', policy] });
		return { master, write, inside, listen, ...(await open()) };
	},
	async stop({ browser, master, inside }) {
		await browser.close();
		inside.close();
		await master.stop();
		master.remove();
	},
	failed: ({ page }, name) => keepFailure(page, name)
});

const forwards = (page) => page.getByRole('region', { name: 'Forwards' });

test('a port is forwarded from the panel, reached, and removed', async ({ page, master, inside, listen }) => {
	await setUp(page, await eventually('the set-up link', () => master.setupLink()), PASSWORD);
	await page.goto(`${master.url}/vms?vm=local%2Fdemo-01`);
	await forwards(page).getByText('None.').waitFor();
	await forwards(page).getByRole('button', { name: 'Forward a port' }).click();
	const dialog = page.getByRole('dialog', { name: 'Forward a port of demo-01' });
	const [port, address] = [dialog.getByLabel('Port of the VM'), dialog.getByLabel(/^Address of/)];
	check((await address.inputValue()) === '127.0.0.1:8080', 'no address that the policy allows is proposed');
	await address.fill('0.0.0.0:8080');
	await dialog.getByRole('button', { name: 'Forward', exact: true }).click();
	await dialog.getByText(/policy does not let it listen on 0.0.0.0:8080/).waitFor();
	await shoot(page, 'forward-refused');
	await address.fill('localhost:80');
	await dialog.getByText(/an address of the machine with a port/).waitFor();
	await address.fill(listen);
	const number = String(inside.address().port);
	await port.fill(number);
	await dialog.getByText(`batwa forward --save local/demo-01:${number} --listen ${listen}`).waitFor();
	await shoot(page, 'forward-dialog');
	await dialog.getByRole('button', { name: 'Forward', exact: true }).click();
	await forwards(page).getByText(listen).waitFor();
	await forwards(page).getByText('not now').waitFor({ state: 'detached' });
	const said = await (await fetch(`http://${listen}/`)).text();
	check(said === 'from the inside', `the port says ${said}`);
	await shoot(page, 'forward');
});

test('it says what became of it when the VM stops and when the policy is narrowed', async ({ page, master, write, listen }) => {
	await page.goto(`${master.url}/vms/local/demo-01`);
	await page.getByRole('button', { name: 'Stop', exact: true }).first().click();
	await forwards(page).getByText('once the VM runs').waitFor();
	write('[forwards]\nlisten = []\n');
	await forwards(page).getByText(/policy does not let it listen/).waitFor();
	await shoot(page, 'forward-not-allowed');
	const button = forwards(page).getByRole('button', { name: 'Forward a port' });
	check((await button.getAttribute('aria-disabled')) === 'true', 'a forward is offered that the policy refuses');
	check(/names no address/.test((await button.getAttribute('title')) ?? ''), 'the button does not say why');
	await forwards(page).getByRole('button', { name: `Remove ${listen}` }).click();
	await forwards(page).getByText('None.').waitFor();
	await page.goto(`${master.url}/machines/local`);
	await page.getByRole('region', { name: 'Policy' }).getByText('on no address of the machine').waitFor();
});
