// What a terminal shows, cell by cell: text, colours, attributes and the cursor; and the same bytes in a plain xterm.js
// to compare with.
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { eventually } from './harness.js';

const web = join(dirname(fileURLToPath(import.meta.url)), '../web');
const xterm = join(web, 'node_modules/@xterm');

/** Each row as runs of like cells. Runs in the browser. */
function runs(/** @type {Element} */ rows) {
	return [...rows.children].map((row) => {
		/** @type {{ like: string, text: string }[]} */
		const found = [];
		for (const span of row.children) {
			// Whether the cursor is a block or an outline says only where the focus is.
			const classes = [...span.classList].filter((name) => !/^xterm-cursor-/.test(name)).sort();
			const { color, backgroundColor, textDecorationColor } = /** @type {HTMLElement} */ (span).style;
			const like = [classes.join(' '), color, backgroundColor, textDecorationColor].join(';');
			const text = span.textContent ?? '';
			const last = found.at(-1);
			if (last?.like === like) last.text += text;
			else found.push({ like, text });
		}
		return found.map((run) => `${run.like}|${run.text}`).join('\n');
	});
}

/** The rows that the shown terminal draws. @param {import('playwright-core').Page} page @returns {Promise<string[]>} */
export function drawn(page) {
	return page.locator('[role=tabpanel].shown .xterm-rows').evaluate(runs);
}

/** The picture of the shown terminal. @param {import('playwright-core').Page} page */
export function pixels(page) {
	return page.locator('[role=tabpanel].shown .xterm-screen').screenshot();
}

/** The rows once they have stopped to change. @param {import('playwright-core').Page} page @param {RegExp} [shows] @param {number} [seconds] */
export async function settled(page, shows = /\S/, seconds = 20) {
	let before = '';
	let same = 0;
	return eventually(`the screen shows ${shows} and rests`, async () => {
		const rows = await drawn(page);
		const now = rows.join('\0');
		same = now === before ? same + 1 : 0;
		before = now;
		return same >= 10 && shows.test(plain(rows)) ? rows : null;
	}, seconds);
}

/** Rows without their attributes. @param {string[]} rows */
export function plain(rows) {
	const text = rows.map((row) => row.split('\n').map((run) => run.slice(run.indexOf('|') + 1)).join(''));
	return text.join('\n').replaceAll('\u00a0', ' ');
}

/** The first row that differs, for people. @param {string[]} one @param {string[]} other */
export function difference(one, other) {
	if (one.length !== other.length) return `${one.length} rows and ${other.length}`;
	const at = one.findIndex((row, i) => row !== other[i]);
	return at < 0 ? null : `row ${at + 1} is\n${one[at]}\nand\n${other[at]}`;
}

/**
 * Follows the bytes that the page's terminals get: those of the last connection, and the size it asked for.
 * @param {import('playwright-core').Page} page
 */
export function listen(page) {
	/** @type {Buffer[]} */
	let bytes = [];
	let size = { cols: 80, rows: 24 };
	let offset = -1;
	page.on('websocket', (socket) => {
		if (!socket.url().includes('/attach')) return;
		bytes = [];
		offset = -1;
		socket.on('framereceived', ({ payload }) => {
			if (typeof payload !== 'string') bytes.push(payload);
			else {
				const frame = JSON.parse(payload);
				if (frame.type === 'offset') offset = frame.offset;
			}
		});
		socket.on('framesent', ({ payload }) => {
			if (typeof payload !== 'string') return;
			const frame = JSON.parse(payload);
			if (frame.type === 'resize') size = { cols: frame.cols, rows: frame.rows };
		});
	});
	return {
		bytes: () => Buffer.concat(bytes),
		size: () => size,
		/** At which byte of the session the last connection began. */
		offset: () => offset
	};
}

/**
 * A page with nothing but xterm.js in it, with the options of Batwa's.
 * @param {import('playwright-core').BrowserContext} context
 */
export async function reference(context) {
	const page = await context.newPage();
	await page.setContent('<div id="screen"></div>');
	await page.addStyleTag({ path: join(xterm, 'xterm/css/xterm.css') });
	await page.addScriptTag({ path: join(xterm, 'xterm/lib/xterm.js') });
	await page.addScriptTag({ path: join(xterm, 'addon-unicode11/lib/addon-unicode11.js') });
	const types = /^import type.*$|: ITheme\b/gm;
	const theme = readFileSync(join(web, 'src/lib/terminal/theme.ts'), 'utf8').replace(types, '');
	const { LIGHT } = await import(`data:text/javascript,${encodeURIComponent(theme)}`);
	return {
		page,
		/**
		 * What a fresh terminal of this size draws for these bytes.
		 * @param {Buffer} bytes @param {{ cols: number, rows: number }} size @returns {Promise<string[]>}
		 */
		async draws(bytes, size) {
			await page.evaluate(
				async ({ data, size, theme }) => {
					const place = /** @type {HTMLElement} */ (document.getElementById('screen'));
					place.replaceChildren();
					const { Terminal, Unicode11Addon } = /** @type {any} */ (window);
					const term = new Terminal({ ...size, theme, allowProposedApi: true, minimumContrastRatio: 4.5, scrollback: 10_000, lineHeight: 1.15, fontSize: 13 });
					term.loadAddon(new Unicode11Addon.Unicode11Addon());
					term.unicode.activeVersion = '11';
					term.open(place);
					// It shows a cursor once it has had the focus.
					term.focus();
					const bytes = Uint8Array.from(atob(data), (char) => char.charCodeAt(0));
					await new Promise((done) => term.write(bytes, () => done(undefined)));
				},
				{ data: bytes.toString('base64'), size, theme: LIGHT }
			);
			/** @type {string[] | null} */
			let before = null;
			// It draws with the next frame of the picture.
			return eventually('the reference rests', async () => {
				const rows = await page.locator('.xterm-rows').evaluate(runs);
				const rests = before !== null && difference(before, rows) === null && rows.length === size.rows;
				before = rows;
				return rests ? rows : null;
			});
		}
	};
}
