// Full-screen programs, colours and wide characters look after a reload as before it, and as plain xterm.js draws the
// same bytes.
import { execFileSync } from 'node:child_process';
import { difference, drawn, listen, pixels, plain, reference, settled } from './drawn.js';
import { keepFailure, open, row, setUp, shoot, type } from './browser.js';
import { check, eventually, suite } from './harness.js';
import { stateDir, up } from './master.js';

const VM = 'demo-01';

const test = suite('fidelity', {
	async start() {
		const dir = stateDir();
		const master = await up({ log: 'fidelity-master', dir, args: ['--driver', 'fake', '--fake', 'vms=2,latency=20ms'] });
		const opened = await open();
		return { master, tmux: `batwa-${process.pid}`, heard: listen(opened.page), plainXterm: await reference(opened.context), ...opened };
	},
	async stop({ browser, master }) {
		await browser.close();
		await master.stop();
		master.remove();
	},
	failed: ({ page }, name) => keepFailure(page, name)
});

const focus = (page) => page.locator('[role=tabpanel].shown .xterm-helper-textarea').focus();

/** A new shell in a browser tab of its own, which it fills, also after a reload. */
async function fresh({ page, master }) {
	const made = await page.request.post(`${master.url}/api/v1/terminals`, { data: { vm: VM, cols: 80, rows: 24 }, headers: { origin: master.url } });
	check(made.status() === 201, `no terminal: ${made.status()} ${await made.text()}`);
	const { id } = await made.json();
	await page.goto(`${master.url}/terminal/local/${VM}/${id}`);
}

/** Whether a program is here; says so where it is not. */
function has(program) {
	try {
		execFileSync('sh', ['-c', `command -v ${program}`]);
		return true;
	} catch {
		console.log(`SKIPPED: how ${program} looks in a terminal: it is not installed`);
		return false;
	}
}

/** Types keys with names, as `Escape`, and text. */
async function keys(page, ...pressed) {
	await focus(page);
	for (const key of pressed) {
		if (/^(Escape|Enter|Page|Arrow|Control\+)/.test(key)) await page.keyboard.press(key);
		else await page.keyboard.insertText(key);
	}
}

/** Reloads, and finds the same picture, cell by cell and pixel by pixel; and the same as plain xterm.js makes of it. */
async function staysThroughReload(it, what, shows) {
	const { page, heard, plainXterm } = it;
	await focus(page);
	const before = await settled(page, shows);
	const picture = await pixels(page);
	await page.reload();
	await focus(page);
	await eventually(`${what} is as it was`, async () => {
		const differs = difference(before, await drawn(page));
		if (differs) throw new Error(`${what} before and after the reload: ${differs}`);
		return true;
	});
	await eventually(`${what} has the same pixels`, async () => picture.equals(await pixels(page)));
	check(heard.offset() === 0, 'not all that it printed is held');
	const differs = difference(await plainXterm.draws(heard.bytes(), heard.size()), await drawn(page));
	if (differs) throw new Error(`${what} in plain xterm.js and here: ${differs}`);
}

test('colours, attributes and wide characters', async (it) => {
	const { page, master } = it;
	await setUp(page, await eventually('the set-up link', () => master.setupLink()), 'correct horse battery');
	await page.goto(`${master.url}/vms`);
	await row(page, VM).waitFor();
	const script = `
i=0
while [ $i -lt 256 ]; do printf '\\033[48;5;%dm %03d \\033[0m' $i $i; i=$((i+1)); [ $((i % 16)) != 0 ] || echo; done
i=0
while [ $i -lt 72 ]; do printf '\\033[48;2;%d;%d;128m\\033[38;2;255;%d;0m#\\033[0m' $((i*3)) $((255-i*3)) $((i*3)); i=$((i+1)); done
echo
printf 'wide: \u6f22\u5b57\u304b\u306a \ud55c\uae00 \u{1f980} \u{1f469}\u200d\u{1f4bb} e\u0301 \u250c\u2500\u2510 |\\n'
printf '\\033[1mbold\\033[0m \\033[2mdim\\033[0m \\033[3mitalic\\033[0m \\033[4munder\\033[0m \\033[4:3mcurly\\033[0m \\033[7minverse\\033[0m \\033[9mstruck\\033[0m \\033[53mover\\033[0m\\n'
printf '\\033(0lqqk\\033(B \\033[5mblinking\\033[0m tab\\tstop\\n'
printf 'one line that is longer than the window is wide: '; i=0; while [ $i -lt 60 ]; do printf 'word%d ' $i; i=$((i+1)); done; echo
`;
	const sent = await page.request.put(`${master.url}/api/v1/agents/local/vms/${VM}/files?path=show.sh`, { data: Buffer.from(script), headers: { origin: master.url, 'content-type': 'application/octet-stream' } });
	check(sent.ok(), `no file: ${sent.status()} ${await sent.text()}`);
	await fresh(it);
	await type(page, 'clear; sh show.sh; echo shown-$((6*7))', /shown-42/);
	await staysThroughReload(it, 'what was printed', /shown-42/);
	await shoot(page, 'fidelity-colours');
}, 90);

