// A YAML editor on CodeMirror. Loaded only when somebody writes user-data, and framework-free like the terminal.
import { defaultKeymap, history, historyKeymap } from '@codemirror/commands';
import { yaml } from '@codemirror/lang-yaml';
import { HighlightStyle, bracketMatching, indentOnInput, indentUnit, syntaxHighlighting } from '@codemirror/language';
import { lintGutter, setDiagnostics, type Diagnostic } from '@codemirror/lint';
import { Compartment, EditorState, Transaction } from '@codemirror/state';
import { EditorView, drawSelection, keymap, lineNumbers, placeholder } from '@codemirror/view';
import { tags } from '@lezer/highlight';
import type { Finding } from '$lib/api/types';

export type Editor = {
	/** Puts another text in, unless it is the one that is there. */
	set(text: string): void;
	/** Marks what is wrong in its lines. */
	mark(findings: readonly Finding[]): void;
	/** Says to screen readers whether it is wrong as a whole. */
	invalid(wrong: boolean): void;
	destroy(): void;
};

export type EditorOptions = {
	text: string;
	/** What screen readers call it, and the id of what else they read. */
	label: string;
	describedBy: string;
	example: string;
	changed: (text: string) => void;
};

const colours = HighlightStyle.define([
	{ tag: [tags.definition(tags.propertyName), tags.propertyName], color: 'var(--accent-text)' },
	{ tag: [tags.string, tags.content], color: 'var(--text)' },
	{ tag: [tags.lineComment, tags.comment], color: 'var(--muted)', fontStyle: 'italic' },
	{ tag: [tags.number, tags.bool, tags.null], color: 'var(--working)' },
	{ tag: [tags.punctuation, tags.separator, tags.squareBracket, tags.brace], color: 'var(--muted)' }
]);

const look = EditorView.theme({
	'&': { fontSize: 'inherit', backgroundColor: 'transparent', color: 'var(--text)', maxHeight: '44vh' },
	'&.cm-focused': { outline: 'none' },
	'.cm-scroller': { fontFamily: 'var(--mono)', lineHeight: '18px', minHeight: '116px', overflow: 'auto' },
	'.cm-content': { caretColor: 'var(--text)', padding: '6px 0' },
	'.cm-cursor': { borderLeftColor: 'var(--text)' },
	'.cm-gutters': { backgroundColor: 'transparent', color: 'var(--faint)', border: '0' },
	'.cm-placeholder': { color: 'var(--faint)', whiteSpace: 'pre' },
	'&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground': { backgroundColor: 'var(--accent-soft)' },
	'.cm-tooltip': { backgroundColor: 'var(--raised)', color: 'var(--text)', border: '1px solid var(--line-strong)', borderRadius: 'var(--radius)' },
	'.cm-diagnostic': { fontFamily: 'inherit' }
});

export function edit(parent: HTMLElement, options: EditorOptions): Editor {
	const about = new Compartment();
	const attributes = (wrong: boolean) =>
		EditorView.contentAttributes.of({
			'aria-label': options.label,
			'aria-describedby': options.describedBy,
			'aria-invalid': String(wrong),
			spellcheck: 'false',
			autocapitalize: 'none'
		});
	const view = new EditorView({
		parent,
		state: EditorState.create({
			doc: options.text,
			extensions: [
				lineNumbers(),
				lintGutter(),
				history(),
				drawSelection(),
				indentOnInput(),
				bracketMatching(),
				indentUnit.of('  '),
				EditorState.tabSize.of(2),
				yaml(),
				syntaxHighlighting(colours),
				look,
				placeholder(options.example),
				// Tab goes on to the next field: nobody is to be caught in here.
				keymap.of([...defaultKeymap, ...historyKeymap]),
				about.of(attributes(false)),
				EditorView.updateListener.of((update) => {
					const ours = update.transactions.some((transaction) => transaction.annotation(Transaction.remote));
					if (update.docChanged && !ours) options.changed(update.state.doc.toString());
				})
			]
		})
	});
	return {
		set(text) {
			if (view.state.doc.toString() === text) return;
			view.dispatch({
				changes: { from: 0, to: view.state.doc.length, insert: text },
				annotations: Transaction.remote.of(true)
			});
		},
		mark(findings) {
			const diagnostics: Diagnostic[] = findings.map((finding) => {
				const number = Math.min(Math.max(finding.line ?? 1, 1), view.state.doc.lines);
				const line = view.state.doc.line(number);
				const from = line.from + (line.text.length - line.text.trimStart().length);
				return { from, to: Math.max(from, line.to), severity: finding.severity, message: finding.message };
			});
			view.dispatch(setDiagnostics(view.state, diagnostics));
		},
		invalid: (wrong) => view.dispatch({ effects: about.reconfigure(attributes(wrong)) }),
		destroy: () => view.destroy()
	};
}
