// What a machine's owner allows, and folders that a VM sees, on the page: against `batwa up --driver fake` with a policy.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { keepFailure, open, setUp, shoot } from './browser.js';
import { check, eventually, suite } from './harness.js';
import { stateDir, up } from './master.js';

const PASSWORD = 'correct horse battery';

const test = suite('mounts', {
	async start() {
		const dir = stateDir();
		const share = join(dir, 'share');
		const policy = join(dir, 'policy.toml');
		mkdirSync(join(share, 'data'), { recursive: true });
		const write = (/** @type {string} */ text) => writeFileSync(policy, text);
		write(`[vms]\ncpus = 4\n[images]\nhosts = ["images.example.org"]\n[mounts]\nroots = ["${share}"]\n`);
		const master = await up({ log: 'mounts-master', dir, args: ['--driver', 'fake', '--fake', 'vms=2,latency=50ms', '--policy', policy] });
		return { master, share, policy, write, ...(await open()) };
	},
	async stop({ browser, master }) {
		await browser.close();
		await master.stop();
		master.remove();
	},
	failed: ({ page }, name) => keepFailure(page, name)
});

const mounts = (page) => page.getByRole('region', { name: 'Mounts' });

test('a folder is mounted from the panel, seen after a restart, and taken out', async ({ page, master, share }) => {
	await setUp(page, await eventually('the set-up link', () => master.setupLink()), PASSWORD);
	await page.goto(`${master.url}/vms?vm=local%2Fdemo-01`);
	await mounts(page).getByText('None.').waitFor();
	await mounts(page).getByRole('button', { name: 'Mount a folder' }).click();
	const dialog = page.getByRole('dialog', { name: 'Mount a folder in demo-01' });
	const source = dialog.getByLabel(/^Folder on/);
	check((await source.inputValue()) === share, 'the root that the policy names is not proposed');
	const target = dialog.getByLabel('Where the VM sees it');
	check((await target.inputValue()) === '/mnt/share', 'no place in the VM is proposed');
	await source.fill('/etc');
	await dialog.getByRole('button', { name: 'Mount', exact: true }).click();
	await dialog.getByText(/VMs may see only folders of this machine/).waitFor();
	await shoot(page, 'mount-refused');
	await source.fill(`${share}/data`);
	await target.fill('/mnt/my data');
	await dialog.getByText(/a whole path inside the VM/).waitFor();
	await target.fill('/mnt/data');
	await dialog.getByText(`batwa mount ${share}/data local/demo-01:/mnt/data`).waitFor();
	await shoot(page, 'mount-dialog');
	await dialog.getByRole('button', { name: 'Mount', exact: true }).click();
	await mounts(page).getByText('from its next start on').waitFor();
	await shoot(page, 'mount-waits');
	await mounts(page).getByRole('button', { name: 'Restart' }).click();
	await mounts(page).getByText('from its next start on').waitFor({ state: 'detached', timeout: 30_000 });
	await mounts(page).getByText('/mnt/data').waitFor();
	await mounts(page).getByRole('button', { name: 'Take /mnt/data out' }).click();
	await mounts(page).getByText('None.').waitFor();
});

/** A list that an agent tells, each thing in it twice; and so in all that is in it. */
function doubled(/** @type {any} */ told, inTold = false) {
	if (Array.isArray(told)) {
		const all = told.map((one) => doubled(one, inTold));
		return inTold ? [...all, ...all] : all;
	}
	if (told === null || typeof told !== 'object') return told;
	const TOLD = ['drivers', 'stores', 'hosts', 'files', 'mounts', 'notices', 'ipv4', 'used_by', 'aliases', 'snapshots'];
	return Object.fromEntries(Object.entries(told).map(([key, value]) => [key, doubled(value, TOLD.includes(key))]));
}

test('what a machine tells twice blanks no page', async ({ page, context, master, share }) => {
	/** @type {string[]} */
	const broken = [];
	page.on('pageerror', (error) => broken.push(`${page.url()}: ${error.message}`));
	await context.route(/\/api\/v1\/(agents|vms|images)/, async (route) => {
		if (route.request().method() !== 'GET') return route.continue();
		const answer = await route.fetch();
		if (!answer.headers()['content-type']?.includes('json')) return route.fulfill({ response: answer });
		const told = doubled(await answer.json());
		if (/\/images/.test(route.request().url()) && told.items) told.items = [...told.items, ...told.items];
		return route.fulfill({ response: answer, json: told });
	});
	await page.goto(`${master.url}/machines`);
	await page.locator('main a[href="/machines/local"]').first().waitFor();
	await page.goto(`${master.url}/machines/local`);
	const section = page.getByRole('region', { name: 'Policy' });
	await section.getByText(share, { exact: true }).first().waitFor();
	await page.goto(`${master.url}/images`);
	await page.getByRole('row', { name: /tiny/ }).nth(1).waitFor();
	await page.goto(`${master.url}/vms?vm=local%2Fdemo-01`);
	await mounts(page).getByRole('button', { name: 'Mount a folder' }).click();
	const dialog = page.getByRole('dialog', { name: 'Mount a folder in demo-01' });
	await dialog.getByText(/^Its policy allows/).waitFor();
	await page.keyboard.press('Escape');
	await dialog.waitFor({ state: 'detached' });
	await page.getByRole('button', { name: /^New/ }).first().click();
	await page.getByRole('dialog').getByLabel('Image').waitFor();
	await page.keyboard.press('Escape');
	await context.unrouteAll({ behavior: 'wait' });
	check(broken.length === 0, `the page broke: ${broken.join('; ')}`);
});

test('the machine’s page shows what its owner allows, and a file that cannot be used', async ({ page, master, share, policy, write }) => {
	await page.goto(`${master.url}/machines/local`);
	const section = page.getByRole('region', { name: 'Policy' });
	await section.getByText('at most 4 CPUs').waitFor();
	await section.getByText('images.example.org').waitFor();
	await section.getByText(share, { exact: true }).waitFor();
	await section.getByText(policy).waitFor();
	await shoot(page, 'policy');
	write('[vms]\ncups = 1\n');
	await section.getByText(/cannot be used/).waitFor();
	await section.getByText(/unknown field/).waitFor();
	await section.getByText('at most 4 CPUs').waitFor();
	await shoot(page, 'policy-broken');
	write('[mounts]\nroots = []\n');
	await section.getByText('no folder of the machine').waitFor();
	await page.goto(`${master.url}/vms?vm=local%2Fdemo-01`);
	const button = mounts(page).getByRole('button', { name: 'Mount a folder' });
	check((await button.getAttribute('aria-disabled')) === 'true', 'a mount is offered that the policy refuses');
	check(/names no folder/.test((await button.getAttribute('title')) ?? ''), 'the button does not say why');
});
