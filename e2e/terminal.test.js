// Terminals as one lives in them all day: reloads in the middle of output, pastes, a phone's keys, settings.
import { choose, keepFailure, open, screen, setUp, shoot, type } from './browser.js';
import { check, eventually, suite } from './harness.js';
import { stateDir, up } from './master.js';

const PASSWORD = 'correct horse battery';

const test = suite('terminal', {
	async start() {
		const dir = stateDir();
		const master = await up({ log: 'terminal-master', dir, args: ['--driver', 'fake', '--fake', 'vms=2,latency=50ms'] });
		return { master, ...(await open()) };
	},
	async stop({ browser, master }) {
		await browser.close();
		await master.stop();
		master.remove();
	},
	failed: ({ page }, name) => keepFailure(page, name)
});

const VM = 'demo-01';
const focus = (page) => page.locator('[role=tabpanel].shown .xterm-helper-textarea').focus();

/** Pastes as the browser does. */
function paste(page, text) {
	return page.locator('[role=tabpanel].shown .xterm-helper-textarea').evaluate((node, pasted) => {
		const data = new DataTransfer();
		data.setData('text/plain', pasted);
		node.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true }));
	}, text);
}

test('a reload in the middle of a loop that counts loses no number and shows none twice', async ({ page, master }) => {
	await setUp(page, await eventually('the set-up link', () => master.setupLink()), PASSWORD);
	await page.goto(`${master.url}/vms`);
	await choose(page, VM, /^Terminal/);
	await type(page, 'echo ready-$((6*7))', /ready-42/);
	await page.getByRole('button', { name: 'Fill the window' }).click();
	await focus(page);
	await page.keyboard.type('clear; for i in $(seq 1 40); do echo n-$i; sleep 0.1; done\n');
	await eventually('it counts', async () => (await screen(page)).includes('n-7'));
	await page.reload();
	await eventually('it has counted to the end', async () => /^n-40\s*$/m.test(await screen(page)));
	await page.getByRole('button', { name: 'Fill the window' }).click();
	const seen = await eventually('all of it is shown', async () => {
		const numbers = [...(await screen(page)).matchAll(/^n-(\d+)\s*$/gm)].map((match) => Number(match[1]));
		return numbers.length >= 40 ? numbers : null;
	});
	check(seen.join(' ') === Array.from({ length: 40 }, (_, i) => i + 1).join(' '), `it shows: ${seen.join(' ')}`);
	await page.getByRole('button', { name: 'Make smaller' }).click();
});

test('several lines pasted where they would run at once are asked about first', async ({ page }) => {
	await focus(page);
	await page.keyboard.type('stty -echo; cat\n');
	const ask = page.getByRole('alertdialog', { name: 'Paste' });
	// A shell with bracketed paste would show the lines instead of running them: `cat` knows nothing of it.
	await eventually('cat reads', async () => {
		await paste(page, 'alpha\nbeta\n');
		return ask.isVisible();
	});
	await ask.getByText('would run 2 lines at once').waitFor();
	await shoot(page, 'paste');
	await ask.getByRole('button', { name: 'Do not' }).click();
	await paste(page, 'one\ntwo\n');
	await ask.getByRole('button', { name: 'As one line' }).click();
	await page.keyboard.press('Enter');
	await eventually('it is one line', async () => /^one two\s*$/m.test(await screen(page)));
	check(!(await screen(page)).includes('alpha'), 'what was not to be pasted was');
	await paste(page, 'three\nfour\n');
	await ask.getByRole('button', { name: 'Paste', exact: true }).click();
	await eventually('both lines are there', async () => /^three\s+four\s*$/m.test(await screen(page)));
	await page.keyboard.press('Control+c');
	await type(page, 'stty echo; echo back-$((1+1))', /back-2/);
});

test('a file that is dropped onto a terminal is uploaded, and writes over nothing without a word', async ({ page }) => {
	const drop = async (content) => {
		const bag = await page.evaluateHandle((text) => {
			const data = new DataTransfer();
			data.items.add(new File([text], 'my notes (1).txt'));
			return data;
		}, content);
		const pane = page.locator('[role=tabpanel].shown');
		await pane.dispatchEvent('dragenter', { dataTransfer: bag });
		await page.getByText(`Drop to upload to the home folder of ${VM}`).waitFor();
		await shoot(page, 'drop');
		await pane.dispatchEvent('drop', { dataTransfer: bag });
		await page.getByText('Drop to upload').waitFor({ state: 'hidden' });
	};
	const line = (role) => page.getByRole(role, { name: 'my notes (1).txt' });
	await drop('first\n');
	await line('status').getByText(`is in the home folder of ${VM}`).waitFor();
	await line('status').getByRole('button', { name: 'Dismiss' }).click();
	await type(page, `cat 'my notes (1).txt'; echo seen-$((1+1))`, /first\s+seen-2/);
	await drop('second\n');
	await line('alertdialog').getByText('already').waitFor();
	await shoot(page, 'drop-asks');
	await type(page, `cat 'my notes (1).txt'; echo kept-$((1+2))`, /first\s+kept-3/);
	await line('alertdialog').getByRole('button', { name: 'Replace it' }).click();
	await line('status').getByText(`is in the home folder of ${VM}`).waitFor();
	await type(page, `cat 'my notes (1).txt'; echo new-$((1+3))`, /second\s+new-4/);
});

