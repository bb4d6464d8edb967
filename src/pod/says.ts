/** What a pod says: one line for what is new, and the same again only after a while. */
import type { Clock } from "../base/clock.ts";

const AGAIN_MS = 60_000;

export class Says {
  /** What it does, or waits for. */
  doing = "it begins";
  readonly #clock: Clock;
  readonly #err: (text: string) => void;
  #saidMs = Number.NEGATIVE_INFINITY;

  constructor(clock: Clock, err: (text: string) => void) {
    this.#clock = clock;
    this.#err = err;
  }

  /** A step. */
  now(text: string): void {
    this.doing = text;
    this.#saidMs = this.#clock.nowMs();
    this.#line(text);
  }

  /** A wait, which is asked about again and again. */
  waiting(text: string, isForPerson = false): void {
    const line = isForPerson ? `WAITS FOR A PERSON: ${text}` : text;
    if (this.doing === line && this.#clock.nowMs() < this.#saidMs + AGAIN_MS) return;
    this.now(line);
  }

  #line(text: string): void {
    this.#err(`${new Date(this.#clock.wallMs()).toISOString()} kvorum pod: ${text}\n`);
  }
}
