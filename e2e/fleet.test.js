// A fleet on the page: thousands of VMs, machines that join by one line, what is missing, what is revoked.
import { rmSync } from 'node:fs';
import { joined, rejoin, stateDir, up } from './master.js';
import { choose, keepFailure, open, row, setUp, shoot } from './browser.js';
import { check, eventually, suite } from './harness.js';

const VMS = 2500;
const TINY = ['--driver', 'fake', '--fake', 'vms=3,latency=20ms'];

const test = suite('fleet', {
	async start() {
		const master = await up({ log: 'fleet-master', dir: stateDir(), args: ['--driver', 'fake', '--fake', `vms=${VMS},latency=20ms`] });
		return { master, agents: [], folders: [], ...(await open()) };
	},
	async stop({ browser, master, agents, folders }) {
		await browser.close();
		for (const agent of agents) await agent.stop();
		await master.stop();
		master.remove();
		for (const folder of folders) rmSync(folder, { recursive: true, force: true });
	},
	failed: ({ page }, name) => keepFailure(page, name)
});

const search = (page) => page.getByRole('combobox', { name: 'Search VMs' });
const rows = (page) => page.getByRole('grid', { name: 'VMs' }).getByRole('row');

/** Runs a machine that joins with the token of a line as the page shows it. */
async function joins(it, line, id) {
	const token = /batwa-join\.\S+/.exec(line)?.[0];
	check(token, `there is no token in: ${line}`);
	const dir = stateDir();
	it.folders.push(dir);
	const agent = await joined({ log: `fleet-${id}`, dir, id, token, master: it.master.url, args: TINY });
	it.agents.push(agent);
	return { agent, dir };
}

test('the account is made', async ({ page, master }) => {
	await setUp(page, await eventually('the set-up link', () => master.setupLink()), 'correct horse battery');
});

test('of thousands of VMs only those in view are on the page, and only those looked at are fetched', async ({ page, master }) => {
	let fetched = 0;
	const listen = async (response) => {
		if (!/\/api\/v1\/vms\?/.test(response.url())) return;
		const body = await response.json().catch(() => ({ items: [] }));
		fetched += body.items.length;
	};
	page.on('response', listen);
	await page.goto(`${master.url}/vms`);
	const grid = page.getByRole('grid', { name: 'VMs' });
	await eventually('all are counted', async () => (await grid.getAttribute('aria-rowcount')) === String(VMS));
	await row(page, 'demo-01').waitFor();
	check((await rows(page).count()) < 80, `${await rows(page).count()} rows are on the page`);
	check(fetched < 500, `${fetched} VMs were fetched for the first look`);
	await grid.focus();
	await page.keyboard.press('End');
	await eventually('the last is in view', async () => (await grid.locator(`#row-${VMS - 1}`).innerText()).includes('demo-'));
	check((await rows(page).count()) < 80, `${await rows(page).count()} rows are on the page at its end`);
	await shoot(page, 'fleet-end');
	const far = fetched;
	await page.keyboard.press('Home');
	await row(page, 'demo-01').waitFor();
	// A wheel turned through everything: no row is ever double, and none stays empty.
	for (let step = 0; step < 30; step += 1) await grid.evaluate((box) => box.scrollBy(0, 700));
	await eventually('what is in view is there', async () => (await grid.locator('.unknown').count()) === 0);
	const names = await grid.locator('.row .name').allInnerTexts();
	check(new Set(names).size === names.length && names.length > 10, `rows are double or gone: ${names.join(' ')}`);
	page.off('response', listen);
	check(far <= 500, `${far} VMs were fetched to see both ends`);
}, 120);

test('order, search and what is open are in the address, and come back with it', async ({ page, master }) => {
	await page.goto(`${master.url}/vms`);
	await page.getByRole('columnheader', { name: 'Name' }).getByRole('button').click();
	await page.waitForURL(/sort=-name/);
	await row(page, 'demo-999').waitFor();
	await search(page).fill('name:demo-99');
	await eventually('it is narrowed', async () => (await page.getByRole('grid').getAttribute('aria-rowcount')) === '11');
	await row(page, 'demo-99').click();
	await page.getByRole('complementary', { name: 'Details of demo-99' }).getByText('Link to').waitFor();
	const address = page.url();
	await shoot(page, 'fleet-panel');
	await page.goto(`${master.url}/machines`);
	await page.goto(address);
	await page.getByRole('complementary', { name: 'Details of demo-99' }).waitFor();
	check((await search(page).inputValue()) === 'name:demo-99', 'the search is not in the box');
	check((await page.getByRole('grid').getAttribute('aria-rowcount')) === '11', 'it is not narrowed');
	await page.keyboard.press('Escape');
});

