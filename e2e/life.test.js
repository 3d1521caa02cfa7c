// A VM's life on the page, against `batwa up --driver fake`: snapshots, clones, sizes, stopping later, the trash,
// and one thing done to many.
import { choose, keepFailure, open, row, screen, setUp, shoot, type } from './browser.js';
import { check, eventually, suite } from './harness.js';
import { stateDir, up } from './master.js';

const PASSWORD = 'correct horse battery';

const test = suite('life', {
	async start() {
		const dir = stateDir();
		const master = await up({ log: 'life-master', dir, args: ['--driver', 'fake', '--fake', 'vms=6,latency=200ms'] });
		return { master, ...(await open()) };
	},
	async stop({ browser, master }) {
		await browser.close();
		await master.stop();
		master.remove();
	},
	failed: ({ page }, name) => keepFailure(page, name)
});

const state = (page, name, word) => row(page, name).getByText(word, { exact: true }).waitFor({ timeout: 30_000 });
const panel = (page, name) => page.getByRole('complementary', { name: `Details of ${name}` });
const snapshots = (page) => page.getByRole('region', { name: 'Snapshots' });

/** Opens the panel of a VM. */
async function look(page, master, name) {
	await page.goto(`${master.url}/vms?vm=local%2F${name}`);
	await panel(page, name).getByRole('heading', { name: 'Operations' }).waitFor();
}

/** Chooses from the menu of a snapshot. */
async function chooseSnapshot(page, snapshot, item) {
	await snapshots(page).getByRole('button', { name: `Actions for snapshot ${snapshot}` }).click();
	await page.getByRole('menuitem', { name: item }).click();
}

/** The first running and the first stopped VM of those that the driver began with. */
async function some(page, word) {
	const found = page.getByRole('grid', { name: 'VMs' }).getByRole('row').filter({ has: page.getByText(word, { exact: true }) });
	await found.first().waitFor();
	return (await found.first().locator('.name').innerText()).trim();
}

test('a snapshot of a running VM is taken by stopping it for that, and says so before', async (it) => {
	const { page, master } = it;
	await setUp(page, await eventually('the set-up link', () => master.setupLink()), PASSWORD);
	await page.goto(`${master.url}/vms`);
	it.vm = await some(page, 'Running');
	await choose(page, it.vm, /^Terminal/);
	await type(page, 'echo first > kept; cat kept', /first/);
	await page.getByRole('button', { name: /^End terminal/ }).click();
	await look(page, master, it.vm);
	await snapshots(page).getByText('None.').waitFor();
	await snapshots(page).getByRole('button', { name: 'Take snapshot' }).click();
	const dialog = page.getByRole('dialog', { name: `Take a snapshot of ${it.vm}` });
	check((await dialog.getByLabel('Name', { exact: true }).inputValue()) === 'snapshot1', 'no name is proposed');
	const stop = dialog.getByRole('checkbox', { name: /Stop it for that/ });
	check(await stop.isChecked(), 'it is not offered to stop it');
	await dialog.getByText(/ends what runs in it/).waitFor();
	await stop.uncheck();
	check(await dialog.getByRole('button', { name: 'Take snapshot' }).isDisabled(), 'a running VM can be asked for without stopping it');
	await stop.check();
	await dialog.getByLabel('Name', { exact: true }).fill('1st');
	await dialog.getByText('begin with a letter').waitFor();
	await dialog.getByLabel('Name', { exact: true }).fill('fresh');
	await dialog.getByLabel('Comment').fill('before the experiment');
	await dialog.getByText(`batwa snapshot local/${it.vm} --name fresh --comment 'before the experiment' --stop`).waitFor();
	await shoot(page, 'snapshot-dialog');
	await dialog.getByRole('button', { name: 'Take snapshot' }).click();
	await dialog.waitFor({ state: 'detached' });
	await snapshots(page).getByText('fresh', { exact: true }).waitFor({ timeout: 30_000 });
	await snapshots(page).getByText('before the experiment').waitFor();
	await page.getByText(`Snapshot fresh of ${it.vm} is taken`).waitFor();
	await state(page, it.vm, 'Running');
});

test('a name that is taken is told as one types', async ({ page, vm }) => {
	await snapshots(page).getByRole('button', { name: 'Take snapshot' }).click();
	const dialog = page.getByRole('dialog', { name: `Take a snapshot of ${vm}` });
	await dialog.getByLabel('Name', { exact: true }).fill('fresh');
	await dialog.getByText('there is a snapshot fresh already').waitFor();
	await page.keyboard.press('Escape');
	await dialog.waitFor({ state: 'detached' });
});

