const UNITS: readonly (readonly [suffix: string, ms: number])[] = [
  ["h", 3_600_000],
  ["m", 60_000],
];

/** Milliseconds as Go prints a duration: "1h0m0s", "1.5s", "100ms", "250µs", "0s". Source: Go's `time.Duration.String`. */
export function goDuration(ms: number): string {
  if (ms === 0) return "0s";
  const sign = ms < 0 ? "-" : "";
  const size = Math.abs(ms);
  if (size < 0.001) return `${sign}${trim(size * 1e6)}ns`;
  if (size < 1) return `${sign}${trim(size * 1000)}µs`;
  if (size < 1000) return `${sign}${trim(size)}ms`;
  let rest = size;
  let text = "";
  for (const [suffix, unit] of UNITS) {
    const count = Math.floor(rest / unit);
    if (count > 0 || text !== "") text += `${count}${suffix}`;
    rest -= count * unit;
  }
  return `${sign}${text}${trim(rest / 1000)}s`;
}

/** At most nine decimals, none at the end that is zero. */
const trim = (value: number): string => `${Number(value.toFixed(9))}`;
