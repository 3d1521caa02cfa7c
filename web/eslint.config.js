import js from '@eslint/js';
import svelte from 'eslint-plugin-svelte';
import globals from 'globals';
import ts from 'typescript-eslint';
import svelteConfig from './svelte.config.js';

export default ts.config(
	{ ignores: ['build/', '.svelte-kit/', 'node_modules/', 'src/lib/api/schema.d.ts'] },
	js.configs.recommended,
	...ts.configs.strict,
	...svelte.configs.recommended,
	{ languageOptions: { globals: { ...globals.browser, ...globals.node } } },
	{
		files: ['**/*.svelte', '**/*.svelte.ts'],
		languageOptions: { parserOptions: { parser: ts.parser, svelteConfig } }
	},
	{
		rules: {
			// TypeScript knows better what is defined.
			'no-undef': 'off',
			// User text is hostile: it is only ever shown as text.
			'svelte/no-at-html-tags': 'error',
			'@typescript-eslint/no-explicit-any': 'error',
			'@typescript-eslint/no-non-null-assertion': 'error',
			// The page always lives at the root of the master's address.
			'svelte/no-navigation-without-resolve': 'off',
			// Collections that are replaced whole are plain on purpose; those that change in place are Svelte's.
			'svelte/prefer-svelte-reactivity': 'off',
			// Reads a write inside `??=` as no use.
			'no-unused-private-class-members': 'off'
		}
	}
);
