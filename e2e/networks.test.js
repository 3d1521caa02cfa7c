// Networks of a machine on the page: against `batwa up --driver fake` with a policy.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { keepFailure, open, setUp, shoot } from './browser.js';
import { check, eventually, suite } from './harness.js';
import { stateDir, up } from './master.js';

const PASSWORD = 'correct horse battery';

const test = suite('networks', {
	async start() {
		const dir = stateDir();
		const policy = join(dir, 'policy.toml');
		writeFileSync(policy, '[networks]\nbridges = ["lab0"]\n');
		const master = await up({ log: 'networks-master', dir, args: ['--driver', 'fake', '--fake', 'vms=0,latency=20ms', '--policy', policy] });
		return { master, ...(await open()) };
	},
	async stop({ browser, master }) {
		await browser.close();
		await master.stop();
		master.remove();
	},
	failed: ({ page }, name) => keepFailure(page, name)
});

test('a new VM is put on a network that the policy names, and shows its card', async ({ page, master }) => {
	await setUp(page, await eventually('the set-up link', () => master.setupLink()), PASSWORD);
	await page.goto(`${master.url}/vms`);
	await page.getByRole('button', { name: 'New VM' }).first().click();
	const dialog = page.getByRole('dialog', { name: 'New VM' });
	await dialog.getByText('cloud-init, networks, labels and the command').click();
	const networks = dialog.getByRole('group', { name: /^Networks/ });
	const other = networks.getByRole('checkbox', { name: /wan0/ });
	check(await other.isDisabled(), 'a network is offered that the policy refuses');
	await networks.getByRole('checkbox', { name: /lab0/ }).check();
	await dialog.getByText(/--network lab0/).waitFor();
	await shoot(page, 'networks-create');
	await dialog.getByLabel('Name', { exact: true }).fill('bridged');
	await dialog.getByRole('button', { name: 'Create', exact: true }).click();
	await page.getByText(/bridged is ready|Ready/i).first().waitFor();
	await page.goto(`${master.url}/vms/local/bridged`);
	await page.getByText(/^52:54:00:/).waitFor();
	await shoot(page, 'networks-vm');
	await page.goto(`${master.url}/machines/local`);
	await page.getByRole('region', { name: 'Policy' }).getByText('lab0').waitFor();
});
