// From a fresh state folder to a VM that really boots, in a real browser: the main job, whole.
import { stateDir, up } from './master.js';
import { choose, keepFailure, open, row, setUp, shoot, type } from './browser.js';
import { check, eventually, suite } from './harness.js';

// Emulated, on a machine that does other things too, a VM needs its time.
const BOOT_S = 300;

const test = suite('qemu', {
	async start() {
		const dir = stateDir();
		const master = await up({ log: 'qemu-master', dir, args: ['--driver', 'qemu'] });
		return { dir, master, ...(await open()) };
	},
	async stop({ browser, page, master }) {
		// A failed test must leave no VM behind: they outlive the agent on purpose.
		await page
			.evaluate(() => fetch('/api/v1/agents/local/vms/pouch?purge=true&wait=60s', { method: 'DELETE' }).then((answer) => answer.text()))
			.catch(() => {});
		await browser.close();
		await master.stop();
		master.remove();
	},
	failed: ({ page }, name) => keepFailure(page, name)
});

const state = (page, name, word, seconds) => row(page, name).getByText(word, { exact: true }).waitFor({ timeout: seconds * 1000 });

test('the first account is made and the page says how VMs will run here', async ({ page, master }) => {
	const link = await eventually('the set-up link', () => master.setupLink());
	await setUp(page, link, 'correct horse battery');
	await page.getByText(/Through qemu/).waitFor({ timeout: 60_000 });
	await shoot(page, 'qemu-first-steps');
}, 90);

test('a VM is created and its progress shown until it answers', async ({ page }) => {
	await page.getByRole('button', { name: 'New VM' }).first().click();
	const dialog = page.getByRole('dialog', { name: 'New VM' });
	await dialog.getByLabel('Name', { exact: true }).fill('pouch');
	await eventually('the image is offered', async () => (await dialog.getByLabel('Image').locator('option[value=tiny]').count()) === 1);
	await dialog.getByLabel('Image').selectOption('tiny');
	await dialog.getByLabel('CPUs').fill('2');
	await dialog.getByLabel('Memory', { exact: true }).fill('256M');
	await dialog.getByLabel('Disk', { exact: true }).fill('1G');
	await dialog.getByRole('button', { name: 'Create', exact: true }).click();
	const progress = page.getByRole('dialog', { name: 'pouch' });
	const seen = new Set();
	await eventually('it is ready', async () => {
		const text = await progress.innerText();
		for (const words of ['image', 'Preparing', 'Booting', 'SSH', 'cloud-init']) if (text.includes(words)) seen.add(words);
		if (seen.size === 2) await shoot(page, 'qemu-progress');
		check(!/failed/.test(text), `the creation failed:\n${text}`);
		return progress.getByRole('button', { name: 'Open terminal' }).isVisible();
	}, BOOT_S);
	check(seen.size >= 2, `only these stages were shown: ${[...seen].join(', ')}`);
	await shoot(page, 'qemu-ready');
	await progress.getByRole('button', { name: 'Open terminal' }).click();
}, BOOT_S + 30);

test('its terminal answers uname -a and nproc, and a file is written', async ({ page }) => {
	await page.getByRole('tab', { name: 'pouch' }).waitFor();
	const [line] = await type(page, 'uname -a', /Linux pouch .*/, 60);
	check(line.includes('x86_64') || line.includes('aarch64'), line);
	await type(page, 'echo cpus:$(nproc)', /cpus:2/, 60);
	await type(page, 'echo "kept in the pouch" > file.txt && sync && echo writ""ten', /written/, 60);
	await shoot(page, 'qemu-terminal');
}, 120);

test('its display shows what was written there since the BIOS', async ({ page }) => {
	await page.getByRole('link', { name: 'VMs' }).first().click();
	await choose(page, 'pouch', /^Display/);
	const canvas = page.locator('[role=tabpanel].shown canvas');
	await eventually('text is drawn', () => canvas.evaluate((node) => {
		if (node.width < 640) return false;
		const { data } = node.getContext('2d').getImageData(0, 0, node.width, node.height);
		let lit = 0;
		for (let at = 0; at < data.length; at += 4) if (data[at] > 100) lit += 1;
		// Some letters, on a ground that is dark.
		return lit > 200 && lit < data.length / 8;
	}), 30);
	await shoot(page, 'qemu-display');
	await page.getByRole('button', { name: 'Close pouch display' }).click();
}, 90);

test('it is stopped and started, and the file is still there', async ({ page }) => {
	await page.getByRole('link', { name: 'VMs' }).first().click();
	await choose(page, 'pouch', /^Stop/);
	await state(page, 'pouch', 'Stopped', 120);
	await page.getByRole('button', { name: 'Reopen' }).waitFor();
	await page.getByRole('button', { name: 'Close', exact: true }).click();
	await choose(page, 'pouch', /^Start/);
	await eventually('it runs and is ready', async () => {
		if ((await row(page, 'pouch').getByText('Running', { exact: true }).count()) === 0) return false;
		await row(page, 'pouch').getByRole('button', { name: 'Actions for pouch' }).click();
		const item = page.getByRole('menuitem', { name: /^Terminal/ });
		const disabled = await item.getAttribute('aria-disabled');
		if (disabled !== 'true') return true;
		await page.keyboard.press('Escape');
		return false;
	}, BOOT_S);
	await page.getByRole('menuitem', { name: /^Terminal/ }).click();
	await type(page, 'cat file.txt', /kept in the pouch/, 90);
	await shoot(page, 'qemu-kept');
}, BOOT_S + 200);

test('batwa is killed under the running VM and finds it again, not booted anew', async (it) => {
	const { page, dir } = it;
	await type(page, 'cat /proc/sys/kernel/random/boot_id > /tmp/boot; echo mark""ed', /marked/, 60);
	const { port } = it.master;
	it.master.kill('SIGKILL');
	await it.master.exited;
	it.master = await up({ log: 'qemu-master', dir, port, args: ['--driver', 'qemu'] });
	// The shell was the agent's own SSH client and went with it, which the page says.
	await page.getByRole('button', { name: 'Reopen' }).waitFor({ timeout: 60_000 });
	await state(page, 'pouch', 'Running', 60);
	await eventually('its terminal opens again', async () => {
		await page.getByRole('button', { name: 'Reopen' }).click();
		await page.getByRole('status').getByText('live').waitFor({ timeout: 20_000 });
		return true;
	}, 60);
	await type(page, 'cmp /tmp/boot /proc/sys/kernel/random/boot_id && echo the-""same', /the-same/, 60);
}, 240);

test('it is deleted and nothing is left of it', async ({ page }) => {
	await choose(page, 'pouch', /Purge/);
	const dialog = page.getByRole('dialog', { name: 'Purge pouch?' });
	await dialog.getByRole('textbox').fill('pouch');
	await dialog.getByRole('button', { name: 'Purge for good' }).click();
	await eventually('it is gone', async () => (await row(page, 'pouch').count()) === 0, 60);
	const { items } = await page.evaluate(() => fetch('/api/v1/vms').then((answer) => answer.json()));
	check(items.length === 0, `still listed: ${JSON.stringify(items)}`);
}, 90);

test('the page printed no error on the way', async ({ errors }) => {
	check(errors.length === 0, errors.join('\n'));
});
