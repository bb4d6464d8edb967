/**
 * Virtual time: an ordered queue of events. All promises settle between two events, so that only the order of events
 * matters, and the seed determines it.
 */
import type { Clock, Timer } from "../../src/base/clock.ts";

interface Happening {
  readonly atMs: number;
  readonly order: number;
  run: (() => void) | undefined;
}

/** Events between two turns of Node's own loop. */
const TURN = 2000;

export class Scheduler {
  #nowMs = 0;
  #order = 0;
  #count = 0;
  /** Binary heap by time, then by insertion order. */
  readonly #heap: Happening[] = [];

  get nowMs(): number {
    return this.#nowMs;
  }

  /** Incremented by every event: the moment of current observations. */
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

  /** Runs events until `isDone`, checked after each one. Rejects with an event's exception. */
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
        // A tick runs after all microtasks, including those that microtasks create.
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

/** Events held for a frozen process: its sockets and timers hold no more. */
const HELD_MAX = 20_000;

/** Runs the events of one process: none after its end, and delayed while it is frozen. */
export class SimProcess {
  readonly #scheduler: Scheduler;
  readonly #crashed: (error: unknown) => void;
  #alive = true;
  #pausedUntilMs = 0;
  #held: (() => void)[] = [];
  #markEnd: () => void = () => {};
  /** Resolves when it has ended. */
  readonly ended = new Promise<void>((resolve) => {
    this.#markEnd = resolve;
  });

  /** `crashed` gets a callback's exception: in a real process nothing would catch it. */
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

  /** Freezes for this time: stopped by a signal, or waiting for a slow disk. */
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
    // One by one, so that the microtasks of each run after it.
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

/** The clock of a machine, for one of its processes. */
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
