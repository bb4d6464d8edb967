/**
 * Time inside an embedded cluster. It runs like the real one, and can be put forward: every timer that falls into the
 * step is then called in its order, with everything that it causes, before the next. So a lease of thirty seconds expires
 * in milliseconds, and heartbeats are not missed meanwhile.
 *
 * A member has a clock of its own (`MemberClock`) that can be stopped, as a stopped process is, and ended.
 */
import { type Clock, systemClock, type Timer } from "../base/clock.ts";

interface Pending {
  readonly dueMs: number;
  readonly order: number;
  readonly callback: () => void;
  real: Timer | undefined;
}

/** Node's longest delay. */
const DELAY_MAX_MS = 2 ** 31 - 1;
/** Turns in which messages between members, and what they cause, arrive before the next timer. */
const SETTLE_TURNS_MAX = 200;

export class EmbeddedTime implements Clock {
  #offsetMs = 0;
  #order = 0;
  readonly #pending = new Set<Pending>();
  #deferred = 0;
  #advancing: Promise<void> = Promise.resolve();

  nowMs(): number {
    return systemClock.nowMs() + this.#offsetMs;
  }

  wallMs(): number {
    return systemClock.wallMs() + this.#offsetMs;
  }

  after(delayMs: number, callback: () => void): Timer {
    const pending: Pending = {
      dueMs: this.nowMs() + Math.max(0, delayMs),
      order: this.#order++,
      callback,
      real: undefined,
    };
    this.#pending.add(pending);
    this.#arm(pending);
    return { cancel: () => this.#drop(pending) };
  }

  every(periodMs: number, callback: () => void): Timer {
    return repeat(this, periodMs, callback);
  }

  defer(callback: () => void): void {
    this.#deferred++;
    systemClock.defer(() => {
      this.#deferred--;
      callback();
    });
  }

  /** Puts time forward. One step after the other. */
  advance(ms: number): Promise<void> {
    const done = this.#advancing.then(() => this.#advance(ms));
    this.#advancing = done.catch(() => {});
    return done;
  }

  async #advance(ms: number): Promise<void> {
    const targetMs = this.nowMs() + ms;
    for (;;) {
      await this.#settle();
      const next = this.#earliest();
      if (next === undefined || next.dueMs > targetMs) break;
      this.#offsetMs += Math.max(0, next.dueMs - this.nowMs());
      this.#drop(next);
      next.callback();
    }
    this.#offsetMs += Math.max(0, targetMs - this.nowMs());
    for (const pending of this.#pending) {
      pending.real?.cancel();
      this.#arm(pending);
    }
    await this.#settle();
  }

  #earliest(): Pending | undefined {
    let earliest: Pending | undefined;
    for (const each of this.#pending) {
      if (earliest === undefined || each.dueMs < earliest.dueMs) earliest = each;
    }
    return earliest;
  }

  async #settle(): Promise<void> {
    for (let i = 0; i < SETTLE_TURNS_MAX; i++) {
      await nextTurn();
      if (this.#deferred === 0) return;
    }
  }

  #arm(pending: Pending): void {
    const delayMs = Math.min(DELAY_MAX_MS, Math.max(0, pending.dueMs - this.nowMs()));
    pending.real = systemClock.after(delayMs, () => {
      // Timers of Node may fire a fraction early.
      if (pending.dueMs - this.nowMs() > 1) return this.#arm(pending);
      this.#pending.delete(pending);
      pending.callback();
    });
  }

  #drop(pending: Pending): void {
    pending.real?.cancel();
    this.#pending.delete(pending);
  }
}

const NO_TIMER: Timer = { cancel() {} };

/** Resolves when everything that waits for this turn of the event loop has had its turn. */
export const nextTurn = (): Promise<void> => new Promise((resolve) => systemClock.defer(resolve));

/** The clock of one member. */
export class MemberClock implements Clock {
  readonly #time: EmbeddedTime;
  readonly #timers = new Set<Timer>();
  #hasEnded = false;
  /** What became due while it stands still; undefined while it runs. */
  #held: (() => void)[] | undefined;

  constructor(time: EmbeddedTime) {
    this.#time = time;
  }

  get isStopped(): boolean {
    return this.#held !== undefined;
  }

  /** What is due from now on waits for `resume`. */
  stop(): void {
    this.#held ??= [];
  }

  resume(): void {
    const held = this.#held;
    this.#held = undefined;
    for (const each of held ?? []) this.#time.defer(() => this.#run(each));
  }

  nowMs(): number {
    return this.#time.nowMs();
  }

  wallMs(): number {
    return this.#time.wallMs();
  }

  after(delayMs: number, callback: () => void): Timer {
    if (this.#hasEnded) return NO_TIMER;
    let isCancelled = false;
    const timer = this.#time.after(delayMs, () => {
      this.#timers.delete(timer);
      this.#run(() => {
        if (!isCancelled) callback();
      });
    });
    this.#timers.add(timer);
    return {
      cancel: () => {
        isCancelled = true;
        timer.cancel();
        this.#timers.delete(timer);
      },
    };
  }

  every(periodMs: number, callback: () => void): Timer {
    return repeat(this, periodMs, callback);
  }

  defer(callback: () => void): void {
    this.#time.defer(() => this.#run(callback));
  }

  /** Nothing is called any more: the member has ended. */
  end(): void {
    this.#hasEnded = true;
    for (const timer of this.#timers) timer.cancel();
    this.#timers.clear();
    this.#held = undefined;
  }

  #run(callback: () => void): void {
    if (this.#hasEnded) return;
    if (this.#held === undefined) callback();
    else this.#held.push(callback);
  }
}

function repeat(clock: Clock, periodMs: number, callback: () => void): Timer {
  let timer: Timer;
  const again = (): void => {
    timer = clock.after(periodMs, again);
    callback();
  };
  timer = clock.after(periodMs, again);
  return { cancel: () => timer.cancel() };
}
