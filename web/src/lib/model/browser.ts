// What a browser calls itself, short enough for a table.

/** `Firefox on Linux`; the first words of anything else. */
export function browserName(userAgent: string): string {
	// Most claim to be like others, so the rarer name decides.
	const names: [string, string][] = [['Edg/', 'Edge'], ['OPR/', 'Opera'], ['Firefox/', 'Firefox'], ['Chrome/', 'Chrome'], ['Safari/', 'Safari']];
	const browser = names.find(([mark]) => userAgent.includes(mark))?.[1];
	const system = /Android|iPhone|iPad|Windows|Mac OS X|CrOS|Linux/.exec(userAgent)?.[0]?.replace('Mac OS X', 'macOS') ?? null;
	if (browser && system) return `${browser} on ${system}`;
	return userAgent.split(' ').slice(0, 2).join(' ').slice(0, 60) || 'unknown';
}
