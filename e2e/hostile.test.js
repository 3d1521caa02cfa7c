// Programs in a VM that want to do something to whoever looks: nothing of theirs runs, and the terminal goes on.
import { choose, keepFailure, open, row, screen, setUp, type } from './browser.js';
import { check, eventually, suite } from './harness.js';
import { stateDir, up } from './master.js';

const VM = 'demo-01';
const SCRIPT = '<img src=x onerror=window.ran=1><script>window.ran=1</script>';

const test = suite('hostile', {
	async start() {
		const dir = stateDir();
		const master = await up({ log: 'hostile-master', dir, args: ['--driver', 'fake', '--fake', 'vms=2,latency=20ms'] });
		const opened = await open();
		/** @type {string[]} */
		const asked = [];
		/** @type {import('playwright-core').Page[]} */
		const pages = [];
		opened.page.on('dialog', (dialog) => {
			asked.push(dialog.message());
			void dialog.dismiss();
		});
		opened.context.on('page', (page) => pages.push(page));
		return { master, asked, pages, ...opened };
	},
	async stop({ browser, master }) {
		await browser.close();
		await master.stop();
		master.remove();
	},
	failed: ({ page }, name) => keepFailure(page, name)
});

/** Nothing of the VM's has run in the page. */
async function ranNothing({ page, asked }) {
	check((await page.evaluate(() => /** @type {any} */ (window).ran)) === undefined, 'a script ran');
	check((await page.locator('img[src=x]').count()) === 0, 'markup became an element');
	check(asked.length === 0, `the page was made to ask: ${asked.join(', ')}`);
}

/** The middle of the first shown row that ends so. */
async function place(page, ending) {
	const found = page.locator('[role=tabpanel].shown .xterm-rows > div').filter({ hasText: ending }).first();
	const box = await found.boundingBox();
	check(box, `${ending} is not on the screen`);
	return { x: box.x + 20, y: box.y + box.height / 2 };
}

test('titles and names with script in them are text', async (it) => {
	const { page, master } = it;
	await setUp(page, await eventually('the set-up link', () => master.setupLink()), 'correct horse battery');
	await page.goto(`${master.url}/vms`);
	await row(page, VM).waitFor();
	await choose(page, VM, /^Terminal/);
	for (const kind of [0, 1, 2]) await type(page, `printf '\\033]${kind};%s\\007' '${SCRIPT}'; echo title-${kind}-$((1+1))`, new RegExp(`title-${kind}-2`));
	check(!(await page.title()).includes('<'), `the window is called ${await page.title()}`);
	await page.getByRole('button', { name: 'Share and keep' }).click();
	const dialog = page.getByRole('dialog', { name: 'Share and keep' });
	await dialog.getByLabel('Name').fill(SCRIPT.slice(0, 64));
	await dialog.getByRole('button', { name: 'Rename' }).click();
	await dialog.getByRole('button', { name: 'Done' }).click();
	await page.getByRole('tab', { name: '<img src=x' }).waitFor();
	await page.getByRole('link', { name: /^Terminals/ }).click();
	await page.getByRole('row', { name: /<img src=x/ }).waitFor();
	await ranNothing(it);
});

test('links to scripts lead nowhere, others only when Ctrl is held', async (it) => {
	const { page, master, pages } = it;
	await page.getByRole('button', { name: 'Fill the window' }).click();
	const links = ['javascript:window.ran=1', 'data:text/html,<script>opener.ran=1</script>', `${master.url}/health`];
	const print = links.map((link, n) => `printf '\\033]8;;%s\\033\\\\link number ${n} is here\\033]8;;\\033\\\\\\n' '${link}'`).join('; ');
	await type(page, `clear; ${print}; echo 'javascript:window.ran=1 '; echo printed-$((1+1))`, /printed-2/);
	for (const held of [[], ['Control']]) {
		for (const words of ['link number 0', 'link number 1', 'javascript:window']) {
			const at = await place(page, words);
			await page.mouse.move(at.x - 3, at.y);
			await page.mouse.move(at.x, at.y, { steps: 4 });
			for (const key of held) await page.keyboard.down(key);
			await page.mouse.click(at.x, at.y);
			for (const key of held) await page.keyboard.up(key);
		}
	}
	await ranNothing(it);
	check(pages.length === 0, 'a link to a script opened a page');
	const at = await place(page, 'link number 2');
	await page.mouse.move(at.x - 3, at.y);
	await page.mouse.move(at.x, at.y, { steps: 4 });
	await page.mouse.click(at.x, at.y);
	await ranNothing(it);
	check(pages.length === 0, 'a click alone opened a page');
	// xterm.js finds a link a moment after the pointer is over it.
	const opened = await eventually('with Ctrl it opens', async () => {
		await page.mouse.move(at.x - 3, at.y);
		await page.mouse.move(at.x, at.y, { steps: 4 });
		await page.keyboard.down('Control');
		await page.mouse.click(at.x, at.y);
		await page.keyboard.up('Control');
		return pages[0];
	});
	await opened.waitForLoadState();
	check((await opened.evaluate(() => window.opener)) === null, 'the page that was opened holds ours');
	for (const one of pages) await one.close();
});

