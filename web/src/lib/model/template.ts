// Templates of user-data, as far as the page reads them itself: which names are written as `{{name}}`.

/** The variables of a text, in the order in which they come; the same rule as the master's. */
export function variablesOf(text: string): string[] {
	const names = [...text.matchAll(/\{\{ *([a-z][a-z0-9_]{0,62}) *\}\}/g)].map((match) => match[1] as string);
	return [...new Set(names)];
}
