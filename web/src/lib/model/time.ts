// Times for people: relative in the text, absolute on hover.

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** How long something has lasted, in its largest unit: `12 s`, `3 min`, `5 h`, `3 d`. */
export function formatDuration(milliseconds: number): string {
	const ms = Math.max(0, milliseconds);
	if (ms < MINUTE) return `${Math.floor(ms / SECOND)} s`;
	if (ms < HOUR) return `${Math.floor(ms / MINUTE)} min`;
	if (ms < 2 * DAY) return `${Math.floor(ms / HOUR)} h`;
	return `${Math.floor(ms / DAY)} d`;
}

/** How long ago something was; `now` for the last few seconds, so that clocks a little apart do not show. */
export function formatAgo(time: string, now: number): string {
	const ms = now - Date.parse(time);
	if (Number.isNaN(ms)) return 'at an unknown time';
	if (ms < -MINUTE) return `in ${formatDuration(-ms)}`;
	if (ms < 5 * SECOND) return 'just now';
	return `${formatDuration(ms)} ago`;
}

/** The full time in the reader's own zone. */
export function formatAbsolute(time: string): string {
	const date = new Date(time);
	if (Number.isNaN(date.getTime())) return time;
	return date.toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
}

/** `mm:ss` or `h:mm:ss`, for something under way. */
export function formatClock(milliseconds: number): string {
	const total = Math.max(0, Math.floor(milliseconds / SECOND));
	const two = (n: number) => String(n).padStart(2, '0');
	const [h, m, s] = [Math.floor(total / 3600), Math.floor(total / 60) % 60, total % 60];
	return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** How long something took: `0.6 s`, from a minute on `mm:ss`. */
export function formatTook(from: string, to: string): string {
	return formatLasted(Date.parse(to) - Date.parse(from));
}

/** A time that something lasted, as [`formatTook`] writes it. */
export function formatLasted(milliseconds: number): string {
	const ms = Math.max(0, milliseconds);
	return ms < MINUTE ? `${(ms / SECOND).toFixed(1)} s` : formatClock(ms);
}
