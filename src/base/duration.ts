/** Milliseconds as Go prints a duration: "1h0m0s", "1.5s", "100ms", "250µs", "0s". Source: Go's `time.Duration.String`. */
export function goDuration(ms: number): string {
  const sign = ms < 0 ? "-" : "";
  const size = Math.abs(ms);
  let seconds = Math.floor(size / 1000);
  let nanoseconds = Math.round((size - seconds * 1000) * 1e6);
  if (nanoseconds === 1e9) {
    seconds++;
    nanoseconds = 0;
  }
  if (seconds === 0) {
    if (nanoseconds === 0) return "0s";
    if (nanoseconds < 1e3) return `${sign}${nanoseconds}ns`;
    if (nanoseconds < 1e6) return `${sign}${decimal(0, nanoseconds, 3)}µs`;
    return `${sign}${decimal(0, nanoseconds, 6)}ms`;
  }
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  let text = "";
  if (hours > 0) text += `${hours}h`;
  if (minutes > 0) text += `${minutes % 60}m`;
  return `${sign}${text}${decimal(seconds % 60, nanoseconds, 9)}s`;
}

/** A whole number and nanoseconds, whose last `digits` digits are the decimals, without trailing zeros. */
function decimal(whole: number, nanoseconds: number, digits: number): string {
  const unit = 10 ** digits;
  const decimals = `${nanoseconds % unit}`.padStart(digits, "0").replace(/0+$/, "");
  const integer = whole + Math.floor(nanoseconds / unit);
  return decimals === "" ? `${integer}` : `${integer}.${decimals}`;
}
