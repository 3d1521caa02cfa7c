// cloud-init on the page: templates with variables and secrets, one's SSH keys, user-data that is checked as one types.
import { stateDir, up } from './master.js';
import { keepFailure, open, setUp, shoot } from './browser.js';
import { check, eventually, suite } from './harness.js';

const PASSWORD = 'correct horse battery';
const SECRET = 'hunter2-and-more';
const KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH ann@home';

const test = suite('cloud-init', {
	async start() {
		const dir = stateDir();
		const master = await up({ log: 'cloud-init-master', dir, args: ['--driver', 'fake', '--fake', 'vms=0,latency=50ms'] });
		return { dir, master, ...(await open()) };
	},
	async stop({ browser, master }) {
		await browser.close();
		await master.stop();
		master.remove();
	},
	failed: ({ page }, name) => keepFailure(page, name)
});

test('an SSH key is added, and a private one is refused at the field', async ({ page, master }) => {
	const link = await eventually('the set-up link', () => master.setupLink());
	await setUp(page, link, PASSWORD);
	await page.getByRole('link', { name: 'Settings' }).click();
	await page.getByRole('button', { name: 'Add a key' }).click();
	const dialog = page.getByRole('dialog', { name: 'Add an SSH key' });
	await dialog.getByLabel('Public key').fill('-----BEGIN OPENSSH PRIVATE KEY-----');
	await dialog.getByRole('button', { name: 'Add the key' }).click();
	await dialog.getByText(/this is a private key/).waitFor();
	await dialog.getByLabel('Public key').fill(KEY);
	await dialog.getByRole('button', { name: 'Add the key' }).click();
	await page.getByRole('button', { name: 'Remove ann@home' }).waitFor();
	await shoot(page, 'ssh-keys');
});

test('a template is saved with a secret that nobody is shown again', async ({ page }) => {
	await page.getByRole('link', { name: 'Templates' }).click();
	await page.getByText('No templates yet').waitFor();
	await page.getByRole('button', { name: 'New template' }).click();
	const dialog = page.getByRole('dialog', { name: 'New template' });
	await dialog.getByLabel('Name', { exact: true }).fill('web');
	const text = dialog.getByRole('textbox', { name: 'User-data' });
	await dialog.locator('.cm-content').waitFor();
	await text.fill('#cloud-config\nhostname: {{host}}\npassword: {{pw}}\npackage: [nginx]\n');
	await dialog.getByText('Line 4:').waitFor();
	await dialog.getByText(/did you mean packages/).waitFor();
	await dialog.getByRole('checkbox').nth(1).check();
	await dialog.getByLabel('Value of pw when none is given').fill(SECRET);
	await shoot(page, 'template');
	await dialog.getByRole('button', { name: 'Save' }).click();
	await page.getByRole('button', { name: 'web', exact: true }).click();
	const again = page.getByRole('dialog', { name: 'web' });
	await again.getByLabel('Value of pw when none is given').waitFor();
	check((await again.getByLabel('Value of pw when none is given').inputValue()) === '', 'the secret came back');
	// Saved again without typing it, the secret stays.
	await again.getByLabel('What host is').fill('what it calls itself');
	await again.getByRole('button', { name: 'Save' }).click();
	await again.waitFor({ state: 'detached' });
	const shown = await page.evaluate(() => fetch('/api/v1/templates').then((answer) => answer.json()));
	check(shown.items[0].variables[1].has_default && !JSON.stringify(shown).includes(SECRET), 'the secret is not kept, or is shown');
});

test('a VM is made of a template, with what is wrong told at the variable', async ({ page }) => {
	await page.keyboard.press('c');
	const dialog = page.getByRole('dialog', { name: 'New VM' });
	const name = dialog.getByLabel('Name', { exact: true });
	await eventually('a name is proposed', () => name.inputValue());
	await name.fill('web-1');
	await dialog.getByLabel('Image').selectOption('ubuntu:24.04');
	await dialog.getByText('cloud-init, labels').click();
	await dialog.getByText('Put my SSH key in').waitFor();
	await dialog.getByLabel('Template').selectOption('web');
	await dialog.getByText('what it calls itself').waitFor();
	await dialog.getByRole('button', { name: 'Create', exact: true }).click();
	await dialog.getByText('give a value').waitFor();
	await dialog.getByLabel('host', { exact: true }).fill('web-1');
	await dialog.getByText(/--template web --var host=web-1/).waitFor();
	await shoot(page, 'create-template');
	await dialog.getByRole('button', { name: 'Create', exact: true }).click();
	const made = page.getByRole('dialog', { name: 'web-1' });
	await made.getByRole('button', { name: 'Open terminal' }).waitFor({ timeout: 30_000 });
	await made.getByRole('button', { name: 'Close' }).click();
});

test('user-data is checked line by line before it is sent', async ({ page }) => {
	await page.keyboard.press('c');
	const dialog = page.getByRole('dialog', { name: 'New VM' });
	await dialog.getByText('cloud-init, labels').click();
	await dialog.locator('.cm-content').waitFor();
	const text = dialog.getByRole('textbox', { name: 'cloud-init' });
	await text.fill('#cloud-config\nruncmd:\n  - echo a\n bad: [\n');
	await dialog.getByText('Line 4:').waitFor();
	await shoot(page, 'create-user-data');
	await text.fill('#cloud-config\nruncmd:\n  - echo a\n');
	await eventually('nothing is wrong any more', async () => (await dialog.getByText(/^Line \d/).count()) === 0);
	await dialog.getByRole('button', { name: 'Cancel' }).click();
});