test('the search offers what can come next, with how many there are, and marks what is wrong where it is', async ({ page, master }) => {
	await page.goto(`${master.url}/vms`);
	await row(page, 'demo-01').waitFor();
	await page.keyboard.press('/');
	await page.keyboard.type('sta');
	await page.getByRole('option', { name: /^state:/ }).waitFor();
	await page.keyboard.press('Tab');
	const stopped = page.getByRole('option', { name: /^stopped/ });
	const count = Number((await stopped.innerText()).replace(/\D/g, ''));
	await shoot(page, 'fleet-suggest');
	await page.keyboard.type('stop');
	await page.keyboard.press('Tab');
	check((await search(page).inputValue()) === 'state:stopped ', `the box holds ${await search(page).inputValue()}`);
	await eventually('as many are listed as was said', async () => (await page.getByRole('grid').getAttribute('aria-rowcount')) === String(count));
	await search(page).fill('state:stopped memory>much');
	await page.getByRole('status').getByText(/is compared with a size/).waitFor();
	check((await page.locator('.paint .wrong').innerText()) === 'much', 'the wrong part is not marked');
	check((await search(page).getAttribute('aria-invalid')) === 'true', 'the box is not marked as wrong');
	await shoot(page, 'fleet-wrong');
	check((await rows(page).count()) > 5, 'what was listed is gone while one types');
	await search(page).fill('"no such words"');
	await page.getByText('Nothing matches').waitFor();
	await page.getByRole('button', { name: 'Show all' }).click();
	const filters = page.getByRole('navigation', { name: 'Filters' });
	await filters.getByRole('button', { name: /^Stopped/ }).click();
	await page.waitForURL(/state%3Astopped/);
	await filters.getByRole('button', { name: /^Running/ }).click();
	check((await search(page).inputValue()) === 'state:stopped,running', `the box holds ${await search(page).inputValue()}`);
	await filters.getByRole('button', { name: 'Clear' }).click();
	await eventually('the search is empty', async () => (await search(page).inputValue()) === '');
});

test('many are selected by what they match, and stopped together', async ({ page, master }) => {
	await page.goto(`${master.url}/vms?q=${encodeURIComponent('name:demo-12* state:running')}`);
	await rows(page).nth(1).waitFor();
	const all = Number(await page.getByRole('grid').getAttribute('aria-rowcount'));
	check(all > 50, `only ${all} match`);
	await page.getByRole('checkbox', { name: /^Select demo/ }).first().click();
	await page.getByRole('button', { name: `Select all ${all}` }).click();
	await page.getByText(`${all} selected`).waitFor();
	await page.getByRole('toolbar').getByRole('button', { name: 'Stop' }).click();
	// The list empties under one's eyes, and nothing is said to be under way once it is not.
	await page.getByText('Nothing matches').waitFor({ timeout: 90_000 });
	await page.getByRole('button', { name: 'Your operations', exact: true }).waitFor();
}, 120);

