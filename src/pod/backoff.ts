/** Pauses that grow while nothing changes. */
import type { Clock } from "../base/clock.ts";

const FIRST_MS = 100;
const LAST_MS = 2_000;

export class Backoff {
  readonly #clock: Clock;
  #nextMs = FIRST_MS;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  reset(): void {
    this.#nextMs = FIRST_MS;
  }

  /** Ends early when the signal fires. */
  pause(signal: AbortSignal): Promise<void> {
    const ms = this.#nextMs;
    this.#nextMs = Math.min(LAST_MS, 2 * ms);
    return sleep(this.#clock, ms, signal);
  }
}

export function sleep(clock: Clock, ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      timer.cancel();
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = clock.after(ms, end);
    if (signal.aborted) end();
    else signal.addEventListener("abort", end);
  });
}
