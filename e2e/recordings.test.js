// A terminal that an admin's rule names: marked while it is recorded, found by what it printed, played again.
import { choose, keepFailure, open, row, setUp, shoot, type } from './browser.js';
import { check, eventually, suite } from './harness.js';
import { stateDir, up } from './master.js';

const PASSWORD = 'correct horse battery';
const VM = 'demo-01';

const test = suite('recordings', {
	async start() {
		const dir = stateDir();
		const master = await up({ log: 'recordings-master', dir, args: ['--driver', 'fake', '--fake', 'vms=2,latency=50ms'] });
		return { master, ...(await open()) };
	},
	async stop({ browser, master }) {
		await browser.close();
		await master.stop();
		master.remove();
	},
	failed: ({ page }, name) => keepFailure(page, name)
});

test('an admin says what is recorded, and what is wrong with a rule stands beside it', async ({ page, master }) => {
	await setUp(page, await eventually('the set-up link', () => master.setupLink()), PASSWORD);
	await page.getByRole('link', { name: 'Recordings' }).click();
	await page.getByText('Nothing is recorded').waitFor();
	await page.getByRole('button', { name: 'What is recorded…' }).click();
	const dialog = page.getByRole('dialog', { name: 'What is recorded' });
	await dialog.getByText('No rule').waitFor();
	await dialog.getByRole('button', { name: 'Add a rule' }).click();
	await dialog.getByLabel('Label of rule 1').fill('env');
	await dialog.getByRole('button', { name: 'Save' }).click();
	await dialog.getByText('write it as `key=value`').waitFor();
	await dialog.getByLabel('Label of rule 1').fill('');
	await dialog.getByLabel('Account of rule 1').fill('admin');
	await shoot(page, 'recording-policy');
	await dialog.getByRole('button', { name: 'Save' }).click();
	await dialog.waitFor({ state: 'hidden' });
});

test('a recorded terminal has a red mark, and nobody takes it off', async ({ page, master }) => {
	await page.goto(`${master.url}/vms`);
	await row(page, VM).waitFor();
	await choose(page, VM, /^Terminal/);
	await page.getByRole('status').filter({ hasText: 'Recorded' }).waitFor();
	await type(page, "printf '\\033[1;31mred\\033[0m wörds-%s\\n' $((6*7))", /wörds-42/);
	await shoot(page, 'recorded');
	await page.getByRole('button', { name: 'Share and keep' }).click();
	const dialog = page.getByRole('dialog', { name: 'Share and keep' });
	check(await dialog.getByRole('button', { name: 'Stop recording' }).isDisabled(), 'it can be stopped');
	await dialog.getByRole('button', { name: 'Done' }).click();
	await page.locator('[role=tabpanel].shown .xterm-helper-textarea').focus();
	await page.keyboard.type('sleep 0.3; echo last-$((40+2)); exit\n');
	await page.getByText('The shell ended').waitFor();
	await page.getByRole('button', { name: 'Close', exact: true }).click();
});

test('it is found by what it printed, and played to and fro', async ({ page, master }) => {
	await page.goto(`${master.url}/recordings`);
	await page.getByLabel('Text that was printed').fill('nothing like this');
	await page.getByRole('button', { name: 'Search', exact: true }).click();
	await page.getByText('Nothing matches').waitFor();
	await page.getByLabel('Text that was printed').fill('RED WÖRDS-42');
	await page.getByRole('button', { name: 'Search', exact: true }).click();
	const found = page.getByRole('row', { name: /red wörds-42/ });
	await found.getByText('required').waitFor();
	await shoot(page, 'recordings');
	await found.getByRole('link', { name: 'Play' }).click();
	const shown = async () => (await page.locator('.xterm-rows').first().innerText()).replaceAll('\u00a0', ' ');
	await eventually('it is played to its end', async () => /last-42/.test(await shown()));
	await eventually('it has ended', async () => page.getByRole('button', { name: 'Play' }).isVisible());
	await shoot(page, 'play-recording');
	const place = page.getByRole('slider', { name: 'Place in the recording' });
	await place.fill('0');
	await eventually('it begins again', async () => !/wörds-42/.test(await shown()));
	await page.getByLabel('Speed').selectOption('8×');
	await page.getByRole('button', { name: 'Play' }).click();
	await eventually('it shows the end again', async () => /last-42/.test(await shown()));
	await page.setViewportSize({ width: 390, height: 844 });
	await page.emulateMedia({ colorScheme: 'dark' });
	await shoot(page, 'play-recording-phone');
	const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
	check(over <= 0, `it is ${over} px too wide`);
	await page.setViewportSize({ width: 1440, height: 900 });
});

test('an admin deletes it', async ({ page, master }) => {
	await page.goto(`${master.url}/recordings`);
	await page.getByRole('button', { name: 'Delete' }).click();
	await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
	await page.getByText('Nothing is recorded').waitFor();
});

test('no page printed an error', async ({ errors }) => {
	check(errors.length === 0, `the page printed errors:\n${errors.join('\n')}`);
});
