import type { Clock } from "../../base/clock.ts";

/** Tokens that turn out to be none, of one address: so many at once, and then so many a second. */
const BURST = 200;
const PER_SECOND = 50;
/** Addresses remembered; the one that failed first is forgotten for another. */
const ADDRESSES_MAX = 4096;

/**
 * Whether a signature is good costs some ten times what a request costs. Who brings one bad token after the other gets no
 * more of them checked for a while; tokens that were found good before need no check.
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

  /** True when the address has to wait. */
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