test('what asks the terminal for an answer types no command', async (it) => {
	const { page } = it;
	// A title that is a command, asked back; settings and answers of other terminals' making.
	const command = `\\r touch was-typed \\r`;
	const asks = ['\\033[21t', '\\033[20t', '\\033P$qx;touch was-typed\\r\\033\\\\', '\\033]52;c;?\\007', '\\033]4;0;?\\007', '\\033[18t', '\\005'];
	await type(page, `clear; printf '\\033]0;${command}\\007${asks.join('')}'; echo asked-$((2+2))`, /asked-4/);
	await page.keyboard.press('Control+c');
	await type(page, 'ls was-typed; echo looked-$((2+3))', /looked-5/);
	check(/No such file/.test(await screen(page)), 'a command was typed');
	// What was answered once is not answered again when the page is reloaded.
	await type(page, `clear; printf '\\033[c\\033[6n\\033[>c'; sleep 0.3; stty -icanon -echo; head -c 6 | cat -v; stty icanon echo; echo answered-$((2+4))`, /answered-6/);
	await page.keyboard.press('Control+u');
	await page.keyboard.type('clear; cat -v\n');
	await page.keyboard.type('before\n');
	await eventually('cat answers', async () => /before\s+before/.test(await screen(page)));
	await page.reload();
	await eventually('it is there again', async () => /before\s+before/.test(await screen(page)));
	await page.locator('[role=tabpanel].shown .xterm-helper-textarea').focus();
	await page.keyboard.type('after\n');
	await eventually('cat answers again', async () => (await screen(page)).split('after').length > 2);
	check(/before\s+before\s+after\s+after\s*$/.test((await screen(page)).trimEnd()), `something was typed: ${await screen(page)}`);
	await page.keyboard.press('Control+c');
});

test('floods of control sequences, unfinished ones and no text at all leave a terminal that works', async (it) => {
	const { page } = it;
	await type(page, `i=0; while [ $i -lt 30000 ]; do printf '\\033]0;title %d\\007\\033]8;;http://x/%d\\007' $i $i; i=$((i+1)); done; printf '\\033]8;;\\007'; echo flooded-$((3+3))`, /flooded-6/, 60);
	for (const [begins, ends, mark] of [['\\033]0;', '\\007', 'osc'], ['\\033]52;c;', '\\007', 'clip'], ['\\033P', '\\033\\\\', 'dcs'], ['\\033_', '\\033\\\\', 'apc'], ['\\033[', 'm', 'csi']])
		await type(page, `printf '${begins}'; head -c 12000000 /dev/zero | tr '\\0' 9; printf '${ends}'; echo ${mark}-$((3+4))`, new RegExp(`${mark}-7`), 60);
	// No UTF-8: cut, overlong, surrogates, beyond the last.
	await type(page, `i=0; while [ $i -lt 3000 ]; do printf '\\377\\376\\300\\200\\355\\240\\200\\364\\220\\200\\200\\342\\202'; i=$((i+1)); done; echo; clear; echo bytes-$((4+4))`, /bytes-8/, 30);
	await type(page, `printf '\\033[8;9999;9999t\\033[9999;9999H\\033[9999b\\033[9999@\\033[9999L\\033[9999S'; clear; echo sizes-$((4+5))`, /sizes-9/);
	await page.reload();
	await eventually('it is there again', async () => (await screen(page)).includes('sizes-9'), 60);
	await type(page, 'echo works-$((5+5))', /works-10/);
	await ranNothing(it);
}, 180);

test('no page printed an error', async ({ errors }) => {
	check(errors.length === 0, `the page printed errors:\n${errors.join('\n')}`);
});
