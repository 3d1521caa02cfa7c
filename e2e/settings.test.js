// What people write about a VM and want done about it by itself, against `batwa up --driver fake`.
import { choose, keepFailure, open, row, setUp, shoot } from './browser.js';
import { check, eventually, suite } from './harness.js';
import { stateDir, up } from './master.js';

const PASSWORD = 'correct horse battery';

const test = suite('settings', {
	async start() {
		const master = await up({ log: 'settings-master', dir: stateDir(), args: ['--driver', 'fake', '--fake', 'vms=3,latency=50ms'] });
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
const panel = (page) => page.getByRole('complementary', { name: `Details of ${VM}` });
const settings = (page) => page.getByRole('region', { name: 'Settings' });

/** Opens the panel of the VM. */
async function look(page, master) {
	await page.goto(`${master.url}/vms?vm=local%2F${VM}`);
	await panel(page).getByRole('heading', { name: 'Operations' }).waitFor();
}

test('a VM has a display name, labels and notes, and is found by them', async ({ page, master }) => {
	await setUp(page, await eventually('the set-up link', () => master.setupLink()), PASSWORD);
	await look(page, master);
	await settings(page).getByText('Nothing special is done about it').waitFor();
	await settings(page).getByRole('button', { name: 'Name and notes' }).click();
	const dialog = page.getByRole('dialog', { name: `Name and notes of ${VM}` });
	await dialog.getByLabel('Display name').fill('The shop');
	await dialog.getByLabel('Labels').fill('env=prod\nteam=web');
	await dialog.getByLabel('Notes').fill('belongs to Ann');
	await dialog.getByText(`batwa set local/${VM} --display-name 'The shop' --notes 'belongs to Ann' --label env=prod --label team=web`).waitFor();
	await shoot(page, 'vm-edit');
	await dialog.getByRole('button', { name: 'Save' }).click();
	await dialog.waitFor({ state: 'detached' });
	await settings(page).getByText('belongs to Ann').waitFor();
	await panel(page).getByText('The shop').first().waitFor();
	await settings(page).getByRole('link', { name: 'env=prod' }).click();
	await row(page, VM).waitFor();
	await eventually('the others are not found', async () => (await page.getByRole('grid', { name: 'VMs' }).getByRole('row').count()) === 2);
});

test('a label that cannot be is told at its field, and nothing has changed', async ({ page, master }) => {
	await look(page, master);
	await settings(page).getByRole('button', { name: 'Name and notes' }).click();
	const dialog = page.getByRole('dialog', { name: `Name and notes of ${VM}` });
	await dialog.getByLabel('Labels').fill('größe=1');
	await dialog.getByRole('button', { name: 'Save' }).click();
	await dialog.getByText(/keys of 1 to 63 letters/).waitFor();
	await dialog.getByRole('button', { name: 'Cancel' }).click();
	await settings(page).getByRole('link', { name: 'env=prod' }).waitFor();
});

test('a protected VM has a lock, and what would end it is greyed with the reason of the API', async ({ page, master }) => {
	await look(page, master);
	await settings(page).getByRole('button', { name: 'Change' }).click();
	const dialog = page.getByRole('dialog', { name: `Settings of ${VM}` });
	await dialog.getByRole('checkbox', { name: /Protect it/ }).check();
	await dialog.getByRole('checkbox', { name: /Start it again when it crashes/ }).check();
	await dialog.getByLabel('Lifetime', { exact: true }).selectOption('1 hour from now');
	await dialog.getByLabel('At its end').selectOption('move it to the trash');
	await dialog.getByText('a protected VM is not deleted').waitFor();
	check(await dialog.getByRole('button', { name: 'Save' }).isDisabled(), 'a protected VM can be given an end in the trash');
	await dialog.getByLabel('At its end').selectOption('stop it');
	await dialog.getByText(`batwa set local/${VM} --protect --restart on-crash --lifetime 1h`).waitFor();
	await shoot(page, 'vm-settings');
	await dialog.getByRole('button', { name: 'Save' }).click();
	await dialog.waitFor({ state: 'detached' });
	await row(page, VM).getByRole('img', { name: 'Protected from deletion' }).waitFor();
	await row(page, VM).getByRole('img', { name: /is stopped in \d+ min/ }).waitFor();
	await settings(page).getByText('when it crashes').waitFor();
	await shoot(page, 'vm-panel-settings');
	const told = await page.evaluate(async (name) => (await (await fetch(`/api/v1/agents/local/vms/${name}`)).json()).actions, VM);
	await row(page, VM).getByRole('button', { name: `Actions for ${VM}` }).click();
	for (const [title, action] of [['Move to trash', 'delete'], ['Purge…', 'purge']]) {
		const item = page.getByRole('menuitem', { name: title });
		check((await item.getAttribute('aria-disabled')) === 'true', `${title} can be chosen`);
		check((await item.innerText()).includes(told[action]), `${title} does not say: ${told[action]}`);
	}
	await page.keyboard.press('Escape');
});

test('a lifetime that ends soon is told, and can be extended from there', async ({ page, master }) => {
	await look(page, master);
	// As the command line would: a minute is not offered here.
	await page.evaluate(async (name) => {
		const answer = await fetch(`/api/v1/agents/local/vms/${name}`, { method: 'PATCH', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ settings: { lifetime: { after_s: 61 } } }) });
		if (!answer.ok) throw new Error(await answer.text());
	}, VM);
	await page.getByText('Its lifetime ends: it is stopped then').waitFor({ timeout: 70_000 });
	await shoot(page, 'vm-lifetime-ends');
	await panel(page).getByRole('button', { name: 'Extend' }).click();
	const dialog = page.getByRole('dialog', { name: `Settings of ${VM}` });
	await dialog.getByLabel('Lifetime', { exact: true }).selectOption('for ever');
	await dialog.getByRole('button', { name: 'Save' }).click();
	await page.getByText('Its lifetime ends: it is stopped then').waitFor({ state: 'detached' });
	check((await row(page, VM).getByText('Running').count()) > 0, 'it was stopped all the same');
}, 120);

test('a VM is made with its name, notes and settings, which are folded away', async ({ page, master }) => {
	await page.goto(`${master.url}/vms`);
	await page.getByRole('button', { name: 'New VM' }).first().click();
	const dialog = page.getByRole('dialog', { name: 'New VM' });
	await dialog.getByLabel('Name', { exact: true }).fill('trial');
	await dialog.getByLabel('Image').selectOption('tiny');
	await shoot(page, 'create-folded');
	await dialog.getByText('More: display name').click();
	await dialog.getByLabel('Display name').fill('The trial');
	await dialog.getByLabel('Notes').fill('for the demo');
	await dialog.getByRole('checkbox', { name: /Protect it/ }).check();
	await dialog.getByLabel('Lifetime', { exact: true }).selectOption('3 days');
	await dialog.getByLabel('At its end').selectOption('move it to the trash');
	// What cannot be is told before anything is asked for.
	await dialog.getByRole('button', { name: 'Create', exact: true }).click();
	await dialog.getByText('a protected VM is not deleted').waitFor();
	await dialog.getByRole('checkbox', { name: /Protect it/ }).uncheck();
	await dialog.getByLabel('Stop it when it does nothing for').selectOption('1 hour');
	await dialog.getByText('cloud-init, labels').click();
	await dialog.getByText("--display-name 'The trial' --notes 'for the demo' --lifetime 3d --at-end delete --idle-stop 1h").waitFor();
	await shoot(page, 'create-settings');
	await page.setViewportSize({ width: 390, height: 844 });
	check(await dialog.locator('form').evaluate((form) => form.scrollWidth <= form.clientWidth && form.getBoundingClientRect().right <= innerWidth), 'it scrolls sideways on a phone');
	await shoot(page, 'create-settings-phone');
	await page.setViewportSize({ width: 1440, height: 900 });
	await dialog.getByRole('button', { name: 'Create', exact: true }).click();
	const progress = page.getByRole('dialog', { name: 'trial' });
	await progress.getByRole('button', { name: 'Open terminal' }).waitFor({ timeout: 30_000 });
	await progress.getByRole('button', { name: 'Close' }).click();
	const made = await page.evaluate(async () => (await fetch('/api/v1/agents/local/vms/trial')).json());
	check(made.display_name === 'The trial' && made.notes === 'for the demo', JSON.stringify(made));
	check(made.settings.lifetime.end === 'delete' && made.settings.idle_stop.after_s === 3600, JSON.stringify(made.settings));
	check(made.settings.protected === false, 'it is protected');
});

/** What the menu of a VM calls its actions. */
const TITLES = {
	shell: 'Terminal',
	console: 'Serial console',
	start: 'Start',
	stop: 'Stop',
	restart: 'Restart',
	suspend: 'Suspend',
	resume: 'Resume',
	delete: 'Move to trash',
	recover: 'Recover',
	purge: 'Purge…',
	snapshot: 'Take snapshot…',
	clone: 'Clone…',
	resize: 'Resize…'
};

test('in every state, what cannot be done is greyed with the reason of the API', async ({ page, master }) => {
	/** Asks for something and waits until it is done. */
	const ask = (vm, method, action) =>
		page.evaluate(
			async ([vm, method, action]) => {
				const answer = await fetch(`/api/v1/agents/local/vms/${vm}${action}?wait=30s`, { method });
				if (!answer.ok) throw new Error(`${vm} ${action}: ${await answer.text()}`);
			},
			[vm, method, action]
		);
	await page.goto(`${master.url}/vms`);
	await ask('demo-02', 'POST', '/suspend');
	await ask('demo-03', 'POST', '/stop');
	await page.evaluate(async () => {
		const body = JSON.stringify({ name: 'thrown', image: 'tiny', memory: '256M', disk: '1G' });
		await fetch('/api/v1/agents/local/vms?wait=30s', { method: 'POST', headers: { 'content-type': 'application/json' }, body });
	});
	await ask('thrown', 'DELETE', '');
	for (const [vm, state] of [[VM, 'running'], ['demo-02', 'suspended'], ['demo-03', 'stopped'], ['thrown', 'deleted']]) {
		await page.goto(`${master.url}/vms?q=${encodeURIComponent(`state:${state} name:${vm}`)}`);
		await row(page, vm).waitFor();
		const told = await page.evaluate(async (vm) => (await (await fetch(`/api/v1/agents/local/vms/${vm}`)).json()).actions, vm);
		await row(page, vm).getByRole('button', { name: `Actions for ${vm}` }).click();
		const items = page.getByRole('menuitem');
		await items.first().waitFor();
		const shown = await items.evaluateAll((all) =>
			all.map((item) => ({ title: item.querySelector('.title').firstChild.textContent.trim(), greyed: item.getAttribute('aria-disabled') === 'true', text: item.textContent }))
		);
		let seen = 0;
		for (const [action, title] of Object.entries(TITLES)) {
			const item = shown.find((one) => one.title === title);
			if (!item) continue;
			seen += 1;
			check(item.greyed === (told[action] !== null), `${state}: ${title} is ${item.greyed ? '' : 'not '}greyed, and the API says: ${told[action]}`);
			if (item.greyed) check(item.text.includes(told[action]), `${state}: ${title} says ${item.text}, not: ${told[action]}`);
		}
		check(seen >= (state === 'deleted' ? 2 : 9), `${state}: only ${seen} actions are in the menu`);
		await page.keyboard.press('Escape');
	}
});

test('all of it fits a phone', async ({ page, master }) => {
	await page.setViewportSize({ width: 390, height: 844 });
	await page.goto(`${master.url}/vms/local/${VM}`);
	await settings(page).getByText('belongs to Ann').waitFor();
	await shoot(page, 'vm-settings-phone');
	await settings(page).getByRole('button', { name: 'Change' }).click();
	await page.getByRole('dialog', { name: `Settings of ${VM}` }).waitFor();
	await shoot(page, 'vm-settings-dialog-phone');
	const wide = await page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);
	check(!wide, 'something is wider than the phone');
	await page.keyboard.press('Escape');
	await page.setViewportSize({ width: 1280, height: 800 });
	await page.goto(`${master.url}/vms`);
	await choose(page, VM, /^Settings/);
	await page.getByRole('dialog', { name: `Settings of ${VM}` }).getByRole('checkbox', { name: /Protect it/ }).uncheck();
	await page.getByRole('dialog', { name: `Settings of ${VM}` }).getByRole('button', { name: 'Save' }).click();
	await row(page, VM).getByRole('img', { name: 'Protected from deletion' }).waitFor({ state: 'detached' });
});