test('going back gives the old disk, and keeps how it was under the name that the dialog said', async ({ page, master, vm }) => {
	await page.goto(`${master.url}/vms`);
	await choose(page, vm, /^Terminal/);
	await type(page, 'cat kept; echo changed > kept; cat kept', /first\s+changed/);
	await page.getByRole('button', { name: /^End terminal/ }).click();
	await look(page, master, vm);
	await chooseSnapshot(page, 'fresh', 'Restore…');
	const dialog = page.getByRole('dialog', { name: `Restore ${vm} to fresh` });
	await dialog.getByText('before-restore1').waitFor();
	await dialog.getByRole('radio', { name: /Discard it/ }).check();
	await dialog.getByRole('button', { name: 'Restore and discard' }).waitFor();
	await dialog.getByText(`batwa restore local/${vm}.fresh --discard --stop`).waitFor();
	await shoot(page, 'restore-discard');
	await dialog.getByRole('radio', { name: /Keep it/ }).check();
	await shoot(page, 'restore-dialog');
	await dialog.getByRole('button', { name: 'Restore', exact: true }).click();
	await dialog.waitFor({ state: 'detached' });
	await snapshots(page).getByText('before-restore1', { exact: true }).waitFor({ timeout: 30_000 });
	await page.getByText(`${vm} is as it was at fresh`).waitFor({ timeout: 30_000 });
	await state(page, vm, 'Running');
	await page.goto(`${master.url}/vms`);
	await choose(page, vm, /^Terminal/);
	await type(page, 'cat kept', /first/);
	check(!/^changed/m.test(await screen(page)), 'the change is still there');
	await page.getByRole('button', { name: /^End terminal/ }).click();
});

test('a VM is cloned from a snapshot under a name that is free, and the clone is left off', async (it) => {
	const { page, master, vm } = it;
	await look(page, master, vm);
	await chooseSnapshot(page, 'before-restore1', 'Clone from it…');
	const dialog = page.getByRole('dialog', { name: `Clone ${vm}` });
	const name = dialog.getByLabel('Name of the new VM');
	await eventually('a name is proposed', async () => (await name.inputValue()) === `${vm}-clone1`);
	check((await dialog.getByLabel('Begins from').inputValue()) === 'before-restore1', 'the snapshot is not chosen');
	await name.fill(vm);
	await dialog.getByText(`there is a VM ${vm} on this machine already`).waitFor();
	await name.fill('twin');
	await shoot(page, 'clone-dialog');
	await dialog.getByRole('button', { name: 'Clone', exact: true }).click();
	await dialog.waitFor({ state: 'detached' });
	await state(page, 'twin', 'Stopped');
	await choose(page, 'twin', /^Start/);
	await state(page, 'twin', 'Running');
	await choose(page, 'twin', /^Terminal/);
	await type(page, 'cat kept', /changed/);
	await page.getByRole('button', { name: /^End terminal/ }).click();
});

test('a size is changed within what the machine has, and a disk only grows', async ({ page, master }) => {
	await choose(page, 'twin', /^Stop/);
	await state(page, 'twin', 'Stopped');
	await choose(page, 'twin', /^Resize/);
	const dialog = page.getByRole('dialog', { name: 'Resize twin' });
	const disk = dialog.getByRole('textbox', { name: 'Disk' });
	await dialog.getByText('Nothing is changed yet').waitFor();
	const now = await disk.inputValue();
	await disk.fill('1G');
	await dialog.getByText(/a disk only grows/).waitFor();
	await dialog.getByRole('textbox', { name: 'Memory' }).fill('999T');
	await dialog.getByText(/has .* memory/).waitFor();
	check((await dialog.getByText(/Stop it for that/).count()) === 0, 'a VM that is off is to be stopped');
	await dialog.getByRole('textbox', { name: 'Memory' }).fill('768M');
	const grown = `${Number(now.replace('G', '')) + 1}G`;
	await disk.fill(grown);
	await dialog.getByText(`batwa set local/twin --memory 768M --disk ${grown}`).waitFor();
	await shoot(page, 'resize-dialog');
	await dialog.getByRole('button', { name: 'Resize', exact: true }).click();
	await dialog.waitFor({ state: 'detached' });
	await page.getByText('twin has its new size').waitFor({ timeout: 30_000 });
	await look(page, master, 'twin');
	await panel(page, 'twin').getByText(/768 MiB memory/).waitFor();
});

