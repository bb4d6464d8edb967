import type { Clock, Timer } from "../../src/base/clock.ts";

/** A clock that only the test advances. Deferred calls run in `turn` and while the clock advances. */
export class VirtualClock implements Clock {
  #nowMs = 1_000;
  #sequence = 0;
  readonly #timers = new Set<{ atMs: number; sequence: number; callback: () => void }>();
  #deferred: (() => void)[] = [];

  nowMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return 1_700_000_000_000 + this.#nowMs;
  }

  after(delayMs: number, callback: () => void): Timer {
    const timer = { atMs: this.#nowMs + Math.max(delayMs, 0), sequence: this.#sequence++, callback };
    this.#timers.add(timer);
    return { cancel: () => void this.#timers.delete(timer) };
  }

  every(periodMs: number, callback: () => void): Timer {
    let timer: Timer;
    const again = () => {
      timer = this.after(periodMs, again);
      callback();
    };
    timer = this.after(periodMs, again);
    return { cancel: () => timer.cancel() };
  }

  defer(callback: () => void): void {
    this.#deferred.push(callback);
  }

  get timerCount(): number {
    return this.#timers.size;
  }

  /** Runs the calls deferred so far; false when there were none. */
  turn(): boolean {
    const due = this.#deferred;
    this.#deferred = [];
    for (const callback of due) callback();
    return due.length > 0;
  }

  /** Runs deferred calls, including those they defer, until none is left. */
  settle(turnsMax = 100_000): void {
    for (let i = 0; this.turn(); i++) {
      if (i >= turnsMax) throw new Error(`still deferring after ${turnsMax} turns`);
    }
  }

  /** Advances time, firing each timer at its moment. */
  advance(ms: number): void {
    const end = this.#nowMs + ms;
    this.settle();
    for (;;) {
      let next: { atMs: number; sequence: number; callback: () => void } | undefined;
      for (const timer of this.#timers) {
        if (timer.atMs > end) continue;
        if (
          next === undefined ||
          timer.atMs < next.atMs ||
          (timer.atMs === next.atMs && timer.sequence < next.sequence)
        ) {
          next = timer;
        }
      }
      if (next === undefined) break;
      this.#timers.delete(next);
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      next.callback();
      this.settle();
    }
    this.#nowMs = end;
  }
}
