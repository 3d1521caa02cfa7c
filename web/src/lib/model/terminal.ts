// Terminal sessions in words: who is there, whose it is, how long it lives on.
import type { Terminal, TerminalViewer } from '$lib/api/types';
import { formatDuration } from './time';

/** What a session is called: by its name, else by its VM. */
export function sessionTitle(session: { name?: string | null; vm: string; kind: 'shell' | 'console' }): string {
	return session.name ?? (session.kind === 'console' ? `${session.vm} console` : session.vm);
}

/** Who is there, in a line: `ann, bob (watches), 2 more`. `count` may be above what is listed. */
export function people(present: readonly TerminalViewer[], count: number): string {
	const words: string[] = [];
	for (const { user, access } of present) {
		const word = `${user || 'somebody'}${access === 'watch' ? ' (watches)' : ''}`;
		// The same account on several screens is one of them.
		if (!words.includes(word)) words.push(word);
	}
	if (count > present.length) words.push(`${count - present.length} more`);
	return words.join(', ');
}

/** What it means that a session is recorded. */
export function recordedWords(mark: { input: boolean; required: boolean }): string {
	const what = mark.input ? 'what is shown and what is typed' : 'what is shown';
	return `Recorded: ${what}${mark.required ? ', as an admin’s policy requires' : ''}`;
}

/** How long a session lives on once nobody watches. */
export function lifetime(session: { keep?: boolean; ttl_s: number }): string {
	if (session.keep) return 'until it is ended';
	return session.ttl_s === 0 ? 'until nobody watches' : `${formatDuration(session.ttl_s * 1000)} unwatched`;
}

/** Whether `user` may do with a session what only its owner and admins may. */
export function owns(session: Terminal, user: { name: string; role: string } | null): boolean {
	return user !== null && (user.role === 'admin' || session.opened_by === user.name);
}

/** Why `user` cannot get into a session; `null` when they can. */
export function entryRefusal(session: Terminal, user: { name: string; role: string; terminal: boolean } | null): string | null {
	if (!user) return 'you are signed out';
	if (owns(session, user)) return user.terminal ? null : 'your account may not open terminals';
	if (session.guests?.some((guest) => guest.user === user.name)) return null;
	return session.opened_by ? `it is not shared with you: ask ${session.opened_by}` : 'it is not shared with you';
}

/** Times to live that are offered, in seconds; `null` is without end. */
export const LIFETIMES: { title: string; ttl_s: number | null }[] = [
	{ title: 'when nobody watches any more', ttl_s: 0 },
	{ title: '30 min after the last one left', ttl_s: 1800 },
	{ title: '8 h after the last one left', ttl_s: 8 * 3600 },
	{ title: '7 d after the last one left', ttl_s: 7 * 24 * 3600 },
	{ title: 'never by itself', ttl_s: null }
];
