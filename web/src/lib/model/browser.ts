// What a browser calls itself, short enough for a table.

/** `Firefox on Linux`; the first words of anything else. */
export function browserName(userAgent: string): string {
	const browser =
		/\b(Edg|OPR|Firefox|Chrome|Safari)\//.exec(userAgent)?.[1]?.replace('Edg', 'Edge').replace('OPR', 'Opera') ?? null;
	const system = /Android|iPhone|iPad|Windows|Mac OS X|CrOS|Linux/.exec(userAgent)?.[0]?.replace('Mac OS X', 'macOS') ?? null;
	if (browser && system) return `${browser} on ${system}`;
	return userAgent.split(' ').slice(0, 2).join(' ').slice(0, 60) || 'unknown';
}
