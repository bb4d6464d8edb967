import type { Clock } from "../../base/clock.ts";

/** Invalid tokens permitted per address: this many at once, then this many per second. */
const BURST = 200;
const PER_SECOND = 50;
/** Addresses remembered; the one that failed first is replaced. */
const ADDRESSES_MAX = 4096;

/**
 * Checking a signature costs about ten times a request. A client that repeatedly sends invalid tokens gets no more of
 * them checked for a while; tokens already verified need no check.
 */
export class TokenFailures {
  readonly #clock: Clock;
  readonly #byAddress = new Map<string, { count: number; atMs: number }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  add(address: string): void {
    const count = this.#countOf(address) + 1;
    this.#byAddress.delete(address);
    if (this.#byAddress.size >= ADDRESSES_MAX) this.#byAddress.delete(this.#byAddress.keys().next().value!);
    this.#byAddress.set(address, { count, atMs: this.#clock.nowMs() });
  }

  /** True when the address must wait. */
  tooMany(address: string): boolean {
    return this.#byAddress.size > 0 && this.#countOf(address) >= BURST;
  }

  #countOf(address: string): number {
    const failures = this.#byAddress.get(address);
    if (failures === undefined) return 0;
    const forgiven = ((this.#clock.nowMs() - failures.atMs) / 1000) * PER_SECOND;
    return Math.max(0, failures.count - forgiven);
  }
}