test('the tree shows what branched off, and one of it is deleted by name', async ({ page, master, vm }) => {
	await look(page, master, vm);
	await snapshots(page).getByRole('button', { name: 'Take snapshot' }).click();
	await page.getByRole('dialog').getByRole('button', { name: 'Take snapshot' }).click();
	await snapshots(page).getByText('snapshot1', { exact: true }).waitFor({ timeout: 30_000 });
	await shoot(page, 'snapshots');
	await chooseSnapshot(page, 'before-restore1', 'Delete…');
	const dialog = page.getByRole('dialog', { name: 'Delete snapshot before-restore1?' });
	await dialog.getByText('This cannot be undone').waitFor();
	await shoot(page, 'delete-snapshot');
	await dialog.getByRole('button', { name: 'Delete for good' }).click();
	await snapshots(page).getByText('before-restore1', { exact: true }).waitFor({ state: 'detached', timeout: 30_000 });
	await state(page, vm, 'Running');
});

test('what cannot be done is greyed with the reason of the VM’s own list', async ({ page, master, vm }) => {
	await choose(page, vm, /^Suspend/);
	await state(page, vm, 'Suspended');
	await row(page, vm).getByRole('button', { name: `Actions for ${vm}` }).click();
	const answer = await page.evaluate((path) => fetch(path).then((it) => it.json()), `/api/v1/agents/local/vms/${vm}`);
	for (const [item, action] of [['Take snapshot…', 'snapshot'], ['Clone…', 'clone'], ['Resize…', 'resize']]) {
		const entry = page.getByRole('menuitem', { name: item });
		check((await entry.getAttribute('aria-disabled')) === 'true', `${item} is offered for a suspended VM`);
		check((await entry.innerText()).includes(answer.actions[action]), `${item} does not say: ${answer.actions[action]}`);
	}
	await shoot(page, 'menu-refusals');
	await page.keyboard.press('Escape');
	await page.goto(`${master.url}/vms`);
	await choose(page, vm, /^Resume/);
	await state(page, vm, 'Running');
});

test('a stop can be for later, and taken back', async ({ page, master, vm }) => {
	await choose(page, vm, /^More ways to stop/);
	const dialog = page.getByRole('dialog', { name: `Stop ${vm}` });
	await dialog.getByLabel('When').selectOption('in an hour');
	await dialog.getByText(/Until then it goes on/).waitFor();
	await shoot(page, 'stop-dialog');
	await dialog.getByRole('button', { name: 'Stop later' }).click();
	await dialog.waitFor({ state: 'detached' });
	await look(page, master, vm);
	await panel(page, vm).getByText(/^Stops in/).waitFor();
	await shoot(page, 'stops-later');
	await panel(page, vm).getByRole('button', { name: 'Let it go on' }).click();
	await panel(page, vm).getByText(/^Stops in/).waitFor({ state: 'detached' });
	await page.goto(`${master.url}/operations`);
	await page.getByRole('button', { name: 'Stop cancelled' }).first().click();
	await page.getByRole('complementary', { name: 'Operation' }).getByRole('button', { name: 'Try again' }).click();
	await page.getByText(`Trying again to stop ${vm}`).waitFor();
	await look(page, master, vm);
	await panel(page, vm).getByText(/^Stops in/).waitFor();
	await panel(page, vm).getByRole('button', { name: 'Let it go on' }).click();
	await panel(page, vm).getByText(/^Stops in/).waitFor({ state: 'detached' });
	await state(page, vm, 'Running');
	await choose(page, vm, /^More ways to stop/);
	await dialog.getByRole('radio', { name: /Pull the plug/ }).check();
	await dialog.getByText(`batwa stop --force local/${vm}`).waitFor();
	await dialog.getByRole('button', { name: 'Pull the plug' }).click();
	await state(page, vm, 'Stopped');
});

test('many at once: counts for each action, what became of each, and the whole taken back', async ({ page, master }) => {
	await page.goto(`${master.url}/vms`);
	await page.getByRole('checkbox', { name: 'Select all that are loaded' }).click();
	const bar = page.getByRole('toolbar', { name: 'Selected VMs' });
	await bar.getByText('7 selected').waitFor();
	await shoot(page, 'selection');
	await bar.getByRole('button', { name: 'Move to trash' }).click();
	const batch = page.getByRole('region', { name: 'Move to trash 7 VMs' });
	await batch.getByText(/^7 of 7 done/).waitFor({ timeout: 30_000 });
	await batch.getByRole('button', { name: /Move to trash 7 VMs/ }).click();
	await shoot(page, 'bulk');
	await page.goto(`${master.url}/vms?q=state%3Adeleted`);
	await page.getByText('can be recovered until it is purged').waitFor();
	await shoot(page, 'trash');
	await page.getByRole('button', { name: 'All that match…' }).click();
	const dialog = page.getByRole('dialog', { name: 'All that match' });
	await dialog.getByRole('radio', { name: /Recover/ }).check();
	await dialog.getByText('7 can').first().waitFor();
	await shoot(page, 'all-that-match');
	await dialog.getByRole('button', { name: 'Recover 7' }).click();
	await page.getByRole('region', { name: 'Recover 7 VMs' }).getByText(/^7 of 7 done/).waitFor({ timeout: 30_000 });
});

