/**
 * The share of each event loop turn spent reading client input, divided among connections: a connection with much input
 * reads one slice at a time, and when the turn's share is used up, the rest waits for the next turn. Connections
 * without a slice so far go first.
 */
import type { Clock } from "../base/clock.ts";

/** Time a connection may read before others get their turn. */
export const READ_SLICE_MS = 2;
const READ_TURN_MS = 8;
/** Shorter times are not counted: measuring would cost more. */
const COUNTED_MS = 0.2;

export interface Reader {
  /** Reads for another slice. */
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

  /** Reading took this long. */
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
    // One of the connections that have begun continues, however many new ones there are.
    if (begun.length > 0) begun[nextBegun++]!.readOn();
    while (nextBegun < begun.length && !this.isUsedUp) begun[nextBegun++]!.readOn();
    this.#fresh.unshift(...fresh.slice(nextFresh));
    this.#begun.unshift(...begun.slice(nextBegun));
    if (this.#fresh.length + this.#begun.length > 0) this.#schedule();
  };
}
