/**
 * Virtual time: what is to happen, in order. Between two happenings everything that was promised is settled, so that
 * the order of events is all that decides, and the order is that of the seed.
 */
import type { Clock, Timer } from "../../src/base/clock.ts";

interface Happening {
  readonly atMs: number;
  readonly order: number;
  run: (() => void) | undefined;
}

/** Happenings between two turns of Node's own loop. */
const TURN = 2000;

export class Scheduler {
  #nowMs = 0;
  #order = 0;
  #count = 0;
  /** Binary heap by time, then by order of arrival. */
  readonly #heap: Happening[] = [];

  get nowMs(): number {
    return this.#nowMs;
  }

  /** Grows with every happening: the moment of what is seen now. */
  get moment(): number {
    return this.#count;
  }

  at(atMs: number, run: () => void): Timer {
    const happening: Happening = { atMs: Math.max(atMs, this.#nowMs), order: this.#order++, run };
    this.#push(happening);
    return {
      cancel() {
        happening.run = undefined;
      },
    };
  }

  after(delayMs: number, run: () => void): Timer {
    return this.at(this.#nowMs + delayMs, run);
  }

  /** Lets everything happen until `isDone`, asked after each happening. Rejects with what a happening throws. */
  run(isDone: () => boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      let turn = 0;
      const step = (): void => {
        try {
          if (isDone() || !this.#happenNext()) {
            resolve();
            return;
          }
        } catch (error) {
          reject(error);
          return;
        }
        if (++turn % TURN === 0) setImmediate(step);
        // A tick comes after all microtasks, also those that microtasks make.
        else queueMicrotask(() => process.nextTick(step));
      };
      setImmediate(step);
    });
  }

  #happenNext(): boolean {
    for (;;) {
      const next = this.#pop();
      if (next === undefined) return false;
      if (next.run === undefined) continue;
      this.#nowMs = next.atMs;
      this.#count++;
      next.run();
      return true;
    }
  }

  #push(happening: Happening): void {
    const heap = this.#heap;
    let at = heap.length;
    heap.push(happening);
    while (at > 0) {
      const parent = (at - 1) >>> 1;
      if (!isBefore(happening, heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = happening;
  }

  #pop(): Happening | undefined {
    const heap = this.#heap;
    const top = heap[0];
    const last = heap.pop();
    if (top === undefined || last === undefined || heap.length === 0) return top;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++;
      if (!isBefore(heap[child]!, last)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
    return top;
  }
}

const isBefore = (a: Happening, b: Happening): boolean => a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);

/** What a process would run while it stands still: its sockets and timers hold no more. */
const HELD_MAX = 20_000;

/** Runs what happens to one process: nothing after its end, and later what happens while it stands still. */
export class SimProcess {
  readonly #scheduler: Scheduler;
  readonly #crashed: (error: unknown) => void;
  #alive = true;
  #pausedUntilMs = 0;
  #held: (() => void)[] = [];
  #markEnd: () => void = () => {};
  /** Resolves when it is over. */
  readonly ended = new Promise<void>((resolve) => {
    this.#markEnd = resolve;
  });

  /** `crashed` gets what a callback throws: in a real process nobody catches it. */
  constructor(scheduler: Scheduler, crashed: (error: unknown) => void) {
    this.#scheduler = scheduler;
    this.#crashed = crashed;
  }

  get alive(): boolean {
    return this.#alive;
  }

  get paused(): boolean {
    return this.#pausedUntilMs > this.#scheduler.nowMs;
  }

  end(): void {
    this.#alive = false;
    this.#held = [];
    this.#markEnd();
  }

  /** Stands still for so long: stopped by a signal, or waiting for a slow disk. */
  pause(forMs: number): void {
    const untilMs = this.#scheduler.nowMs + forMs;
    if (!this.#alive || untilMs <= this.#pausedUntilMs) return;
    this.#pausedUntilMs = untilMs;
    this.#scheduler.at(untilMs, () => this.#resume());
  }

  run(callback: () => void): void {
    if (!this.#alive) return;
    if (this.paused || this.#held.length > 0) {
      if (this.#held.length < HELD_MAX) this.#held.push(callback);
      return;
    }
    this.#call(callback);
  }

  #resume(): void {
    if (!this.#alive || this.paused) return;
    // One by one, so that each has its own microtasks behind it.
    const next = this.#held.shift();
    if (next === undefined) return;
    this.#call(next);
    if (this.#held.length > 0) this.#scheduler.after(0, () => this.#resume());
  }

  #call(callback: () => void): void {
    try {
      callback();
    } catch (error) {
      this.#crashed(error);
    }
  }
}

/** The clock of one machine, for one of its processes. */
export class SimClock implements Clock {
  readonly #scheduler: Scheduler;
  readonly #process: SimProcess;
  readonly #machine: { wallOffsetMs: number };

  constructor(scheduler: Scheduler, process: SimProcess, machine: { wallOffsetMs: number }) {
    this.#scheduler = scheduler;
    this.#process = process;
    this.#machine = machine;
  }

  nowMs(): number {
    return this.#scheduler.nowMs + 1000;
  }

  wallMs(): number {
    return 1_700_000_000_000 + this.#scheduler.nowMs + this.#machine.wallOffsetMs;
  }

  after(delayMs: number, callback: () => void): Timer {
    let cancelled = false;
    const timer = this.#scheduler.after(Math.max(delayMs, 0), () =>
      this.#process.run(() => {
        if (!cancelled) callback();
      }),
    );
    return {
      cancel() {
        cancelled = true;
        timer.cancel();
      },
    };
  }

  every(periodMs: number, callback: () => void): Timer {
    let timer: Timer;
    const again = (): void => {
      timer = this.after(periodMs, again);
      callback();
    };
    timer = this.after(periodMs, again);
    return { cancel: () => timer.cancel() };
  }

  defer(callback: () => void): void {
    this.#scheduler.after(0, () => this.#process.run(callback));
  }
}
