// Displays in a real browser, of fake VMs that draw a bar which keys move; and the sessions that a VM's panel lists.
import { choose, keepFailure, open, row, setUp, shoot, type } from './browser.js';
import { check, eventually, suite } from './harness.js';
import { stateDir, up } from './master.js';

const PASSWORD = 'correct horse battery';
const VM = 'demo-01';
const ARGS = ['--driver', 'fake', '--fake', 'vms=2,latency=50ms'];

const test = suite('display', {
	async start() {
		const dir = stateDir();
		const master = await up({ log: 'display-master', dir, args: ARGS });
		return { dir, master, ...(await open()) };
	},
	async stop({ browser, master }) {
		await browser.close();
		await master.stop();
		master.remove();
	},
	failed: ({ page }, name) => keepFailure(page, name)
});

const pane = (page) => page.locator('[role=tabpanel].shown');
const canvas = (page) => pane(page).locator('canvas');

/** Where the bar begins, in pixels of the VM; -1 where none is drawn. @param {import('playwright-core').Page} page */
function bar(page) {
	return canvas(page).evaluate((node) => {
		if (node.width === 0) return -1;
		const { data } = node.getContext('2d').getImageData(0, 100, node.width, 1);
		for (let x = 0; x < node.width; x += 1) if (data[4 * x] > 200 && data[4 * x + 2] < 100) return x;
		return -1;
	});
}

const barIs = (page, wanted) => eventually(`the bar is at ${wanted}`, async () => {
	const at = await bar(page);
	if (at !== wanted) throw new Error(`it is at ${at}`);
	return true;
});

test('a display is drawn, and a key reaches the VM', async ({ page, master }) => {
	await setUp(page, await eventually('the set-up link', () => master.setupLink()), PASSWORD);
	await page.goto(`${master.url}/vms`);
	const scripts = [];
	page.on('request', (request) => scripts.push(request.url()));
	await choose(page, VM, /^Display/);
	await page.getByRole('tab', { name: `${VM} display` }).waitFor();
	await barIs(page, 0);
	check(scripts.some((url) => /\/_app\/.*\.js/.test(url)), 'noVNC was in the first page already');
	// It has the keyboard since it is there.
	await page.keyboard.press('a');
	await barIs(page, 16);
	await shoot(page, 'display');
});

test('what is seen only is not typed to, and a text is typed key by key', async ({ page }) => {
	await pane(page).getByRole('button', { name: 'View only' }).click();
	await pane(page).getByText('View only: keys and pointer are not sent').waitFor();
	await canvas(page).click();
	await page.keyboard.press('b');
	await pane(page).getByRole('button', { name: 'View only' }).click();
	await canvas(page).click();
	await page.keyboard.press('c');
	await barIs(page, 32);
	await pane(page).getByRole('button', { name: 'Type text' }).click();
	await pane(page).getByLabel('Text to type').fill('Ab…');
	await pane(page).getByText('one character has none there and is left out').waitFor();
	await shoot(page, 'display-text');
	await pane(page).getByRole('button', { name: 'Type', exact: true }).click();
	// Shift, A and b.
	await barIs(page, 80);
	await pane(page).getByRole('button', { name: 'Ctrl Alt Del' }).click();
	await barIs(page, 128);
});

test('a cut is said and mended, and a reload finds the display again', async (it) => {
	const { page, dir } = it;
	const { port } = it.master;
	it.master.kill('SIGKILL');
	await it.master.exited;
	await pane(page).getByText(/reconnecting/).waitFor();
	await shoot(page, 'display-cut');
	it.master = await up({ log: 'display-master', dir, port, args: ARGS });
	// What fake displays show is not kept.
	await barIs(page, 0);
	await page.reload();
	await barIs(page, 0);
	await page.getByRole('button', { name: 'Fill the window' }).click();
	const box = await canvas(page).boundingBox();
	check(box && box.width > 900, `it is not scaled: ${JSON.stringify(box)}`);
	await pane(page).getByRole('button', { name: 'Fit' }).click();
	const own = await eventually('its own size', async () => {
		const size = await canvas(page).boundingBox();
		return size && size.width === 320 ? size : null;
	});
	check(own.height === 200, JSON.stringify(own));
	await pane(page).getByRole('button', { name: 'Fit' }).click();
	await page.getByRole('button', { name: 'Make smaller' }).click();
}, 90);

test('a display ends with its VM, and its button says why there is none', async ({ page }) => {
	await choose(page, VM, /^Stop/);
	await pane(page).getByText(/display was closed/).waitFor();
	await pane(page).getByRole('button', { name: 'Reopen' }).click();
	await pane(page).getByText(/VM is stopped/).waitFor();
	await row(page, VM).getByRole('button', { name: `Actions for ${VM}` }).click();
	const item = page.getByRole('menuitem', { name: /^Display/ });
	check((await item.getAttribute('aria-disabled')) === 'true', 'it can be chosen');
	await page.keyboard.press('Escape');
	await shoot(page, 'display-ended');
	await pane(page).getByRole('button', { name: 'Close', exact: true }).click();
	await page.getByRole('tab', { name: `${VM} display` }).waitFor({ state: 'detached' });
});

test('a display is shown in a tab of its own, on a phone too', async ({ page, context, master }) => {
	const phone = await context.newPage();
	await phone.setViewportSize({ width: 390, height: 844 });
	await phone.goto(`${master.url}/display/local/demo-02`);
	await barIs(phone, 0);
	const wide = await phone.evaluate(() => document.documentElement.scrollWidth);
	check(wide <= 390, `it is ${wide} wide`);
	await shoot(phone, 'display-phone');
	await phone.close();
	await page.bringToFront();
});

test('a panel lists the sessions of its VM as they come and go', async ({ page, master }) => {
	await page.goto(`${master.url}/vms?vm=local%2Fdemo-02`);
	const list = page.getByRole('region', { name: 'Open terminals' });
	await list.getByText('None is open.').waitFor();
	await choose(page, 'demo-02', /^Terminal/);
	await type(page, 'echo here-$((1+1))', /here-2/);
	await list.getByText('Shell', { exact: true }).waitFor();
	await list.getByText(/there now: admin/).waitFor();
	await list.scrollIntoViewIfNeeded();
	await shoot(page, 'panel-sessions');
	await list.getByRole('button', { name: 'End demo-02' }).click();
	await list.getByText('None is open.').waitFor();
});

test('the page printed no error on the way', async ({ errors }) => {
	check(errors.length === 0, errors.join('\n'));
});
