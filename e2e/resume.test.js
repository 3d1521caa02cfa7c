// A shell that counts while everything around it breaks: whoever looks finds every number, each once.
//
// The numbers are read from all that the terminal holds, not from what its window shows.
import { rmSync } from 'node:fs';
import { choose, keepFailure, open, row, screen, setUp, shoot, type, visitor, wholeText } from './browser.js';
import { check, eventually, suite } from './harness.js';
import { line } from './line.js';
import { joined, stateDir, up } from './master.js';

const ACCOUNT = { name: 'admin', password: 'correct horse battery' };
const VM = 'demo-01';
/** How long nothing passes: as long as people hear a call drop. */
const CUT_S = 60;
const ROLE = { role: 'master', args: ['--tunnel-ping', '1s'] };

const test = suite('resume', {
	waits: true,
	async start() {
		const dir = stateDir();
		const master = await up({ log: 'resume-master', dir, ...ROLE });
		// One line to the browser, one to the machine.
		const [toBrowser, toMachine] = [await line(master.port), await line(master.port)];
		return { dir, master, toBrowser, toMachine, agent: null, agentDir: stateDir(), ...(await open()) };
	},
	async stop({ browser, master, agent, agentDir, toBrowser, toMachine }) {
		await browser.close();
		await agent?.stop();
		await toBrowser.stop();
		await toMachine.stop();
		await master.stop();
		master.remove();
		rmSync(agentDir, { recursive: true, force: true });
	},
	failed: ({ page }, name) => keepFailure(page, name)
});

/** The line under the shown terminal that says it is cut. */
const isCut = (page) => page.locator('[role=tabpanel].shown').getByRole('status').filter({ hasText: /reconnecting/ });

/** Lets the shell count to `last`, a pause after each number, and waits until it has begun. */
async function count(page, mark, last, pause) {
	await page.locator('[role=tabpanel].shown .xterm-helper-textarea').focus();
	// Nothing that is typed meanwhile shows between the numbers.
	await page.keyboard.insertText(`stty -echo; for i in $(seq 1 ${last}); do echo ${mark}-$i; sleep ${pause}; done; stty echo; echo ${mark}-do''ne\n`);
	await page.keyboard.press('Enter');
	await eventually('it counts', async () => (await screen(page)).includes(`${mark}-3`));
}

/** Waits for the end, and looks for every number. */
async function foundAll(page, mark, last, seconds) {
	await eventually('it has counted to the end', async () => (await screen(page)).includes(`${mark}-done`), seconds);
	const text = await wholeText(page);
	const seen = [...text.matchAll(new RegExp(`^${mark}-(\\d+)$`, 'gm'))].map((match) => Number(match[1]));
	const wrong = seen.findIndex((number, at) => number !== at + 1);
	check(wrong < 0, `after ${seen[wrong - 1]} comes ${seen[wrong]}`);
	check(seen.length === last, `${seen.length} numbers of ${last} are there`);
	return text;
}

test('a machine that dials in has a shell', async (it) => {
	const { page, master, toBrowser, toMachine } = it;
	await setUp(page, await eventually('the set-up link', () => master.setupLink()), ACCOUNT.password);
	const made = await page.request.post(`${master.url}/api/v1/join-tokens`, { data: {}, headers: { origin: master.url } });
	const { token } = await made.json();
	const address = `http://127.0.0.1:${toMachine.port}`;
	const args = ['--driver', 'fake', '--fake', 'vms=2,latency=20ms', '--tunnel-ping', '1s', '--tunnel-retry', '1s'];
	it.agent = await joined({ log: 'resume-agent', dir: it.agentDir, id: 'far', token, master: address, args });
	await page.goto(`http://127.0.0.1:${toBrowser.port}/vms`);
	await row(page, VM).waitFor();
	await choose(page, VM, /^Terminal/);
	await type(page, 'echo ready-$((6*7))', /ready-42/);
	check(toMachine.passed() > 0 && toBrowser.passed() > 0, 'the lines are not those that are used');
});

test('the page reloaded again and again while it counts', async ({ page }) => {
	await count(page, 'a', 300, 0.02);
	for (const reached of [/^a-\d{2}$/m, /^a-1\d\d$/m, /^a-2\d\d$/m]) {
		await eventually(`it counts on to ${reached}`, async () => reached.test((await screen(page)).replaceAll('\u00a0', ' ')));
		await page.reload();
	}
	await foundAll(page, 'a', 300, 40);
});

test('the master killed while it counts, and started again', async (it) => {
	const { page, dir } = it;
	await count(page, 'b', 300, 0.02);
	const { port } = it.master;
	it.master.kill('SIGKILL');
	await it.master.exited;
	await isCut(page).waitFor();
	it.master = await up({ log: 'resume-master', dir, port, ...ROLE });
	await foundAll(page, 'b', 300, 60);
	await isCut(page).waitFor({ state: 'hidden' });
	await type(page, 'echo typed-$((1+1))', /typed-2/);
}, 120);

test('both lines cut for a minute, and a second browser beside', async ({ page, browser, master, toBrowser, toMachine }) => {
	const { context, page: other } = await visitor(browser, master.url, ACCOUNT);
	await other.getByRole('link', { name: /^Terminals/ }).click();
	await other.getByRole('button', { name: 'Attach' }).click();
	await page.getByText('Here: admin', { exact: true }).waitFor();
	const last = (CUT_S + 8) * 10;
	await count(page, 'c', last, 0.1);
	await eventually('the second one sees it', async () => (await screen(other)).includes('c-3'));
	toBrowser.cut();
	toMachine.cut();
	const mended = Date.now() + CUT_S * 1000;
	// This goes into a line that is dead and not known to be: it is sent again.
	check(!(await isCut(page).isVisible()), 'the page knows already');
	await page.locator('[role=tabpanel].shown .xterm-helper-textarea').focus();
	await page.keyboard.insertText('echo sunk-$((41+1))');
	await page.keyboard.press('Enter');
	await isCut(other).waitFor();
	// Nobody told it: it heard nothing in answer to what was typed.
	await isCut(page).waitFor();
	// What is typed while nothing passes is kept, and sent once.
	await other.locator('[role=tabpanel].shown .xterm-helper-textarea').focus();
	await other.keyboard.insertText('echo kept-$((40+2))');
	await other.keyboard.press('Enter');
	await other.getByText(/\d+ keys waiting/).waitFor();
	await shoot(other, 'resume-cut');
	const seen = toMachine.passed();
	await eventually('the time is over', () => Date.now() >= mended, CUT_S + 5);
	check(toMachine.passed() === seen, 'the line was not cut');
	toBrowser.mend();
	toMachine.mend();
	for (const one of [page, other]) {
		await foundAll(one, 'c', last, 60);
		for (const typed of ['kept-42', 'sunk-42']) {
			await eventually(`what was typed runs: ${typed}`, async () => (await screen(one)).includes(typed));
			const ran = (await wholeText(one)).split(typed).length - 1;
			check(ran === 1, `${typed} ran ${ran} times`);
		}
	}
	await context.close();
}, CUT_S + 120);

test('no page printed an error', async ({ errors }) => {
	const own = errors.filter((error) => !/WebSocket connection to .* failed/.test(error));
	check(own.length === 0, `the page printed errors:\n${own.join('\n')}`);
});
