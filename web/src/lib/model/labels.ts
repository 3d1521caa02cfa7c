// Labels as people write them: one a line or separated by commas, `key=value` or `key`.

export function parseLabels(text: string): Record<string, string> {
	const entries = text
		.split(/[\n,]/)
		.map((line) => line.trim())
		.filter(Boolean)
		.map((line) => {
			const at = line.indexOf('=');
			return at < 0 ? ([line, ''] as const) : ([line.slice(0, at).trim(), line.slice(at + 1).trim()] as const);
		});
	return Object.fromEntries(entries);
}

export function writeLabels(labels: Record<string, string>): string {
	return Object.entries(labels).map(labelText).join('\n');
}

/** A label as it is shown and searched for. */
export function labelText([key, value]: [string, string]): string {
	return value ? `${key}=${value}` : key;
}
