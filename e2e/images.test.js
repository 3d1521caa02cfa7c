// Images on the page, against `batwa up --driver fake`: pulled with progress, added, uploaded, removed; what cannot be
// done says why.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { keepFailure, open, setUp, shoot } from './browser.js';
import { check, eventually, suite } from './harness.js';
import { stateDir, up } from './master.js';

const PASSWORD = 'correct horse battery';

const test = suite('images', {
	async start() {
		const dir = stateDir();
		const master = await up({ log: 'images-master', dir, args: ['--driver', 'fake', '--fake', 'vms=2,latency=700ms'] });
		return { master, dir, ...(await open()) };
	},
	async stop({ browser, master }) {
		await browser.close();
		await master.stop();
		master.remove();
	},
	failed: ({ page }, name) => keepFailure(page, name)
});

const row = (page, name) => page.getByRole('row').filter({ has: page.getByText(name, { exact: true }) });
const button = (page, what, name) => row(page, name).getByRole('button', { name: `${what} ${name}`, exact: true });

test('an image is pulled with progress, and is then there', async ({ page, master }) => {
	await setUp(page, await eventually('the set-up link', () => master.setupLink()), PASSWORD);
	await page.goto(`${master.url}/images`);
	await row(page, 'debian:12').getByText('not yet, 350 MiB to fetch').waitFor();
	await shoot(page, 'images');
	await button(page, 'Pull', 'debian:12').click();
	await row(page, 'debian:12').getByRole('progressbar').waitFor();
	await row(page, 'debian:12').getByText(/Downloading the image · \d+ % · .* of 350 MiB/).waitFor();
	await shoot(page, 'images-pulling');
	await row(page, 'debian:12').getByText('on the machine, 350 MiB').waitFor({ timeout: 30_000 });
	check((await button(page, 'Pull', 'debian:12').getAttribute('title')) === 'it is here already', 'why it cannot be pulled is not said');
});

test('what VMs use cannot be removed, and says who they are', async ({ page }) => {
	await row(page, 'ubuntu:24.04').getByRole('link', { name: 'demo-01' }).waitFor();
	const remove = button(page, 'Remove', 'debian:12');
	await remove.click();
	await row(page, 'debian:12').getByText('not yet, 350 MiB to fetch').waitFor();
	await button(page, 'Pull', 'ubuntu:24.04').click();
	await row(page, 'ubuntu:24.04').getByText('on the machine, 600 MiB').waitFor({ timeout: 30_000 });
	const title = await button(page, 'Remove', 'ubuntu:24.04').getAttribute('title');
	check(title === 'VMs `demo-01`, `demo-02` use it', `the button says ${title}`);
});

test('an image is added by its address, with what is wrong said at its field', async ({ page }) => {
	await page.getByRole('button', { name: 'Add an image' }).click();
	const dialog = page.getByRole('dialog', { name: /^Add an image to / });
	await dialog.getByLabel('Address').fill('https://example.org/disk.img');
	await dialog.getByRole('button', { name: 'Add', exact: true }).click();
	await dialog.getByText('a SHA-256 has 64 hexadecimal digits').waitFor();
	await dialog.getByLabel('SHA-256').fill('0'.repeat(64));
	await dialog.getByLabel('Name', { exact: true }).fill('tiny');
	await dialog.getByRole('button', { name: 'Add', exact: true }).click();
	await dialog.getByText('an image named `tiny` exists already').first().waitFor();
	await dialog.getByLabel('Name', { exact: true }).fill('mine');
	await dialog.getByText('batwa images add mine https://example.org/disk.img').waitFor();
	await shoot(page, 'images-add');
	await dialog.getByRole('button', { name: 'Add', exact: true }).click();
	await dialog.waitFor({ state: 'detached' });
	await row(page, 'mine').getByText('own', { exact: true }).waitFor();
});

test('an image is uploaded from here, and removed after a question', async ({ page, dir }) => {
	const file = join(dir, 'disk.img');
	writeFileSync(file, Buffer.alloc(1 << 20, 7));
	await page.getByRole('button', { name: 'Add an image' }).click();
	const dialog = page.getByRole('dialog', { name: /^Add an image to / });
	await dialog.getByRole('button', { name: 'From this computer' }).click();
	await dialog.getByLabel('Disk image').setInputFiles(file);
	await dialog.getByLabel('Name', { exact: true }).fill('uploaded');
	await dialog.getByLabel('SHA-256').fill('1'.repeat(64));
	await dialog.getByRole('button', { name: 'Upload', exact: true }).click();
	await dialog.getByText(/nothing of it is kept/).first().waitFor();
	await dialog.getByLabel('SHA-256').fill('');
	await dialog.getByRole('button', { name: 'Upload', exact: true }).click();
	await dialog.waitFor({ state: 'detached' });
	await row(page, 'uploaded').getByText('on the machine, 1 MiB').waitFor();
	await button(page, 'Remove', 'uploaded').click();
	const question = page.getByRole('dialog', { name: 'Remove uploaded?' });
	await question.getByText('It was uploaded and may be nowhere else.').waitFor();
	await question.getByRole('button', { name: 'Remove it' }).click();
	await row(page, 'uploaded').waitFor({ state: 'detached' });
});

test('an upload that is cut off goes on where it was', async ({ page, dir }) => {
	const content = Buffer.alloc(1 << 20, 9);
	const file = join(dir, 'cut.img');
	writeFileSync(file, content);
	const kept = 400 * 1024;
	const ranges = [];
	await page.route('**/images/cut/content**', async (route) => {
		const request = route.request();
		if (request.method() !== 'PUT') return route.continue();
		ranges.push(request.headers()['content-range']);
		if (ranges.length > 1) return route.continue();
		// Some of it comes, then the line dies.
		const headers = { 'content-type': 'application/octet-stream', 'content-range': `bytes 0-${kept - 1}/${content.length}` };
		await page.request.put(request.url(), { headers, data: content.subarray(0, kept) });
		await route.abort('connectionreset');
	});
	await page.getByRole('button', { name: 'Add an image' }).click();
	const dialog = page.getByRole('dialog', { name: /^Add an image to / });
	await dialog.getByRole('button', { name: 'From this computer' }).click();
	await dialog.getByLabel('Disk image').setInputFiles(file);
	await dialog.getByLabel('Name', { exact: true }).fill('cut');
	await dialog.getByRole('button', { name: 'Upload', exact: true }).click();
	await dialog.getByText(/going on as soon as/).waitFor();
	await shoot(page, 'image-upload-cut');
	await dialog.waitFor({ state: 'detached' });
	await row(page, 'cut').getByText('on the machine, 1 MiB').waitFor();
	await page.unroute('**/images/cut/content**');
	const expected = [`bytes 0-${content.length - 1}/${content.length}`, `bytes ${kept}-${content.length - 1}/${content.length}`];
	check(JSON.stringify(ranges) === JSON.stringify(expected), `it was sent as ${ranges}`);
});

test('a phone shows it without scrolling sideways', async ({ page, errors }) => {
	await page.setViewportSize({ width: 390, height: 844 });
	await row(page, 'mine').first().waitFor();
	const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
	check(!wide, 'it is wider than the screen');
	await shoot(page, 'images-phone');
	check(errors.length === 0, errors.join('\n'));
});
