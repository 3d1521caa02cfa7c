// Colours of the terminal in both themes: chosen for 4.5:1 against their background.
import type { ITheme } from '@xterm/xterm';

export const DARK: ITheme = {
	background: '#14161c',
	foreground: '#dfe2ea',
	cursor: '#a9b1ff',
	cursorAccent: '#14161c',
	selectionBackground: '#3d4570',
	black: '#2a2d37',
	red: '#f2777a',
	green: '#7fc98f',
	yellow: '#e0b268',
	blue: '#82a9f5',
	magenta: '#c597ea',
	cyan: '#6fc7cf',
	white: '#c9cdd8',
	brightBlack: '#838999',
	brightRed: '#ff9a9c',
	brightGreen: '#a0e0ad',
	brightYellow: '#f2cc8c',
	brightBlue: '#a8c4ff',
	brightMagenta: '#dcb8f7',
	brightCyan: '#98e0e6',
	brightWhite: '#f5f6fa'
};

export const LIGHT: ITheme = {
	background: '#fdfdfe',
	foreground: '#262a35',
	cursor: '#4a56c8',
	cursorAccent: '#ffffff',
	selectionBackground: '#cdd4f7',
	black: '#262a35',
	red: '#b3261e',
	green: '#17713a',
	yellow: '#8a5a00',
	blue: '#2450b8',
	magenta: '#82329c',
	cyan: '#0b6c78',
	white: '#6b7080',
	brightBlack: '#5c6170',
	brightRed: '#c4372f',
	brightGreen: '#1d7d43',
	brightYellow: '#946200',
	brightBlue: '#2f5fd0',
	brightMagenta: '#933fae',
	brightCyan: '#117886',
	brightWhite: '#3a3f4c'
};
