// One terminal on two people's screens: invited to watch, to type, and turned out again; and found from another browser.
import { choose, keepFailure, open, row, screen, setUp, shoot, type, visitor } from './browser.js';
import { check, eventually, suite } from './harness.js';
import { stateDir, up } from './master.js';

const PASSWORD = 'correct horse battery';
const VM = 'demo-01';

const test = suite('sharing', {
	async start() {
		const dir = stateDir();
		const master = await up({ log: 'sharing-master', dir, args: ['--driver', 'fake', '--fake', 'vms=2,latency=50ms'] });
		return { master, ...(await open()) };
	},
	async stop({ browser, master }) {
		await browser.close();
		await master.stop();
		master.remove();
	},
	failed: ({ page }, name) => keepFailure(page, name)
});

/** @type {import('playwright-core').Page} */
let guest;
/** @type {import('playwright-core').BrowserContext} */
let guests;

test('a terminal that is not shared is listed, and closed to others', async ({ page, browser, master }) => {
	await setUp(page, await eventually('the set-up link', () => master.setupLink()), PASSWORD);
	const made = await page.request.post(`${master.url}/api/v1/users`, { data: { name: 'bob', password: PASSWORD, role: 'operator' }, headers: { origin: master.url } });
	check(made.status() === 201, `no account: ${made.status()}`);
	await page.goto(`${master.url}/vms`);
	await row(page, VM).waitFor();
	await choose(page, VM, /^Terminal/);
	await type(page, 'echo secret-$((6*7))', /secret-42/);
	({ context: guests, page: guest } = await visitor(browser, master.url, { name: 'bob', password: PASSWORD }));
	await guest.getByRole('link', { name: /^Terminals/ }).click();
	const attach = guest.getByRole('button', { name: 'Attach' });
	await attach.waitFor();
	check((await attach.getAttribute('aria-disabled')) === 'true', 'it can be entered');
	check((await attach.getAttribute('title')) === 'it is not shared with you: ask admin', 'it does not say why');
});

test('a guest who watches sees all of it and types nothing', async ({ page }) => {
	await page.getByRole('button', { name: 'Share and keep' }).click();
	const dialog = page.getByRole('dialog', { name: 'Share and keep' });
	await dialog.getByLabel('Name').fill('the build');
	await dialog.getByRole('button', { name: 'Rename' }).click();
	await dialog.getByLabel('It ends').selectOption('never by itself');
	await dialog.getByLabel('Invite').fill('nobody');
	await dialog.getByRole('button', { name: 'Invite' }).click();
	await dialog.getByText('user `nobody` does not exist').waitFor();
	await dialog.getByLabel('Invite').fill('bob');
	await dialog.getByRole('button', { name: 'Invite' }).click();
	await dialog.getByLabel('What bob may do').waitFor();
	await shoot(page, 'share');
	await dialog.getByRole('button', { name: 'Done' }).click();

	await guest.getByRole('row', { name: /the build/ }).getByRole('button', { name: 'Attach' }).click();
	await eventually('the guest sees it', async () => (await screen(guest)).includes('secret-42'));
	await guest.getByText('Watching only: what you type is not sent').waitFor();
	await page.getByText('Here: admin, bob (watches)').waitFor();
	await guest.locator('[role=tabpanel].shown .xterm-helper-textarea').focus();
	await guest.keyboard.type('echo guest-$((1+1))\n');
	await type(page, 'echo mine-$((2+2))', /mine-4/);
	await eventually('the guest sees that too', async () => (await screen(guest)).includes('mine-4'));
	check(!(await screen(page)).includes('guest-'), 'the guest typed');
	await shoot(page, 'shared-owner');
	await shoot(guest, 'shared-watching');
	// As wide as the owner's, whatever the guest's own window.
	await guest.setViewportSize({ width: 390, height: 844 });
	await type(page, 'echo wide-$((7+7))-$(stty size)', /wide-14-\d+ 1[0-9]{2}/);
	await eventually('on a phone too', async () => /wide-14-\d+ 1\d\d/.test(await screen(guest)));
	await shoot(guest, 'shared-phone');
	const over = await guest.evaluate(() => document.documentElement.scrollWidth - innerWidth);
	check(over <= 0, `it is ${over} px too wide`);
	await guest.setViewportSize({ width: 1100, height: 760 });
});

test('a guest may type when the owner says so, and is out when that is taken back', async ({ page }) => {
	await page.getByRole('button', { name: 'Share and keep' }).click();
	const dialog = page.getByRole('dialog', { name: 'Share and keep' });
	await dialog.getByLabel('What bob may do').selectOption('may type');
	await guest.getByText('Watching only').waitFor({ state: 'hidden' });
	await guest.getByText('Here: admin, bob', { exact: true }).waitFor();
	await type(guest, 'echo both-$((3+3))', /both-6/);
	await dialog.getByRole('button', { name: 'Stop sharing' }).click();
	await guest.getByText(/not shared with you/).first().waitFor();
	await dialog.getByText('Nobody. Admins can come in all the same.').waitFor();
	await dialog.getByRole('button', { name: 'Done' }).click();
	await eventually('the owner sees what was typed', async () => (await screen(page)).includes('both-6'));
	await guests.close();
});

test('another browser of the same person takes the session up, and ends it', async ({ page, browser, master }) => {
	const { context, page: other } = await visitor(browser, master.url, { name: 'admin', password: PASSWORD });
	await other.getByRole('link', { name: /^Terminals/ }).click();
	const session = other.getByRole('row', { name: /the build/ });
	await session.getByText('until it is ended').waitFor();
	await session.getByRole('button', { name: 'Attach' }).click();
	await eventually('it shows the same', async () => (await screen(other)).includes('both-6'));
	await other.emulateMedia({ colorScheme: 'dark' });
	await shoot(other, 'terminals');
	await other.getByRole('button', { name: 'Hide terminals' }).click();
	await session.getByRole('button', { name: 'End' }).click();
	await other.getByText('No terminal is open').waitFor();
	await page.getByText(/terminal was closed/i).waitFor();
	await context.close();
});

test('no page printed an error', async ({ errors }) => {
	check(errors.length === 0, `the page printed errors:\n${errors.join('\n')}`);
});
