// A real Chromium, and what the tests do in it again and again.
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { eventually } from './harness.js';

const artifacts = join(dirname(fileURLToPath(import.meta.url)), 'artifacts');

// No GPU and no WebGL: the terminal draws with elements, whose text can be read.
const FLAGS =
	'--headless --no-sandbox --disable-gpu --disable-3d-apis --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync'.split(' ');

function executable() {
	const named = process.env.BATWA_CHROMIUM;
	if (named) return named;
	for (const name of ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']) {
		try {
			return execFileSync('sh', ['-c', `command -v ${name}`], { encoding: 'utf8' }).trim();
		} catch {
			// The next one.
		}
	}
	throw new Error('there is no Chromium on PATH; install it or set BATWA_CHROMIUM');
}

/** A browser and one page in it, whose errors are kept. */
export async function open() {
	mkdirSync(artifacts, { recursive: true });
	const browser = await chromium.launch({ executablePath: executable(), args: FLAGS });
	const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, reducedMotion: 'reduce' });
	const page = await context.newPage();
	/** @type {string[]} */
	const errors = [];
	page.on('pageerror', (error) => errors.push(`${page.url()}: ${error.message}`));
	page.on('console', (message) => {
		// What the browser itself prints about an answer of 4xx is not an error of the page.
		if (message.type() === 'error' && !/Failed to load resource|ERR_CONNECTION_REFUSED/.test(message.text())) errors.push(`${page.url()}: ${message.text()}`);
	});
	page.setDefaultTimeout(15_000);
	return { browser, context, page, errors };
}

/** @param {import('playwright-core').Page} page @param {string} name */
export function shoot(page, name) {
	return page.screenshot({ path: join(artifacts, `${name}.png`) });
}

/** @param {import('playwright-core').Page} page @param {string} name */
export async function keepFailure(page, name) {
	await shoot(page, `failed-${name.replace(/[^a-z0-9]+/gi, '-').slice(0, 60)}`);
}

/**
 * Makes the first account through the one-time link.
 * @param {import('playwright-core').Page} page @param {string} link @param {string} password
 */
export async function setUp(page, link, password) {
	await page.goto(link);
	await page.getByLabel('Password', { exact: true }).fill(password);
	await page.getByLabel('Password again').fill(password);
	await page.getByRole('button', { name: 'Set up and sign in' }).click();
	await page.getByRole('heading', { name: 'Overview' }).waitFor();
}

/** The text that the shown terminal shows. @param {import('playwright-core').Page} page */
export function screen(page) {
	return page.locator('[role=tabpanel].shown .xterm-rows').innerText();
}

/**
 * Types a line into the shown terminal and waits for what comes back.
 * @param {import('playwright-core').Page} page @param {string} line @param {RegExp} answer @param {number} [seconds]
 */
export async function type(page, line, answer, seconds = 20) {
	await page.locator('[role=tabpanel].shown .xterm-helper-textarea').focus();
	await page.keyboard.type(`${line}\n`);
	return eventually(`\`${line}\` prints ${answer}`, async () => {
		const text = (await screen(page)).replaceAll('\u00a0', ' ');
		const match = answer.exec(text);
		if (!match) throw new Error(`the screen shows:\n${text}`);
		return match;
	}, seconds);
}

/** All the text of the shown terminal, what has scrolled away included. @param {import('playwright-core').Page} page */
export async function wholeText(page) {
	const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'Save as text' }).click()]);
	return readFileSync(await download.path(), 'utf8');
}

/**
 * Somebody else's browser, or another one of the same person, signed in.
 * @param {import('playwright-core').Browser} browser @param {string} url of the master
 * @param {{ name: string, password: string }} account
 */
export async function visitor(browser, url, { name, password }) {
	const context = await browser.newContext({ viewport: { width: 1100, height: 760 }, reducedMotion: 'reduce' });
	const page = await context.newPage();
	page.setDefaultTimeout(15_000);
	await page.goto(`${url}/sign-in`);
	await page.getByLabel('Name').fill(name);
	await page.getByLabel('Password', { exact: true }).fill(password);
	await page.getByRole('button', { name: 'Sign in' }).click();
	await page.getByRole('heading', { name: 'Overview' }).waitFor();
	return { context, page };
}

/** A row of the VM table. @param {import('playwright-core').Page} page @param {string} name */
export function row(page, name) {
	return page.getByRole('grid', { name: 'VMs' }).getByRole('row').filter({ has: page.getByRole('gridcell', { name, exact: true }) });
}

/**
 * Chooses from a VM's menu in the table.
 * @param {import('playwright-core').Page} page @param {string} name @param {string | RegExp} item
 */
export async function choose(page, name, item) {
	await row(page, name).getByRole('button', { name: `Actions for ${name}` }).click();
	await page.getByRole('menuitem', { name: item }).click();
}
