// Errors come as `lower case without a stop`, so that they can be put together; here they become sentences.

/** The parts as sentences; parts that are absent are left out. A name in backticks keeps its case. */
export function sentences(...parts: (string | null | undefined)[]): string {
	return parts
		.filter((part): part is string => Boolean(part))
		.map((part) => part.charAt(0).toUpperCase() + part.slice(1).replace(/\.$/, ''))
		.join('. ');
}