test('vim, through reloads, a storm of sizes, and back to the shell', async (it) => {
	if (!has('vim')) return;
	const { page } = it;
	await type(page, 'clear; echo before-$((40+4))', /before-44/);
	await keys(page, `vim -u NONE -N -i NONE -c 'set number ruler laststatus=2' show.sh`, 'Enter');
	await settled(page, /show\.sh/);
	await keys(page, '5Gothis line is new: 漢字', 'Escape', 'v3j');
	await staysThroughReload(it, 'vim', /VISUAL/);
	await shoot(page, 'fidelity-vim');
	const { width, height } = page.viewportSize();
	const size = JSON.stringify(it.heard.size());
	for (let n = 0; n < 40; n += 1) await page.setViewportSize({ width: 620 + ((n * 331) % 800), height: 420 + ((n * 197) % 460) });
	await page.setViewportSize({ width, height });
	// A browser that draws without a GPU is a second behind.
	await eventually('the window has its last size', () => JSON.stringify(it.heard.size()) === size);
	// It says this once it has taken in all before.
	await keys(page, 'Escape', '2G', `:echo 'stor' . 'med'`, 'Enter');
	await staysThroughReload(it, 'vim after a storm of sizes', /stormed/);
	await keys(page, ':q!', 'Enter');
	await settled(page, /before-44/);
	await type(page, 'echo after-$((40+5))', /after-45/);
	check(!plain(await drawn(page)).includes('VISUAL'), 'vim is still there');
}, 120);

test('less, with colours', async (it) => {
	if (!has('less')) return;
	const { page } = it;
	await type(page, `clear; i=0; while [ $i -lt 400 ]; do printf '\\033[38;5;%dmline %d\\033[0m\\n' $((i % 256)) $i; i=$((i+1)); done > lines; echo made-$((1+1))`, /made-2/);
	await keys(page, 'less -R +100 lines', 'Enter');
	await settled(page, /line 10\d/);
	await keys(page, '/line 2[0-9]9', 'Enter');
	await staysThroughReload(it, 'less', /line 209/);
	await keys(page, 'q');
	await type(page, 'echo back-$((1+2))', /back-3/);
}, 60);

test('tmux, in two panes', async (it) => {
	if (!has('tmux')) return;
	const { page, tmux } = it;
	try {
		await keys(page, `tmux -u -L ${tmux} -f /dev/null new-session \\; set -g status-right '' \\; split-window -h`, 'Enter');
		await settled(page, /\[0\]/);
		await keys(page, 'echo left-or-right-$((6*7))', 'Enter');
		await staysThroughReload(it, 'tmux', /or-right-42/);
		await shoot(page, 'fidelity-tmux');
	} finally {
		execFileSync('tmux', ['-L', tmux, 'kill-server'], { stdio: 'ignore' });
	}
	// What is typed before would go to a program that is ending.
	await settled(page, /exited\]/);
	await type(page, 'echo out-$((1+3))', /out-4/);
}, 60);

test('htop, held still', async (it) => {
	if (!has('htop')) return;
	const { page } = it;
	const [, pid] = await type(page, 'clear; echo pid-$$-', /pid-(\d+)-/);
	// In the shell's place: nothing is there that would take the terminal from a program that stands still.
	await keys(page, 'exec htop', 'Enter');
	await eventually('it draws', async () => /F10/.test(plain(await drawn(page))));
	process.kill(Number(pid), 'SIGSTOP');
	try {
		await staysThroughReload(it, 'htop', /F10/);
		await shoot(page, 'fidelity-htop');
	} finally {
		process.kill(Number(pid), 'SIGKILL');
	}
}, 60);

test('vim that has printed more than is held', async (it) => {
	if (!has('vim')) return;
	const { page, heard } = it;
	await fresh(it);
	await type(page, 'clear; echo shell-$((40+6))', /shell-46/);
	await keys(page, `vim -u NONE -N -i NONE -c 'set number ruler laststatus=2' show.sh`, 'Enter');
	await settled(page, /show\.sh/);
	await keys(page, ':for n in range(1, 1500) | redraw! | endfor', 'Enter', 'gg', 'ArrowDown', 'ArrowDown');
	const before = await settled(page, /3,\d/);
	await page.reload();
	await focus(page);
	await eventually('vim is as it was', async () => {
		const differs = difference(before, await drawn(page));
		if (differs) throw new Error(`vim before and after the reload: ${differs}`);
		return true;
	});
	check(heard.offset() > 0, 'all that it printed is still held');
	// The keys mean to vim what they did, and the shell's own screen is still apart.
	await keys(page, 'ArrowDown');
	await settled(page, /4,\d/);
	await keys(page, ':q!', 'Enter');
	await settled(page, /bytes of output are no longer held/);
	check(!/show\.sh/.test(plain(await drawn(page)).replace(/.*vim -u.*/g, '')), 'vim is still to be seen');
	await type(page, 'echo after-$((40+7))', /after-47/);
}, 90);

test('no page printed an error', async ({ errors }) => {
	check(errors.length === 0, `the page printed errors:\n${errors.join('\n')}`);
});