test('a machine joins with the line that the page shows, and is seen coming', async (it) => {
	const { page, master } = it;
	await page.goto(`${master.url}/machines`);
	await page.getByRole('button', { name: 'Add a machine' }).click();
	const dialog = page.getByRole('dialog', { name: 'Add a machine' });
	await dialog.getByRole('textbox', { name: /Labels/ }).fill('site=lab, rack=2');
	await shoot(page, 'fleet-add');
	await dialog.getByRole('button', { name: 'Make the line' }).click();
	const line = await dialog.getByText(/^curl /).innerText();
	check(line.includes(`${master.url}/join.sh`), line);
	await dialog.getByText('Waiting for it to connect').waitFor();
	await dialog.getByRole('button', { name: 'batwa is there' }).click();
	const command = await dialog.getByText(/^batwa agent join/).innerText();
	check(command.includes(`batwa agent join ${master.url} batwa-join.`), command);
	await dialog.getByText(/works on the master’s own machine only/).waitFor();
	await dialog.getByRole('button', { name: 'One line' }).click();
	await shoot(page, 'fleet-add-waiting');
	it.barn = await joins(it, line, 'barn');
	await dialog.getByText('online and ready for VMs').waitFor({ timeout: 30_000 });
	await shoot(page, 'fleet-add-done');
	await dialog.getByRole('link', { name: 'Look at it' }).click();
	await page.waitForURL('**/machines/barn');
	await page.getByText('it dials in').waitFor();
	await page.getByText('rack=2').waitFor();
	await page.getByText('site=lab').waitFor();
	await page.getByRole('link', { name: 'demo-01' }).waitFor();
	await shoot(page, 'fleet-machine');
}, 90);

test('a machine that needs approval waits, shows its fingerprint, and is let in by it', async (it) => {
	const { page, master } = it;
	await page.goto(`${master.url}/machines`);
	await page.getByRole('button', { name: 'Add a machine' }).click();
	const dialog = page.getByRole('dialog', { name: 'Add a machine' });
	await dialog.getByLabel('Machines').fill('3');
	await dialog.getByRole('checkbox').uncheck();
	await dialog.getByRole('button', { name: 'Make the line' }).click();
	const { agent } = await joins(it, await dialog.getByText(/^curl /).innerText(), 'loft');
	const card = dialog.getByRole('region', { name: 'loft waits for approval' });
	const fingerprint = (await card.getByText(/^[0-9a-f]{16}$/).innerText()).trim();
	await shoot(page, 'fleet-approve');
	check(agent.output().includes('waits for an admin'), 'its own output does not say that it waits');
	await card.getByRole('button', { name: 'Approve' }).click();
	await dialog.getByText('online and ready for VMs').waitFor({ timeout: 30_000 });
	await dialog.getByText('1 of 3 have joined').waitFor();
	await dialog.getByRole('button', { name: 'Done' }).click();
	await page.getByRole('row').filter({ hasText: 'loft' }).first().getByRole('link').first().click();
	await page.getByText(fingerprint).waitFor();
	await page.getByRole('link', { name: 'Machines' }).first().click();
	const token = page.getByRole('row').filter({ hasText: 'after approval' });
	await token.getByText('1 of 3').waitFor();
	await shoot(page, 'fleet-machines');
	await token.getByRole('button', { name: 'Revoke' }).click();
	await page.getByText('The join token is revoked').waitFor();
	await token.waitFor({ state: 'detached' });
}, 90);

test('a link that is cut shows at once, stays in the log, and leaves the VMs listed as old', async (it) => {
	const { page, master } = it;
	await page.goto(`${master.url}/machines/barn`);
	await page.getByText('it dials in').waitFor();
	it.barn.agent.kill('SIGKILL');
	await it.barn.agent.exited;
	await page.locator('.page-head').getByText('Offline').waitFor();
	await page.getByRole('list', { name: 'Alerts' }).waitFor();
	await page.getByRole('region', { name: 'Link' }).getByText('Offline').waitFor();
	await shoot(page, 'fleet-offline');
	await page.goto(`${master.url}/vms?q=${encodeURIComponent('agent:barn is:stale')}`);
	await page.getByText(/as of/).first().waitFor();
	await row(page, 'demo-01').click();
	const panel = page.getByRole('complementary', { name: 'Details of demo-01' });
	await panel.getByText('may be out of date').waitFor();
	await panel.getByRole('region', { name: 'How sure this is' }).getByText('offline', { exact: true }).waitFor();
	await shoot(page, 'fleet-stale');
	await choose(page, 'demo-01', /^Stop once its machine is back/);
	await page.getByText('barn will stop demo-01 once it is back').waitFor();
	await shoot(page, 'fleet-when-online');
	it.barn.agent = await rejoin({ log: 'fleet-barn', dir: it.barn.dir, args: TINY });
	it.agents.push(it.barn.agent);
	await panel.getByText('may be out of date').waitFor({ state: 'detached' });
	await panel.getByRole('region', { name: 'How sure this is' }).getByText('online', { exact: true }).waitFor();
	await page.goto(`${master.url}/vms?q=${encodeURIComponent('agent:barn state:stopped')}`);
	await row(page, 'demo-01').getByText('Stopped').waitFor({ timeout: 30_000 });
}, 90);

