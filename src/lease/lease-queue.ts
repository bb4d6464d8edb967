import type { Lease } from "./lease.ts";

/**
 * Leases by time: a binary heap over two parallel arrays, the times unboxed.
 *
 * A time in the queue may be earlier than the lease's real time, never later. So a renewal costs nothing here: a caller
 * that finds a lease on top too early puts it back with the right time. Revoked leases stay until their time comes or
 * `discard` removes them.
 */
export class LeaseQueue {
  #times: number[] = [];
  #leases: Lease[] = [];

  get size(): number {
    return this.#leases.length;
  }

  /** Infinity when empty. */
  get topTimeMs(): number {
    return this.#times.length === 0 ? Number.POSITIVE_INFINITY : this.#times[0]!;
  }

  /** Only valid when not empty. */
  get top(): Lease {
    return this.#leases[0]!;
  }

  push(timeMs: number, lease: Lease): void {
    this.#times.push(timeMs);
    this.#leases.push(lease);
    this.#up(this.#times.length - 1, timeMs, lease);
  }

  pop(): void {
    const time = this.#times.pop()!;
    const lease = this.#leases.pop()!;
    if (this.#leases.length > 0) this.#down(0, time, lease);
  }

  /** Gives the top lease a later time. */
  postponeTop(timeMs: number): void {
    this.#down(0, timeMs, this.#leases[0]!);
  }

  clear(): void {
    this.#times = [];
    this.#leases = [];
  }

  /** Drops revoked leases; linear. */
  discard(isGone: (lease: Lease) => boolean): void {
    const times = this.#times;
    const leases = this.#leases;
    let kept = 0;
    for (let i = 0; i < leases.length; i++) {
      if (isGone(leases[i]!)) continue;
      times[kept] = times[i]!;
      leases[kept++] = leases[i]!;
    }
    times.length = kept;
    leases.length = kept;
    for (let i = (kept >>> 1) - 1; i >= 0; i--) this.#down(i, times[i]!, leases[i]!);
  }

  #up(start: number, time: number, lease: Lease): void {
    const times = this.#times;
    const leases = this.#leases;
    let i = start;
    while (i > 0) {
      const parent = (i - 1) >>> 1;
      if (times[parent]! <= time) break;
      times[i] = times[parent]!;
      leases[i] = leases[parent]!;
      i = parent;
    }
    times[i] = time;
    leases[i] = lease;
  }

  #down(start: number, time: number, lease: Lease): void {
    const times = this.#times;
    const leases = this.#leases;
    const size = times.length;
    let i = start;
    for (let child = 2 * i + 1; child < size; child = 2 * i + 1) {
      if (child + 1 < size && times[child + 1]! < times[child]!) child++;
      if (times[child]! >= time) break;
      times[i] = times[child]!;
      leases[i] = leases[child]!;
      i = child;
    }
    times[i] = time;
    leases[i] = lease;
  }
}
