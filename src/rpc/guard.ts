/**
 * The budget of a connection for frames that cost us work and bring none of its own: resets, settings, pings, priorities,
 * empty or tiny data, window updates. Useful traffic earns budget, time refills it, and a peer that overdraws it is a
 * flood. Pure but for the time that it is given.
 */

const BUDGET_MAX = 10_000;
const REFILL_PER_MS = 1;

export const Cost = {
  settings: 20,
  ping: 5,
  priority: 2,
  unknownFrame: 2,
  windowUpdate: 1,
  tinyData: 2,
  continuation: 2,
  /** A reset by the client, or one that its mistake made us send: two thousand at once, then two hundred a second. */
  reset: 5,
  largeHeaders: 100,
} as const;

export const Earning = { callDone: 3, dataSent: 2, message: 2 } as const;

export class FloodGuard {
  #budget = BUDGET_MAX;
  #refilledAtMs: number;

  constructor(nowMs: number) {
    this.#refilledAtMs = nowMs;
  }

  earn(amount: number): void {
    if (this.#budget < BUDGET_MAX) this.#budget += amount;
  }

  /** False when the budget is overdrawn. */
  spend(cost: number, nowMs: number): boolean {
    this.#budget -= cost;
    if (this.#budget >= 0) return true;
    // The refill is settled only here: an honest peer never gets this far.
    this.#budget = Math.min(BUDGET_MAX, this.#budget + Math.floor((nowMs - this.#refilledAtMs) * REFILL_PER_MS));
    this.#refilledAtMs = nowMs;
    return this.#budget >= 0;
  }
}