test('a VM that is gone although nobody asked for it is missing, with where it was, until it is dismissed', async (it) => {
	const { page, master } = it;
	await it.barn.agent.stop();
	// What somebody does with `rm` behind our back.
	rmSync(`${it.barn.dir}/fake`, { recursive: true, force: true });
	it.agents.push(await rejoin({ log: 'fleet-barn', dir: it.barn.dir, args: ['--driver', 'fake', '--fake', 'vms=1,latency=20ms'] }));
	await page.goto(`${master.url}/vms?q=${encodeURIComponent('agent:barn is:missing')}`);
	await row(page, 'demo-03').getByText('Missing').waitFor({ timeout: 30_000 });
	await row(page, 'demo-03').click();
	const panel = page.getByRole('complementary', { name: 'Details of demo-03' });
	await panel.getByText(/Its files were on/).waitFor();
	await shoot(page, 'fleet-missing');
	await panel.getByRole('button', { name: 'Dismiss' }).click();
	await page.getByText('demo-03 is off the list').waitFor();
	await eventually('it is off the list', async () => (await row(page, 'demo-03').count()) === 0);
	await row(page, 'demo-02').getByText('Missing').waitFor();
}, 90);

test('a machine gets a new key, is revoked at once, and its removal says first what goes', async (it) => {
	const { page, master } = it;
	await page.goto(`${master.url}/machines/loft`);
	const key = page.locator('dt', { hasText: /^Key$/ }).locator('xpath=following-sibling::dd[1]');
	const before = await key.innerText();
	const act = async (item, button) => {
		await page.getByRole('button', { name: 'More actions for' }).click();
		await page.getByRole('menuitem', { name: item }).click();
		if (button) await page.getByRole('dialog').getByRole('button', { name: button }).click();
	};
	await act('Change its key…', 'Change the key');
	await page.getByText('has a new key').waitFor();
	await eventually('another key is shown', async () => (await key.innerText()) !== before);
	await act('Revoke…', 'Revoke');
	await page.locator('.page-head').getByText('Revoked').waitFor();
	await shoot(page, 'fleet-revoked');
	await act('Remove…');
	await page.getByRole('dialog').getByText(/forgotten/).first().waitFor();
	await shoot(page, 'fleet-remove');
	await page.getByRole('dialog').getByRole('button', { name: 'Remove' }).click();
	await page.waitForURL('**/machines');
	await page.getByRole('row').filter({ hasText: 'barn' }).waitFor();
	check((await page.getByRole('row').filter({ hasText: 'loft' }).count()) === 0, 'it is still listed');
}, 90);

test('every page of a fleet fits every screen, and prints no error', async ({ browser, master, context, errors }) => {
	const storageState = await context.storageState();
	for (const theme of ['light', 'dark'])
		for (const width of [1440, 1024, 390]) {
			const shown = await browser.newContext({ storageState, viewport: { width, height: width < 500 ? 844 : 900 }, colorScheme: theme, reducedMotion: 'reduce' });
			const look = await shown.newPage();
			for (const path of ['vms', 'vms?vm=barn%2Fdemo-02', 'machines', 'machines/barn']) {
				await look.goto(`${master.url}/${path}`);
				await look.getByRole('heading', { level: 1 }).first().waitFor();
				await (path.startsWith('vms') ? row(look, 'demo-01').first() : look.getByText('barn').first()).waitFor();
				const over = await look.evaluate(() => document.documentElement.scrollWidth - innerWidth);
				check(over <= 0, `/${path} is ${over} px too wide at ${width} px`);
				await shoot(look, `fleet-page-${path.replace(/\W+/g, '-')}-${width}-${theme}`);
			}
			await shown.close();
		}
	check(errors.length === 0, `the page printed errors:\n${errors.join('\n')}`);
}, 300);