test('the history is searched by VM, kind and state, and what was done is done again from it', async ({ page, master, vm }) => {
	await page.goto(`${master.url}/operations`);
	await page.getByRole('textbox', { name: 'VM' }).fill('twin');
	await page.keyboard.press('Enter');
	const rows = page.getByRole('row').filter({ has: page.getByRole('button') });
	await eventually('only twin is listed', async () => {
		const texts = await rows.allInnerTexts();
		return texts.length > 2 && texts.every((text) => text.includes('local/twin'));
	});
	check(page.url().includes('vm=twin'), `the address says ${page.url()}`);
	await page.getByRole('combobox', { name: 'Kind' }).selectOption('start');
	await eventually('only starts are listed', async () => {
		const texts = await rows.allInnerTexts();
		return texts.length > 0 && texts.every((text) => text.includes('Started'));
	});
	await page.getByRole('button', { name: 'Started' }).first().click();
	const details = page.getByRole('complementary', { name: 'Operation' });
	await details.getByText('Asked by').waitFor();
	await details.getByText(/^\d+\.\d s/).first().waitFor();
	await details.getByRole('heading', { name: 'Steps' }).waitFor();
	await shoot(page, 'history');
	const before = await rows.count();
	await details.getByRole('button', { name: 'Do it again' }).click();
	await eventually('there is one more', async () => (await rows.count()) === before + 1);
	await page.getByRole('button', { name: 'Clear' }).click();
	await page.getByRole('combobox', { name: 'Kind' }).selectOption('clone');
	await page.getByRole('button', { name: 'Cloned' }).first().click();
	await details.getByText(`local/${vm}`).first().waitFor();
	await details.getByRole('button', { name: 'Do it again…' }).click();
	await page.getByRole('dialog', { name: `Clone ${vm}` }).waitFor();
	await page.keyboard.press('Escape');
	await page.getByRole('combobox', { name: 'Kind' }).selectOption('');
	await page.getByRole('group', { name: 'State' }).getByRole('button', { name: 'Cancelled' }).click();
	await page.getByRole('button', { name: 'Stop cancelled' }).first().waitFor();
});

test('every new piece fits a phone, in the light and in the dark', async ({ context, browser, master, vm, page, errors }) => {
	const storageState = await context.storageState();
	for (const colorScheme of ['light', 'dark'])
		for (const width of [1440, 390]) {
			const shown = await browser.newContext({ storageState, viewport: { width, height: width < 500 ? 844 : 900 }, colorScheme, reducedMotion: 'reduce' });
			const look = await shown.newPage();
			await look.goto(`${master.url}/vms/local/${vm}`);
			for (const [button, name] of [['Take snapshot…', 'snapshot'], ['Clone…', 'clone'], ['Resize…', 'resize'], ['More ways to stop…', 'stop']]) {
				await look.getByRole('button', { name: `More actions for ${vm}` }).click();
				const entry = look.getByRole('menuitem', { name: button });
				if (name === 'snapshot') await shoot(look, `life-menu-${width}-${colorScheme}`);
				if ((await entry.getAttribute('aria-disabled')) === 'true') {
					await look.keyboard.press('Escape');
					continue;
				}
				await entry.click();
				await look.getByRole('dialog').waitFor();
				const over = await look.getByRole('dialog').evaluate((dialog) => Math.max(dialog.getBoundingClientRect().right - innerWidth, dialog.scrollWidth - dialog.clientWidth));
				check(over <= 0, `the dialog ${name} is ${over} px too wide at ${width} px`);
				await shoot(look, `life-${name}-${width}-${colorScheme}`);
				await look.keyboard.press('Escape');
				await look.getByRole('dialog').waitFor({ state: 'detached' });
			}
			await shoot(look, `life-vm-${width}-${colorScheme}`);
			for (const path of ['vms', 'operations']) {
				await look.goto(`${master.url}/${path}`);
				await look.getByText(vm).first().waitFor();
				await shoot(look, `life-${path}-${width}-${colorScheme}`);
			}
			await shown.close();
		}
	check(page && errors.length === 0, `the page printed errors:\n${errors.join('\n')}`);
}, 240);
