import type { Clock } from "../../base/clock.ts";

/**
 * How many messages of streaming calls are taken in one turn of the event loop: a client may have thousands of them in one
 * piece of what its socket delivers. A stream that finds the turn's share used up stops reading and goes on in a later turn,
 * behind the others that wait.
 */
export class Intake {
  readonly #clock: Clock;
  readonly #perTurn: number;
  #left: number;
  #isScheduled = false;
  readonly #waiting = new Set<IntakeStream>();

  constructor(clock: Clock, perTurn: number) {
    this.#clock = clock;
    this.#perTurn = perTurn;
    this.#left = perTurn;
  }

  /** Counts a message that a stream has taken. False: the stream must pause until `goOn` is called. */
  take(stream: IntakeStream): boolean {
    if (!this.#isScheduled) {
      this.#isScheduled = true;
      this.#clock.defer(this.#nextTurn);
    }
    if (--this.#left > 0) return true;
    this.#waiting.add(stream);
    return false;
  }

  /** The stream is gone. */
  forget(stream: IntakeStream): void {
    this.#waiting.delete(stream);
  }

  readonly #nextTurn = (): void => {
    this.#isScheduled = false;
    this.#left = this.#perTurn;
    for (const stream of this.#waiting) {
      if (this.#left <= 0) break;
      this.#waiting.delete(stream);
      stream.goOn();
    }
    if (this.#waiting.size === 0 || this.#isScheduled) return;
    this.#isScheduled = true;
    this.#clock.defer(this.#nextTurn);
  };
}

export interface IntakeStream {
  /** It may read again. */
  goOn(): void;
}
