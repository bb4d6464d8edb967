/**
 * Time of one turn of the event loop that goes into reading what clients send, shared among connections: a connection that
 * has much to read does a slice of it at a time, and when all together have used up the turn's share, the rest waits for the
 * next turn. Who has not had a slice yet comes before those who have.
 */
import type { Clock } from "../base/clock.ts";

/** A connection may go on so long before others must have had their turn. */
export const READ_SLICE_MS = 2;
const READ_TURN_MS = 8;
/** Shorter than this is not counted: it would cost more than it says. */
const COUNTED_MS = 0.2;

export interface Reader {
  /** Reads on, for a slice. */
  readOn(): void;
}

export class ReadTurns {
  readonly #clock: Clock;
  #usedMs = 0;
  #scheduled = false;
  #fresh: Reader[] = [];
  #begun: Reader[] = [];

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** This turn's share is used up: call `later`. */
  get isUsedUp(): boolean {
    return this.#usedMs >= READ_TURN_MS;
  }

  /** Reading took so long. */
  used(ms: number): void {
    if (ms < COUNTED_MS) return;
    this.#usedMs += ms;
    this.#schedule();
  }

  /** `readOn` will be called, once, in a later turn. `begun`: it has had a slice. */
  later(reader: Reader, begun: boolean): void {
    (begun ? this.#begun : this.#fresh).push(reader);
    this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#clock.defer(this.#run);
  }

  readonly #run = (): void => {
    this.#scheduled = false;
    this.#usedMs = 0;
    const fresh = this.#fresh;
    const begun = this.#begun;
    this.#fresh = [];
    this.#begun = [];
    let nextFresh = 0;
    let nextBegun = 0;
    while (nextFresh < fresh.length && !this.isUsedUp) fresh[nextFresh++]!.readOn();
    // One of those who have begun goes on, whoever else comes.
    if (begun.length > 0) begun[nextBegun++]!.readOn();
    while (nextBegun < begun.length && !this.isUsedUp) begun[nextBegun++]!.readOn();
    this.#fresh.unshift(...fresh.slice(nextFresh));
    this.#begun.unshift(...begun.slice(nextBegun));
    if (this.#fresh.length + this.#begun.length > 0) this.#schedule();
  };
}
