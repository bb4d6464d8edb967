/**
 * Deadlines of all running calls, in a hashed timer wheel. Adding and removing one takes a few pointer writes, because
 * most calls have a deadline of seconds and finish in microseconds. One periodic timer turns the wheel while it holds
 * any.
 */
import type { Clock, Timer } from "../base/clock.ts";

export interface Expiring {
  readonly deadlineMs: number;
  /** The wheel's own links; an entry is in the wheel when `wheelSlot` is not negative. */
  wheelSlot: number;
  wheelNext: Expiring | null;
  wheelPrevious: Expiring | null;
  onDeadline(): void;
}

/** Maximum delay in noticing a deadline. */
const TICK_MS = 10;
const SLOTS = 512;
/** Ticks for which an empty wheel keeps its timer, so that a quiet server does not start one for every call. */
const IDLE_TICKS = 100;
/** Deadlines handled in one turn of the event loop. */
const DUE_PER_TURN = 500;

export class DeadlineWheel {
  readonly #clock: Clock;
  readonly #slots: (Expiring | null)[] = new Array(SLOTS).fill(null);
  #count = 0;
  #timer: Timer | undefined;
  #lastTick = 0;
  #idleTicks = 0;
  /** Entries whose deadline has passed, and the next of them to handle. */
  #due: Expiring[] = [];
  #dueNext = 0;
  #draining = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get size(): number {
    return this.#count;
  }

  add(entry: Expiring): void {
    // One past the tick of the deadline: the deadline has passed when the wheel reaches it.
    const slot = (Math.floor(entry.deadlineMs / TICK_MS) + 1) % SLOTS;
    const first = this.#slots[slot]!;
    entry.wheelSlot = slot;
    entry.wheelNext = first;
    entry.wheelPrevious = null;
    if (first !== null) first.wheelPrevious = entry;
    this.#slots[slot] = entry;
    this.#count++;
    if (this.#timer === undefined) this.#start();
  }

  remove(entry: Expiring): void {
    if (entry.wheelSlot < 0) return;
    const { wheelNext, wheelPrevious } = entry;
    if (wheelPrevious === null) this.#slots[entry.wheelSlot] = wheelNext;
    else wheelPrevious.wheelNext = wheelNext;
    if (wheelNext !== null) wheelNext.wheelPrevious = wheelPrevious;
    entry.wheelSlot = -1;
    entry.wheelNext = null;
    entry.wheelPrevious = null;
    this.#count--;
  }

  stop(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #start(): void {
    this.#idleTicks = 0;
    this.#lastTick = Math.floor(this.#clock.nowMs() / TICK_MS);
    this.#timer = this.#clock.every(TICK_MS, () => this.#turn());
  }

  #turn(): void {
    const now = this.#clock.nowMs();
    const tick = Math.floor(now / TICK_MS);
    if (this.#count === 0) {
      this.#lastTick = tick;
      if (++this.#idleTicks > IDLE_TICKS) this.stop();
      return;
    }
    this.#idleTicks = 0;
    const from = Math.max(this.#lastTick + 1, tick - SLOTS + 1);
    for (let t = from; t <= tick; t++) {
      for (let entry: Expiring | null = this.#slots[t % SLOTS]!; entry !== null; entry = entry.wheelNext) {
        if (entry.deadlineMs <= now) this.#due.push(entry);
      }
    }
    this.#lastTick = tick;
    if (!this.#draining && this.#due.length > 0) this.#drain();
  }

  /** Handles due entries, a limited number per turn. */
  readonly #drain = (): void => {
    const to = Math.min(this.#due.length, this.#dueNext + DUE_PER_TURN);
    while (this.#dueNext < to) {
      const entry = this.#due[this.#dueNext++]!;
      // Handling one entry may remove another due entry, so each is checked again.
      if (entry.wheelSlot < 0) continue;
      this.remove(entry);
      entry.onDeadline();
    }
    this.#draining = to < this.#due.length;
    if (this.#draining) return this.#clock.defer(this.#drain);
    this.#due = [];
    this.#dueNext = 0;
  };
}
