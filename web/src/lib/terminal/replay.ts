// The screen that a recording is played onto: xterm.js that takes no input, in the recording's own size.
import { DARK, LIGHT } from './theme';
import type { Screen } from './player';

export type Replay = Screen & { setDark: (dark: boolean) => void; dispose: () => void };

export async function makeReplay(element: HTMLElement, label: string, dark: boolean, fontSize: number): Promise<Replay> {
	const [{ Terminal }, { Unicode11Addon }] = await Promise.all([import('@xterm/xterm'), import('@xterm/addon-unicode11'), import('@xterm/xterm/css/xterm.css')]);
	const term = new Terminal({
		allowProposedApi: true,
		disableStdin: true,
		cursorBlink: false,
		lineHeight: 1.15,
		minimumContrastRatio: 4.5,
		scrollback: 10_000,
		fontSize,
		fontFamily: 'ui-monospace, "SF Mono", "Cascadia Mono", "JetBrains Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace',
		theme: dark ? DARK : LIGHT
	});
	term.loadAddon(new Unicode11Addon());
	term.unicode.activeVersion = '11';
	// What a program did with the clipboard when it was recorded, it does not do again.
	term.parser.registerOscHandler(52, () => true);
	term.open(element);
	term.textarea?.setAttribute('aria-label', label);
	return {
		write: (text) => term.write(text),
		resize: (cols, rows) => term.resize(cols, rows),
		reset: () => term.reset(),
		setDark: (now) => (term.options.theme = now ? DARK : LIGHT),
		dispose: () => term.dispose()
	};
}
