// What was typed and is not known to have arrived: kept over cuts of the line, and sent again from where the agent says
// (docs/protocol.md).

/** Size of one frame of input. */
const FRAME = 16 * 1024;

export class Typing {
	/** Bytes that arrived, as far as we were told. */
	#taken = 0;
	/** What was typed after them. */
	#pieces: Uint8Array<ArrayBuffer>[] = [];
	/** How many of these pieces went out on this line. */
	#sent = 0;
	/** Whether the agent counts what arrives, as it says when the line is there. */
	#counted = false;

	/** Bytes that have not been sent. */
	get unsent(): number {
		return this.#pieces.slice(this.#sent).reduce((sum, piece) => sum + piece.length, 0);
	}

	/** Whether something was sent of which the agent has yet to say that it arrived. */
	get isOpen(): boolean {
		return this.#counted && this.#sent > 0;
	}

	push(bytes: Uint8Array<ArrayBuffer>): void {
		for (let at = 0; at < bytes.length; at += FRAME) this.#pieces.push(bytes.slice(at, at + FRAME));
	}

	/** What is to be sent next; counts as sent. */
	next(): Uint8Array<ArrayBuffer> | undefined {
		const piece = this.#pieces[this.#sent];
		if (!piece) return undefined;
		if (this.#counted) this.#sent += 1;
		else this.#pieces.shift();
		return piece;
	}

	/** A line is there, at whose other end so much has arrived; `null` where that is not counted. */
	attached(taken: number | null): void {
		if (taken !== null && taken >= this.#taken) this.arrived(taken);
		else {
			// Nothing is known of what was sent on the line before: once at most is better than twice.
			this.#pieces.splice(0, this.#sent);
			this.#taken = taken ?? 0;
		}
		this.#counted = taken !== null;
		this.#sent = 0;
	}

	/** So much has arrived. */
	arrived(taken: number): void {
		let news = taken - this.#taken;
		while (news > 0) {
			const piece = this.#pieces[0];
			if (!piece) return;
			const part = Math.min(news, piece.length);
			this.#taken += part;
			news -= part;
			if (part < piece.length) {
				this.#pieces[0] = piece.slice(part);
				return;
			}
			this.#pieces.shift();
			this.#sent = Math.max(0, this.#sent - 1);
		}
	}

	/** Forgets all of it: there is nothing that it could go to. */
	clear(): void {
		this.#pieces = [];
		this.#sent = 0;
	}
}
