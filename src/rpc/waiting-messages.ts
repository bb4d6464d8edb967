/** Messages of one call that arrived while its reader was busy, in order. The stream's window bounds them. */
export class WaitingMessages {
  readonly #messages: Uint8Array[] = [];
  readonly #flags: number[] = [];
  #from = 0;

  get isEmpty(): boolean {
    return this.#from === this.#messages.length;
  }

  push(flag: number, message: Uint8Array): void {
    this.#messages.push(message);
    this.#flags.push(flag);
  }

  /** Inserts a message before the first. */
  unshift(flag: number, message: Uint8Array): void {
    this.#messages.splice(0, this.#from, message);
    this.#flags.splice(0, this.#from, flag);
    this.#from = 0;
  }

  /** Removes the first. */
  shift(): { flag: number; message: Uint8Array } {
    const first = { flag: this.#flags[this.#from]!, message: this.#messages[this.#from]! };
    if (++this.#from === COMPACT) {
      this.#messages.splice(0, COMPACT);
      this.#flags.splice(0, COMPACT);
      this.#from = 0;
    }
    return first;
  }
}

/** Consumed entries are dropped in batches of this many. */
const COMPACT = 256;
