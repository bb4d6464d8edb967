interface Waiter {
  readonly index: number;
  readonly sinceMs: number;
  readonly done: (applied: boolean) => void;
}

/** Callers that may wait; each has an open call. */
const WAITERS_MAX = 10_000;

/** Callers waiting until this member has applied an entry that another member told them of. */
export class AppliedWaiters {
  #waiters: Waiter[] = [];

  /** Calls `done` with true once the index is applied, with false on a timeout or when too many wait. */
  add(index: number, nowMs: number, done: (applied: boolean) => void): void {
    if (this.#waiters.length >= WAITERS_MAX) done(false);
    else this.#waiters.push({ index, sinceMs: nowMs, done });
  }

  applied(appliedIndex: number): void {
    if (this.#waiters.length === 0) return;
    this.#release((waiter) => waiter.index <= appliedIndex, true);
  }

  /** Ends the waits that began before `beforeMs`. */
  expire(beforeMs: number): void {
    if (this.#waiters.length === 0) return;
    this.#release((waiter) => waiter.sinceMs < beforeMs, false);
  }

  #release(isDue: (waiter: Waiter) => boolean, applied: boolean): void {
    const due = this.#waiters.filter(isDue);
    if (due.length === 0) return;
    this.#waiters = this.#waiters.filter((waiter) => !isDue(waiter));
    for (const { done } of due) done(applied);
  }
}
