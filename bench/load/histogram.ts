/** Latencies in buckets that are 2 % wide, from one microsecond to minutes: constant memory, no sorting. */
const GROWTH = Math.log(1.02);
const BUCKETS = 1024;

export class Histogram {
  readonly #counts = new Uint32Array(BUCKETS);
  #total = 0;

  add(milliseconds: number): void {
    const bucket = Math.floor(Math.log(Math.max(1, milliseconds * 1000)) / GROWTH);
    this.#counts[Math.min(bucket, BUCKETS - 1)]!++;
    this.#total++;
  }

  /** Milliseconds not exceeded by the share `p` of all values. */
  quantile(p: number): number {
    const wanted = Math.ceil(this.#total * p);
    let seen = 0;
    for (let i = 0; i < BUCKETS; i++) {
      seen += this.#counts[i]!;
      if (seen >= wanted) return Math.exp((i + 0.5) * GROWTH) / 1000;
    }
    return Number.NaN;
  }
}
