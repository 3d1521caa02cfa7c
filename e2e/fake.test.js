// The whole page against `batwa up --driver fake`: everything but the VMs is real.
import { agent, stateDir, up } from './master.js';
import { choose, keepFailure, open, row, screen, setUp, shoot, type } from './browser.js';
import { check, eventually, suite } from './harness.js';

const PASSWORD = 'correct horse battery';
const FAKE = ['--driver', 'fake', '--fake', 'vms=0,latency=120ms'];

const test = suite('fake', {
	async start() {
		const dir = stateDir();
		const master = await up({ log: 'fake-master', dir, args: FAKE });
		return { dir, master, ...(await open()) };
	},
	async stop({ browser, master, remote, remoteDir }) {
		await browser.close();
		await remote?.stop();
		await master.stop();
		master.remove();
		await remoteDir?.remove();
	},
	failed: ({ page }, name) => keepFailure(page, name)
});

/** Fills the create dialog that is open, and sends it. */
async function create(page, name, { image = 'tiny', more = async () => {} } = {}) {
	const dialog = page.getByRole('dialog', { name: 'New VM' });
	await dialog.getByLabel('Name', { exact: true }).fill(name);
	await dialog.getByLabel('Image').selectOption(image);
	await more(dialog);
	await dialog.getByRole('button', { name: 'Create', exact: true }).click();
}

async function createAndWait(page, name) {
	await page.getByRole('button', { name: 'New VM' }).first().click();
	await create(page, name);
	const dialog = page.getByRole('dialog', { name });
	await dialog.getByRole('button', { name: 'Open terminal' }).waitFor({ timeout: 30_000 });
	await dialog.getByRole('button', { name: 'Close' }).click();
}

const state = (page, name, word) => row(page, name).getByText(word, { exact: true }).waitFor({ timeout: 30_000 });

test('the one-time link makes the first account; what is wrong is told at the field', async ({ page, master }) => {
	const link = await eventually('the set-up link', () => master.setupLink());
	await page.goto(`${master.url}/`);
	await page.waitForURL('**/setup');
	await page.getByLabel('Set-up code').fill('this-is-not-the-code');
	await page.getByLabel('Password', { exact: true }).fill('short');
	await page.getByLabel('Password again').fill('shorter');
	await page.getByRole('button', { name: 'Set up and sign in' }).click();
	await page.getByText('at least 8 characters').first().waitFor();
	await page.getByText('not the same as above').waitFor();
	await shoot(page, 'setup');
	await page.getByLabel('Password', { exact: true }).fill(PASSWORD);
	await page.getByLabel('Password again').fill(PASSWORD);
	await page.getByRole('button', { name: 'Set up and sign in' }).click();
	await eventually('a wrong code is refused', () => page.getByText(/code/i).filter({ hasText: /wrong|right|not|used|match/i }).count());
	await setUp(page, link, PASSWORD);
	check(!page.url().includes('#'), 'the code stays in the address bar');
	await page.getByRole('heading', { name: 'This machine can run VMs' }).waitFor();
	await page.getByRole('status').getByText('live').waitFor();
	await shoot(page, 'first-steps');
});

test('a wrong password is refused and the right one signs in where one wanted to go', async ({ page, master }) => {
	await page.getByRole('button', { name: 'Account admin' }).click();
	await page.getByRole('menuitem', { name: 'Sign out' }).click();
	await page.getByRole('heading', { name: 'Sign in' }).waitFor();
	await page.goto(`${master.url}/machines`);
	await page.getByLabel('Name').fill('admin');
	await page.getByLabel('Password').fill('wrong wrong wrong');
	await page.getByRole('button', { name: 'Sign in' }).click();
	await page.getByRole('alert').getByText('Name or password is wrong').waitFor();
	await shoot(page, 'sign-in');
	await page.getByLabel('Password').fill(PASSWORD);
	await page.getByRole('button', { name: 'Sign in' }).click();
	await page.getByRole('heading', { name: 'Machines' }).waitFor();
});

