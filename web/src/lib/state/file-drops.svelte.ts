// Files that are dropped onto a terminal, on their way into the home folder of its VM's account.
import { freshKey } from './ask';
import { sendFile, type Sending } from './sending';
import { problemOf } from '$lib/api/problem';
import { sentences } from '$lib/model/sentence';

/** How long one that has arrived is still told. */
const TOLD_MS = 8000;

export type DropStatus =
	| { kind: 'looking' }
	/** A file of that name is there: it waits for a word. */
	| { kind: 'asking' }
	| { kind: 'sending'; cut: boolean }
	| { kind: 'arrived' }
	| { kind: 'failed'; reason: string };

/** One dropped file. */
export class FileDrop {
	readonly key = freshKey();
	readonly file: File;
	status = $state.raw<DropStatus>({ kind: 'looking' });
	/** Bytes that have gone. */
	sent = $state(0);
	#address: string;
	#sending: Sending | null = null;
	#over: (drop: FileDrop) => void;

	constructor(agent: string, vm: string, file: File, over: (drop: FileDrop) => void) {
		this.file = file;
		this.#address = `/api/v1/agents/${encodeURIComponent(agent)}/vms/${encodeURIComponent(vm)}/files?path=${encodeURIComponent(file.name)}`;
		this.#over = over;
		void this.#look();
	}

	/** Never writes over what is there without a word. */
	async #look(): Promise<void> {
		try {
			const answer = await fetch(this.#address, { method: 'HEAD' });
			if (answer.ok) this.status = { kind: 'asking' };
			// Whatever else keeps it from being sent is said in words when it is.
			else this.send();
		} catch {
			this.send();
		}
	}

	send(): void {
		this.status = { kind: 'sending', cut: false };
		const sending = sendFile(`${this.#address}&upload=${this.key}`, this.file, {}, (bytes, cut) => {
			this.sent = bytes;
			this.status = { kind: 'sending', cut };
		});
		this.#sending = sending;
		sending.done.then(
			() => {
				this.status = { kind: 'arrived' };
				setTimeout(() => this.#over(this), TOLD_MS);
			},
			(thrown) => {
				if (thrown instanceof DOMException && thrown.name === 'AbortError') return;
				this.status = { kind: 'failed', reason: sentences(problemOf(thrown).detail) };
			}
		);
	}

	/** Stops it, or takes away what is told of it. */
	dismiss(): void {
		this.#sending?.cancel();
		this.#over(this);
	}
}
