/** Reads histograms from a metrics page in Prometheus' text format. */

export interface Histogram {
  /** Ascending; counts are cumulative. The last has no upper bound. */
  readonly buckets: readonly { readonly upTo: number; readonly count: number }[];
  readonly count: number;
}

/** Of a histogram without labels; undefined when the page has none of that name, or it is empty. */
export function histogramOf(page: string, name: string): Histogram | undefined {
  const buckets: { upTo: number; count: number }[] = [];
  for (const line of page.split("\n")) {
    if (!line.startsWith(`${name}_bucket{le="`)) continue;
    const [, bound, count] = /le="([^"]+)"\} ([0-9.e+]+)/.exec(line) ?? [];
    if (bound === undefined) continue;
    buckets.push({ upTo: bound === "+Inf" ? Number.POSITIVE_INFINITY : Number(bound), count: Number(count) });
  }
  const count = buckets.at(-1)?.count ?? 0;
  return count === 0 ? undefined : { buckets, count };
}

/** The bound that this share of the observations did not exceed: the upper one of their bucket. */
export function boundOf({ buckets, count }: Histogram, share: number): number {
  return buckets.find((bucket) => bucket.count >= share * count)!.upTo;
}
