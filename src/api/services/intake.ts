import type { Clock } from "../../base/clock.ts";

/**
 * Limits the messages of streaming calls handled in one event loop turn: one socket read may deliver thousands. A
 * stream that finds the turn's share used up stops reading and continues in a later turn, after the others that wait.
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

  /** Counts a message handled by a stream. False: the stream must pause until `goOn` is called. */
  take(stream: IntakeStream): boolean {
    if (!this.#isScheduled) {
      this.#isScheduled = true;
      this.#clock.defer(this.#nextTurn);
    }
    if (--this.#left > 0) return true;
    this.#waiting.add(stream);
    return false;
  }

  /** The stream has ended. */
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
