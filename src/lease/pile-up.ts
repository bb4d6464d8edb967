/**
 * An election restarts every lease, so thousands granted at different times may now expire within one second, more than
 * can be revoked in it. This moves the later of such leases back so that about three quarters of `revokeRate` expire
 * per second.
 *
 * Source: Promote in etcd's server/lease/lessor.go, whose windows this reproduces.
 */
export class PileUp {
  readonly #target: number;
  readonly #nowMs: number;
  readonly #extendMs: number;
  /** Start of the current window, relative to now; NaN before the first lease. */
  #start = Number.NaN;
  #end = Number.NaN;
  #inWindow = 0;

  constructor(revokeRate: number, nowMs: number, extendMs: number) {
    this.#target = Math.trunc((3 * revokeRate) / 4);
    this.#nowMs = nowMs;
    this.#extendMs = extendMs;
  }

  /** The spread expiry of a lease that would expire at `expiryMs`. Call it for all leases, by ascending expiry. */
  spread(expiryMs: number, secondsLeft: number): number {
    const remaining = expiryMs - this.#nowMs;
    if (!(remaining <= this.#end)) {
      this.#start = remaining;
      this.#end = remaining + 1000;
      this.#inWindow = 1;
      return expiryMs;
    }
    this.#inWindow++;
    if (this.#inWindow <= this.#target) return expiryMs;
    const delay = 1000 * (this.#inWindow / this.#target) - (remaining - this.#start);
    this.#end = this.#start + delay;
    return this.#nowMs + delay + this.#extendMs + secondsLeft * 1000;
  }
}
