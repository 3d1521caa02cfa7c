// What the end of a terminal's or display's WebSocket means (docs/protocol.md), and how long to wait before the next try.

const ENDED = 1000;
const PROTOCOL = 1002;
const POLICY = 1008;
const AGENT_OFFLINE = 4003;
const VM_NOT_RUNNING = 4009;
/** What a browser says of a connection that broke. */
export const LOST = 1006;
/** There is no such VM or session: which a master that has just started may say too early. */
export const NOT_FOUND = 4004;

/** Shortest and longest wait before a reconnect. */
const BACKOFF_FIRST = 500;
const BACKOFF_MAX = 15_000;
/** A connection that held this long begins them anew, in milliseconds. */
export const HEALTHY_AFTER = 10_000;

/** Whether a close with this code is the last word: trying again would say the same. */
export function isFinal(code: number): boolean {
	return code === ENDED || code === POLICY || code === PROTOCOL || code === VM_NOT_RUNNING;
}

/** Why a connection was cut that gave no reason. */
export function cutWords(code: number): string {
	return code === AGENT_OFFLINE ? 'the machine is offline' : 'connection lost';
}

/** Milliseconds to wait before try number `attempt`, counted from 0; `random` is from 0 to 1. */
export function pause(attempt: number, random: number): number {
	const ceiling = Math.min(BACKOFF_MAX, BACKOFF_FIRST * 2 ** attempt);
	// At least half of it, so that a master that comes back is not met by everybody at once nor at zero.
	return ceiling / 2 + (random * ceiling) / 2;
}