test('a program reaches the clipboard only when one has allowed it', async ({ page, context, master }) => {
	await context.grantPermissions(['clipboard-read', 'clipboard-write'], { origin: master.url });
	await page.evaluate(() => navigator.clipboard.writeText('mine'));
	await type(page, `printf '\\033]52;c;dGhlaXJz\\a'; echo tried-$((2+2))`, /tried-4/);
	await page.getByText(`A program on ${VM} wanted to put text into your clipboard`).waitFor();
	check((await page.evaluate(() => navigator.clipboard.readText())) === 'mine', 'the clipboard was changed');
	await page.getByRole('button', { name: 'Settings of terminals' }).click();
	const dialog = page.getByRole('dialog', { name: 'Terminals' });
	await dialog.getByRole('checkbox', { name: /into the clipboard/ }).check();
	await shoot(page, 'terminal-settings');
	await dialog.getByRole('button', { name: 'Close' }).click();
	await type(page, `printf '\\033]52;c;dGhlaXJz\\a'; echo again-$((2+3))`, /again-5/);
	await eventually('the clipboard has it', async () => (await page.evaluate(() => navigator.clipboard.readText())) === 'theirs');
});

test('the size of the font is kept, and the shell is told how many columns that makes', async ({ page }) => {
	const columns = async (mark) => Number((await type(page, `echo ${mark}-$(stty size | cut -d' ' -f2)`, new RegExp(`${mark}-(\\d+)`)))[1]);
	const before = await columns('small');
	await page.getByRole('button', { name: 'Settings of terminals' }).click();
	const dialog = page.getByRole('dialog', { name: 'Terminals' });
	await dialog.getByLabel('Font size').fill('20');
	await dialog.getByLabel('Colours').selectOption('dark');
	await dialog.getByRole('button', { name: 'Close' }).click();
	const after = await eventually('there are fewer columns', async () => {
		const now = await columns('large');
		return now < before ? now : null;
	});
	await shoot(page, 'terminal-large');
	await page.reload();
	await page.getByRole('tab', { name: VM }).waitFor();
	check((await columns('reloaded')) === after, 'the size is forgotten');
	await page.getByRole('button', { name: 'Settings of terminals' }).click();
	await dialog.getByLabel('Font size').fill('13');
	await dialog.getByLabel('Colours').selectOption('as the page');
	await dialog.getByRole('button', { name: 'Close' }).click();
});

test('two stand side by side, each of its own width, also after a reload', async ({ page }) => {
	await page.getByRole('button', { name: 'Split' }).click();
	const panes = page.locator('[role=tabpanel].shown');
	await eventually('there are two', async () => (await panes.count()) === 2);
	const [left, right] = [panes.nth(0), panes.nth(1)];
	const answers = async (pane, mark) => {
		await pane.locator('.xterm-helper-textarea').focus();
		await page.keyboard.type(`echo ${mark}-$((7+1))-$(stty size | cut -d' ' -f2)\n`);
		return eventually(`${mark} answers`, async () => new RegExp(`${mark}-8-(\\d+)`).exec(await pane.locator('.xterm-rows').innerText()));
	};
	const whole = (await page.viewportSize()).width;
	for (const [pane, mark] of [[right, 'right'], [left, 'left']]) {
		check(Number((await answers(pane, mark))[1]) < 100, `the ${mark} one is not told its width`);
		const box = await pane.boundingBox();
		check(box.width < whole * 0.55, `the ${mark} one is ${box.width} px wide`);
	}
	check(!(await right.locator('.xterm-rows').innerText()).includes('left-8'), 'both show the same');
	await shoot(page, 'terminal-split');
	await page.reload();
	await eventually('there are two again', async () => (await panes.count()) === 2);
	await eventually('with what they showed', async () => (await right.locator('.xterm-rows').innerText()).includes('right-8'));
	await page.getByRole('button', { name: 'One at a time' }).click();
	await eventually('there is one', async () => (await panes.count()) === 1);
	check((await page.getByRole('tab').count()) === 2, 'one of them is gone');
	await page.getByRole('button', { name: `End terminal ${VM}` }).last().click();
	await eventually('one tab is left', async () => (await page.getByRole('tab').count()) === 1);
});

test('a phone has the keys that its own keyboard lacks', async ({ browser, context, master }) => {
	const phone = await browser.newContext({ storageState: await context.storageState(), viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true, reducedMotion: 'reduce' });
	const page = await phone.newPage();
	page.setDefaultTimeout(15_000);
	await page.goto(`${master.url}/vms`);
	await choose(page, VM, /^Terminal/);
	await type(page, 'echo on-$((4+4))', /on-8/);
	const keys = page.getByRole('toolbar', { name: 'Keys' });
	await page.keyboard.type('cat -v\n');
	await keys.getByRole('button', { name: 'Up' }).click();
	await keys.getByRole('button', { name: 'Bar' }).click();
	await page.keyboard.press('Enter');
	await eventually('the keys arrive', async () => /^\^\[\[A\|\s*$/m.test(await screen(page)));
	await keys.getByRole('button', { name: 'Control' }).click();
	await page.keyboard.type('c');
	await eventually('Ctrl C is typed', async () => (await screen(page)).includes('^C'));
	check((await keys.getByRole('button', { name: 'Control' }).getAttribute('aria-pressed')) === 'false', 'Ctrl stays held');
	await shoot(page, 'terminal-phone');
	const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
	check(over <= 0, `it is ${over} px too wide`);
	await phone.close();
});

test('no page printed an error', async ({ errors }) => {
	check(errors.length === 0, `the page printed errors:\n${errors.join('\n')}`);
});