test('wrong inputs are told at their field, by the page as one types and by the master', async ({ page }) => {
	await page.getByRole('link', { name: 'VMs' }).first().click();
	await page.getByText('No VMs yet').waitFor();
	await page.getByRole('button', { name: 'New VM' }).first().click();
	const dialog = page.getByRole('dialog', { name: 'New VM' });
	const name = dialog.getByLabel('Name', { exact: true });
	const told = async (field, text) => {
		const note = await field.getAttribute('aria-describedby');
		await dialog.locator(`[id="${note}"]`).getByText(text).waitFor();
		check((await field.getAttribute('aria-invalid')) === 'true', `the field is not marked: ${text}`);
	};
	for (const [wrong, text] of [
		['two words', /letters, digits/],
		['--all', /begin with a letter/],
		['../x', /begin with a letter/],
		['a'.repeat(64), /at most 63/],
		['crab-🦀', /letters, digits/],
		['ends-', /hyphen/]
	]) {
		await name.fill(wrong);
		await told(name, text);
	}
	for (const wrong of ['abc', '0', '999T']) {
		const memory = dialog.getByLabel('Memory', { exact: true });
		await memory.fill(wrong);
		await told(memory, wrong === 'abc' ? /a number with/ : wrong === '0' ? /at least/ : /has/);
	}
	await name.fill('fine');
	await dialog.getByRole('button', { name: 'Small' }).click();
	await dialog.getByLabel('Image').selectOption('ubuntu:24.04');
	const disk = dialog.getByLabel('Disk', { exact: true });
	await disk.fill('1G');
	await told(disk, /at least 4G/);
	await dialog.getByText('cloud-init, labels').click();
	const seed = dialog.getByLabel('cloud-init');
	await seed.fill('just some words');
	await told(seed, /begin with #cloud-config/);
	await shoot(page, 'create-wrong');
	// What only the master can know, it tells at the field too.
	await disk.fill('5G');
	await dialog.getByLabel('Image').selectOption('tiny');
	await seed.fill('#cloud-config\nusers: [unclosed');
	await dialog.getByRole('button', { name: 'Create', exact: true }).click();
	const refused = await eventually('the broken seed is refused or accepted', async () => {
		if (await page.getByRole('dialog', { name: 'fine' }).count()) return 'accepted';
		return (await seed.getAttribute('aria-invalid')) === 'true' || (await dialog.getByRole('alert').count()) > 0 ? 'refused' : null;
	});
	check(refused === 'refused', 'broken cloud-init YAML was accepted');
	await dialog.getByRole('button', { name: 'Cancel' }).click();
	await page.getByText('No VMs yet').waitFor();
});

test('a VM is created with its progress shown, and a taken name is told at the field', async ({ page }) => {
	await page.keyboard.press('c');
	await create(page, 'web-1');
	const dialog = page.getByRole('dialog', { name: 'web-1' });
	await dialog.getByRole('listitem').filter({ hasText: 'Boot' }).waitFor();
	await shoot(page, 'create-progress');
	await dialog.getByRole('button', { name: 'Open terminal' }).waitFor({ timeout: 30_000 });
	await shoot(page, 'create-done');
	await dialog.getByRole('button', { name: 'Close' }).click();
	await state(page, 'web-1', 'Running');
	await page.getByRole('button', { name: 'New VM' }).first().click();
	await create(page, 'web-1');
	const again = page.getByRole('dialog', { name: 'New VM' });
	await eventually('the name is marked', async () => (await again.getByLabel('Name', { exact: true }).getAttribute('aria-invalid')) === 'true');
	await again.getByRole('button', { name: 'Cancel' }).click();
});

test('a terminal opens, answers, fits its window and survives pages, a reload and a second look', async ({ page }) => {
	await choose(page, 'web-1', /^Terminal/);
	await page.getByRole('tab', { name: 'web-1' }).waitFor();
	await type(page, 'echo $((6 * 7))-answer', /42-answer/);
	await type(page, 'MARK=kept-by-the-shell; echo set-$MARK', /set-kept-by-the-shell/);
	const before = Number((await type(page, 'stty size', /\n\s*(\d+) (\d+)\s*\n/))[1]);
	await page.getByRole('button', { name: 'Fill the window' }).click();
	const after = await eventually('the terminal is taller', async () => {
		const found = /rows:(\d+)/.exec((await type(page, 'echo rows:$(stty size | cut -d" " -f1)', /rows:\d+/)).input.split('\n').reverse().join('\n'));
		return found && Number(found[1]) > before ? Number(found[1]) : null;
	});
	check(after > before, `${after} rows after ${before}`);
	await shoot(page, 'terminal-maximised');
	await page.getByRole('button', { name: 'Make smaller' }).click();
	await page.getByRole('link', { name: 'Machines' }).first().click();
	await type(page, 'echo still-$MARK', /still-kept-by-the-shell/);
	await page.reload();
	await page.getByRole('tab', { name: 'web-1' }).waitFor();
	await eventually('the old output is there again', async () => (await screen(page)).includes('set-kept-by-the-shell'));
	await type(page, 'echo after-$MARK', /after-kept-by-the-shell/);
	await shoot(page, 'terminal');
});

test('a page that is slow to come does not take the keys away from a terminal', async ({ page }) => {
	let asked = 0;
	let arrive = () => {};
	const arrived = new Promise((resolve) => (arrive = () => resolve(undefined)));
	const nodes = '**/_app/immutable/**';
	await page.route(nodes, async (route) => {
		asked += 1;
		await arrived;
		await route.continue();
	});
	await page.getByRole('link', { name: 'Audit' }).first().click();
	await page.locator('[role=tabpanel].shown .xterm-helper-textarea').focus();
	await page.keyboard.type('echo slow-');
	check(asked > 0, 'the page was there before it was asked for');
	arrive();
	await page.waitForURL('**/audit');
	await page.getByRole('heading', { name: 'Audit' }).waitFor();
	await page.keyboard.type('$MARK\n');
	await eventually('what was typed before and after the page came', async () => (await screen(page)).includes('slow-kept-by-the-shell'));
	await page.unroute(nodes);
});

test('the terminal finds text, and a shell that ends says so and can be reopened', async ({ page }) => {
	await page.getByRole('button', { name: 'Search in the terminal' }).click();
	await page.getByRole('textbox', { name: 'Search in the terminal' }).fill('after-kept');
	await page.getByText(/\d+ of \d+/).waitFor();
	await page.keyboard.press('Escape');
	await page.locator('[role=tabpanel].shown .xterm-helper-textarea').focus();
	await page.keyboard.type('exit\n');
	await page.getByRole('button', { name: 'Reopen' }).click();
	await type(page, 'echo mark:${MARK:-none}', /mark:none/);
	await page.getByRole('button', { name: 'End terminal web-1' }).click();
	await page.getByRole('tab', { name: 'web-1' }).waitFor({ state: 'detached' });
});

test('a VM stops under its terminal, which says so; stop and start show without reloading', async ({ page }) => {
	await page.getByRole('link', { name: 'VMs' }).first().click();
	await choose(page, 'web-1', /^Terminal/);
	await type(page, 'echo here', /here/);
	await choose(page, 'web-1', /^Stop/);
	await state(page, 'web-1', 'Stopped');
	await page.getByRole('button', { name: 'Reopen' }).waitFor();
	await page.getByRole('button', { name: 'Close', exact: true }).click();
	await choose(page, 'web-1', /^Start/);
	await state(page, 'web-1', 'Running');
});

test('what somebody else does shows at once', async ({ page, master, browser }) => {
	await page.goto(`${master.url}/settings`);
	await page.getByRole('button', { name: 'New token' }).click();
	await page.getByLabel('What it is for').fill('e2e');
	await page.getByRole('button', { name: 'Make the token' }).click();
	const token = (await page.getByText(/^batwa_pat_\S+$/).innerText()).trim();
	await shoot(page, 'token');
	await page.getByRole('button', { name: 'Done' }).click();
	const call = (method, path) => fetch(master.url + path, { method, headers: { authorization: `Bearer ${token}` } });
	await page.getByRole('link', { name: 'VMs' }).first().click();
	await state(page, 'web-1', 'Running');
	check((await call('POST', '/api/v1/agents/local/vms/web-1/stop')).status === 202, 'the token does not stop a VM');
	await state(page, 'web-1', 'Stopped');
	check((await call('POST', '/api/v1/agents/local/vms/web-1/start')).status === 202, 'the token does not start a VM');
	await state(page, 'web-1', 'Running');
	await page.getByRole('link', { name: 'Settings' }).first().click();
	await page.getByRole('button', { name: 'Revoke e2e' }).click();
	await page.getByText('Token e2e is revoked').waitFor();
	check((await call('GET', '/api/v1/vms')).status === 401, 'a revoked token still works');
	check(browser.isConnected(), 'the browser is gone');
});

test('several at once: a range of names, selected and stopped together', async ({ page }) => {
	await page.getByRole('link', { name: 'VMs' }).first().click();
	await page.getByRole('button', { name: 'New VM' }).first().click();
	const dialog = page.getByRole('dialog', { name: 'New VM' });
	await dialog.getByLabel('Name', { exact: true }).fill('node-{1..3}');
	await dialog.getByText('3 VMs: node-1, node-2, node-3').waitFor();
	await dialog.getByLabel('Image').selectOption('tiny');
	await dialog.getByRole('button', { name: 'Create 3 VMs' }).click();
	await page.getByRole('dialog', { name: '3 VMs' }).getByRole('button', { name: /background/ }).click();
	for (const name of ['node-1', 'node-2', 'node-3']) await state(page, name, 'Running');
	await page.getByRole('checkbox', { name: 'Select node-1' }).click();
	await page.getByRole('checkbox', { name: 'Select node-3' }).click({ modifiers: ['Shift'] });
	await page.getByText('3 selected').waitFor();
	await shoot(page, 'selected');
	await page.getByRole('toolbar').getByRole('button', { name: 'Stop' }).click();
	for (const name of ['node-1', 'node-2', 'node-3']) await state(page, name, 'Stopped');
});

test('the table follows the keyboard, the address and the filter', async ({ page, master }) => {
	await page.goto(`${master.url}/vms`);
	await state(page, 'node-1', 'Stopped');
	await page.getByRole('grid', { name: 'VMs' }).focus();
	await page.keyboard.press('j');
	await page.keyboard.press('Enter');
	await page.getByRole('complementary', { name: 'Details of node-2' }).waitFor();
	check(page.url().includes('vm=local%2Fnode-2'), `the address says ${page.url()}`);
	await shoot(page, 'panel');
	await page.keyboard.press('k');
	await page.getByRole('complementary', { name: 'Details of node-1' }).waitFor();
	await page.keyboard.press('Escape');
	await page.getByRole('complementary').waitFor({ state: 'detached' });
	await page.keyboard.press('/');
	await page.keyboard.type('state:running');
	await eventually('only running VMs are listed', async () => (await row(page, 'web-1').count()) === 1 && (await row(page, 'node-1').count()) === 0);
	check(page.url().includes('state'), `the address says ${page.url()}`);
	await page.getByRole('combobox', { name: 'Search VMs' }).fill('state:sleeping');
	await page.getByText(/there is no state/).waitFor();
	await page.getByRole('combobox', { name: 'Search VMs' }).fill('no-such-vm');
	await page.getByText('Nothing matches').waitFor();
	await page.getByRole('button', { name: 'Show all' }).click();
	await state(page, 'node-1', 'Stopped');
	await page.keyboard.press('Control+k');
	await page.getByRole('combobox', { name: /Command/ }).fill('node-2');
	await page.getByRole('option').getByText('Start node-2').waitFor();
	await shoot(page, 'palette');
	await page.getByRole('option').getByText('Start node-2').click();
	await state(page, 'node-2', 'Running');
});

test('trash can be undone; purge wants the name typed', async ({ page }) => {
	await choose(page, 'node-1', 'Move to trash');
	await page.getByText('node-1 is in the trash').waitFor();
	await eventually('it is out of the list', async () => (await row(page, 'node-1').count()) === 0);
	await page.getByRole('button', { name: 'Undo' }).click();
	await state(page, 'node-1', 'Stopped');
	await choose(page, 'node-1', /Purge/);
	const dialog = page.getByRole('dialog', { name: 'Purge node-1?' });
	const button = dialog.getByRole('button', { name: 'Purge for good' });
	check(await button.isDisabled(), 'purge goes without the name');
	await dialog.getByRole('textbox').fill('node');
	check(await button.isDisabled(), 'purge goes with half of the name');
	await dialog.getByRole('textbox').fill('node-1');
	await shoot(page, 'purge');
	await button.click();
	await eventually('it is gone', async () => (await row(page, 'node-1').count()) === 0);
	await page.getByText('node-1 is gone').waitFor();
});

test('an operation keeps its log', async ({ page }) => {
	await page.getByRole('link', { name: 'Operations' }).first().click();
	await page.getByRole('button', { name: 'Purged' }).first().click();
	const panel = page.getByRole('complementary', { name: 'Operation' });
	await panel.getByRole('heading', { name: 'Log' }).waitFor();
	await shoot(page, 'operation');
	await panel.getByRole('button', { name: 'Close the details' }).click();
});

test('a machine is added with a key and a port, as the guide has it, and appears while one looks', async (it) => {
	const { page, master } = it;
	await page.goto(`${master.url}/machines`);
	await page.getByRole('button', { name: 'Add a machine' }).click();
	const dialog = page.getByRole('dialog', { name: 'Add a machine' });
	await dialog.getByRole('button', { name: 'By key and port' }).click();
	await dialog.getByLabel('What to call it').fill('local');
	await dialog.getByRole('button', { name: 'Make the command' }).click();
	await dialog.getByText(/own machine/).waitFor();
	await dialog.getByLabel('What to call it').fill('shed');
	await dialog.getByRole('button', { name: 'Make the command' }).click();
	const command = await dialog.getByText(/^batwa agent/).innerText();
	const key = /--api-key (\S+)/.exec(command)?.[1];
	check(key, `no key in: ${command}`);
	check(command.includes('--agent-id shed') && command.includes(`--master-url ${master.url}`) && command.includes('--port 8001'), command);
	await shoot(page, 'add-machine-by-key');
	const dir = stateDir();
	it.remoteDir = { remove: () => import('node:fs').then(({ rmSync }) => rmSync(dir, { recursive: true, force: true })) };
	it.remote = await agent({ log: 'fake-agent', dir, id: 'shed', key, master: master.url, args: ['--driver', 'fake', '--fake', 'vms=2,latency=50ms', '--heartbeat-interval', '1s'] });
	await dialog.getByText('ready for VMs').waitFor({ timeout: 30_000 });
	await dialog.getByRole('button', { name: 'Done' }).click();
	await page.getByRole('row').filter({ hasText: 'shed' }).getByText('Online').waitFor();
});

test('labels, notes, cordon and details of a machine', async ({ page }) => {
	await page.getByRole('row').filter({ hasText: 'shed' }).getByRole('link').first().click();
	await page.getByRole('heading', { name: 'Capacity' }).waitFor();
	await page.getByRole('button', { name: 'Edit' }).click();
	await page.getByRole('textbox', { name: /Labels/ }).fill('site=garden\nrack=1');
	await page.getByRole('textbox', { name: /Notes/ }).fill('Behind the roses.');
	await page.getByRole('button', { name: 'Save' }).click();
	await page.getByText('site=garden').waitFor();
	await page.getByText('Behind the roses.').waitFor();
	const act = async (item) => {
		await page.getByRole('button', { name: /^More actions/ }).click();
		await page.getByRole('menuitem', { name: item }).click();
	};
	await act('Cordon: no new VMs');
	await page.getByText('cordoned: no new VMs').waitFor();
	await shoot(page, 'machine');
	await act('Uncordon');
	await page.getByText('cordoned: no new VMs').waitFor({ state: 'detached' });
	await page.getByRole('link', { name: 'Machines' }).first().click();
});

test('a machine with a key nobody made waits for approval, and is let in by its fingerprint', async ({ page, master }) => {
	const register = () =>
		fetch(`${master.url}/api/agent/register`, {
			method: 'POST',
			headers: { 'content-type': 'application/json', 'x-api-key': 'a-key-of-its-own-0123456789' },
			body: JSON.stringify({ agent_id: 'attic', hostname: 'attic-pc', api_url: 'http://127.0.0.1:9', api_key: 'a-key-of-its-own-0123456789', tags: {} })
		});
	const answer = await register();
	check(answer.status < 500, `register answers ${answer.status}: ${await answer.text()}`);
	const card = page.getByRole('region', { name: 'attic waits for approval' });
	await card.getByText('attic-pc').waitFor();
	await card.getByText(/^[0-9a-f]{16}$/).waitFor();
	await shoot(page, 'pending');
	await card.getByRole('button', { name: 'Approve' }).click();
	await card.waitFor({ state: 'detached' });
	const attic = page.getByRole('row').filter({ hasText: 'attic' });
	await attic.getByText(/Offline|Error/).waitFor({ timeout: 30_000 });
	await attic.getByRole('link').first().click();
	await page.getByRole('list', { name: 'Alerts' }).getByText('--advertise-url').waitFor();
	await page.getByRole('button', { name: /^More actions/ }).click();
	await page.getByRole('menuitem', { name: 'Remove…' }).click();
	await page.getByRole('dialog').getByText(/may register again/).waitFor();
	await page.getByRole('dialog').getByRole('button', { name: 'Remove' }).click();
	await attic.waitFor({ state: 'detached' });
});

test('the master is killed and comes back: the terminal of another machine goes on with nothing lost', async (it) => {
	const { page, dir } = it;
	await page.getByRole('link', { name: 'VMs' }).first().click();
	await page.getByRole('combobox', { name: 'Search VMs' }).fill('agent:shed state:running');
	const first = page.getByRole('grid', { name: 'VMs' }).getByRole('row').nth(1);
	await first.waitFor();
	await first.click();
	await page.getByRole('complementary').getByRole('button', { name: 'Terminal' }).click();
	await type(page, 'KEPT=across; i=0; echo begin-$KEPT', /begin-across/);
	await page.keyboard.type('while [ $i -lt 40 ]; do i=$((i+1)); echo line-$i; sleep 0.1; done\n');
	await eventually('it counts', async () => (await screen(page)).includes('line-3'));
	it.master.kill('SIGKILL');
	await it.master.exited;
	await page.getByText(/Connection lost/).waitFor();
	await page.getByRole('status').getByText(/^reconnecting/).waitFor();
	await page.keyboard.type('echo typed-$KEPT\n');
	await page.getByText(/keys waiting/).waitFor();
	await shoot(page, 'cut');
	const { port } = it.master;
	it.master = await up({ log: 'fake-master', dir, port, args: FAKE });
	await eventually('the typed line is answered', async () => (await screen(page)).includes('typed-across'), 40);
	const text = await screen(page);
	const lines = [...text.matchAll(/^line-(\d+)\s*$/gm)].map((match) => Number(match[1]));
	check(lines.length > 0 && lines.every((n, i) => i === 0 || n === (lines[i - 1] ?? 0) + 1), `lines are lost or double: ${lines.join(' ')}`);
	check(lines.at(-1) === 40, `the last line is ${lines.at(-1)}`);
	await page.getByRole('status').getByText('live').waitFor({ timeout: 30_000 });
	await page.getByRole('button', { name: /^End terminal/ }).click();
}, 120);

test('an agent that is gone leaves its VMs listed as old', async (it) => {
	const { page, master } = it;
	await it.remote.stop();
	await page.goto(`${master.url}/vms?q=${encodeURIComponent('agent:shed')}`);
	await page.getByText(/as of/).first().waitFor({ timeout: 40_000 });
	await shoot(page, 'stale');
	await page.getByRole('link', { name: 'Machines' }).first().click();
	await page.getByRole('row').filter({ hasText: 'shed' }).getByText('Offline').waitFor({ timeout: 30_000 });
}, 90);

test('a viewer sees everything and is offered nothing', async ({ page, master, browser }) => {
	await page.goto(`${master.url}/users`);
	await page.getByRole('button', { name: 'New user' }).click();
	const dialog = page.getByRole('dialog', { name: 'New user' });
	await dialog.getByLabel('Name').fill('bad name!');
	await dialog.getByLabel('First password').fill('short');
	await dialog.getByLabel('Role').selectOption('viewer');
	await dialog.getByRole('button', { name: 'Add' }).click();
	await eventually('both fields are marked', async () => (await dialog.locator('[aria-invalid=true]').count()) >= 1);
	await dialog.getByLabel('Name').fill('visitor');
	await dialog.getByLabel('First password').fill('visitors password');
	await dialog.getByRole('button', { name: 'Add' }).click();
	await page.getByRole('row').filter({ hasText: 'visitor' }).waitFor();
	await shoot(page, 'users');
	const context = await browser.newContext({ viewport: { width: 1440, height: 900 } });
	const other = await context.newPage();
	await other.goto(master.url);
	await other.getByLabel('Name').fill('visitor');
	await other.getByLabel('Password').fill('visitors password');
	await other.getByRole('button', { name: 'Sign in' }).click();
	await other.getByRole('link', { name: 'VMs' }).first().click();
	await row(other, 'web-1').waitFor();
	check(await other.getByRole('button', { name: 'New VM' }).isDisabled(), 'a viewer is offered to create');
	check((await other.getByRole('link', { name: 'Audit' }).count()) === 0, 'a viewer is offered the audit');
	await row(other, 'web-1').getByRole('button', { name: 'Actions for web-1' }).click();
	check((await other.getByRole('menuitem', { name: /^Stop/ }).getAttribute('aria-disabled')) === 'true', 'a viewer is offered to stop');
	await context.close();
});

test('the audit has what was done', async ({ page, master }) => {
	await page.goto(`${master.url}/audit`);
	await page.getByRole('searchbox', { name: 'Filter the audit' }).fill('web-1');
	await page.getByRole('cell', { name: 'local/web-1' }).first().waitFor();
	await shoot(page, 'audit');
});

test('the API is documented from its own document', async ({ page, master }) => {
	await page.goto(`${master.url}/api/docs`);
	await page.getByRole('heading', { name: 'API', exact: true }).waitFor();
	await page.getByText('/api/v1/vms', { exact: true }).click();
	await page.getByRole('heading', { name: 'Answers' }).first().waitFor();
	await shoot(page, 'api');
});

test('every page fits every screen in every theme, and prints no error', async ({ page, browser, master, context, errors }) => {
	const pages = ['', 'vms', 'vms?vm=local%2Fweb-1', 'vms/local/web-1', 'machines', 'machines/local', 'images', 'operations', 'settings', 'users', 'audit', 'api/docs'];
	const storageState = await context.storageState();
	for (const theme of ['light', 'dark', 'contrast'])
		for (const width of theme === 'contrast' ? [1024] : [1440, 1024, 768, 390]) {
			const shown = await browser.newContext({ storageState, viewport: { width, height: width < 500 ? 844 : 900 }, colorScheme: theme === 'light' ? 'light' : 'dark', reducedMotion: 'reduce' });
			if (theme === 'contrast') await shown.addInitScript(() => localStorage.setItem('batwa.settings', '{"theme":"contrast"}'));
			const look = await shown.newPage();
			for (const path of pages) {
				await look.goto(`${master.url}/${path}`);
				await look.getByRole('navigation', { name: 'Pages' }).waitFor();
				await look.getByRole('heading', { level: 1 }).first().waitFor();
				await eventually('it has come to rest', () => look.evaluate(() => document.fonts.status === 'loaded'));
				const over = await look.evaluate(() => document.documentElement.scrollWidth - innerWidth);
				check(over <= 0, `/${path} is ${over} px too wide at ${width} px`);
				await shoot(look, `page-${path.replace(/\W+/g, '-') || 'overview'}-${width}-${theme}`);
			}
			await shown.close();
		}
	check(page && errors.length === 0, `the page printed errors:\n${errors.join('\n')}`);
}, 900);

test('signing out ends the session and shows nothing any more', async ({ page, master }) => {
	await page.goto(master.url);
	await page.getByRole('button', { name: 'Account admin' }).click();
	await page.getByRole('menuitem', { name: 'Sign out' }).click();
	await page.getByRole('heading', { name: 'Sign in' }).waitFor();
	await page.goto(`${master.url}/vms`);
	await page.waitForURL('**/sign-in?next=%2Fvms');
	const status = await page.evaluate(() => fetch('/api/v1/vms').then((answer) => answer.status));
	check(status === 401, `the list answers ${status} to nobody`);
});
