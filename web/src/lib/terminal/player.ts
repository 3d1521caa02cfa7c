// Plays a recording onto a screen: any speed, to and fro. Knows nothing of the page, nor of clocks: `advance` is told
// how much time has passed.
import { IDLE_LIMIT, timeline, type Cast } from './cast';

/** What it is played onto. */
export type Screen = {
	write: (text: string) => void;
	resize: (cols: number, rows: number) => void;
	/** Blank, as before the first byte. */
	reset: () => void;
};

export class Player {
	readonly cast: Cast;
	#screen: Screen;
	#times: number[];
	/** Events before this one are on the screen. */
	#next = 0;
	#position = 0;
	#skipIdle = true;

	constructor(cast: Cast, screen: Screen) {
		this.cast = cast;
		this.#screen = screen;
		this.#times = timeline(cast.events, IDLE_LIMIT);
		screen.resize(cast.cols, cast.rows);
	}

	/** Seconds, as it is played. */
	get position(): number {
		return this.#position;
	}

	get duration(): number {
		return this.#times.at(-1) ?? 0;
	}

	get ended(): boolean {
		return this.#next >= this.cast.events.length;
	}

	get skipIdle(): boolean {
		return this.#skipIdle;
	}

	/** Keeps its place among the events. */
	setSkipIdle(skip: boolean): void {
		if (skip === this.#skipIdle) return;
		this.#skipIdle = skip;
		this.#times = timeline(this.cast.events, skip ? IDLE_LIMIT : null);
		this.#position = this.#times[this.#next - 1] ?? 0;
	}

	/** Where a moment of the session itself is played, in seconds. */
	placeOf(at: number): number {
		const index = this.cast.events.findIndex((event) => event.at >= at);
		return index < 0 ? this.duration : (this.#times[index] ?? 0);
	}

	advance(seconds: number): void {
		this.#show(Math.min(this.#position + seconds, this.duration));
	}

	seek(position: number): void {
		const to = Math.max(0, Math.min(position, this.duration));
		if (to < this.#position) {
			this.#screen.reset();
			this.#screen.resize(this.cast.cols, this.cast.rows);
			this.#next = 0;
		}
		this.#show(to);
	}

	#show(position: number): void {
		this.#position = position;
		let text = '';
		while (this.#next < this.#times.length && (this.#times[this.#next] ?? 0) <= position) {
			const event = this.cast.events[this.#next];
			this.#next += 1;
			if (event?.kind === 'output') text += event.text;
			else if (event?.kind === 'resize') {
				this.#screen.write(text);
				text = '';
				this.#screen.resize(event.cols, event.rows);
			}
		}
		if (text) this.#screen.write(text);
	}
}
