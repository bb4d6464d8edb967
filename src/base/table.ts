/** Tables for terminals, drawn as etcd's tools draw them: headings centred in upper case, cells right-aligned. */

/** Headings are given as column names (`is_leader`); underscores become spaces. */
export function renderTable(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const titles = headings.map((heading) => heading.replaceAll("_", " ").toUpperCase());
  const widths = titles.map((title, i) => Math.max(width(title), ...rows.map((row) => width(row[i] ?? ""))));
  const line = (left: string, middle: string, right: string) =>
    `${left}${widths.map((cells) => "─".repeat(cells + 2)).join(middle)}${right}\n`;
  const cells = (texts: readonly string[]) => `│ ${texts.join(" │ ")} │\n`;
  const head = cells(titles.map((title, i) => centre(title, widths[i]!)));
  const body = rows.map((row) =>
    cells(widths.map((cell, i) => " ".repeat(cell - width(row[i] ?? "")) + (row[i] ?? ""))),
  );
  const middle = rows.length > 0 ? line("├", "┼", "┤") : "";
  return line("┌", "┬", "┐") + head + middle + body.join("") + line("└", "┴", "┘");
}

function centre(text: string, columns: number): string {
  const room = columns - width(text);
  const left = Math.floor(room / 2);
  return " ".repeat(left) + text + " ".repeat(room - left);
}

/** Terminal columns of a text; wide characters take two. */
function width(text: string): number {
  let columns = 0;
  for (const char of text) {
    if (/\p{M}/u.test(char)) continue;
    columns +=
      /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\u{1f300}-\u{1faff}]/u.test(char)
        ? 2
        : 1;
  }
  return columns;
}

const SIZE_UNITS = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/** A size as etcd's tools print it: "25 kB", "2.1 GB". Source: dustin/go-humanize, `Bytes`. */
export function humanBytes(bytes: number): string {
  if (bytes < 10) return `${bytes} B`;
  const exponent = Math.min(SIZE_UNITS.length - 1, Math.floor(Math.log(bytes) / Math.log(1000)));
  const value = Math.floor((bytes / 1000 ** exponent) * 10 + 0.5) / 10;
  return `${value < 10 ? value.toFixed(1) : roundToEven(value)} ${SIZE_UNITS[exponent]}`;
}

/** Rounds as Go's `%.0f`: halves to even. */
function roundToEven(value: number): number {
  const whole = Math.floor(value);
  if (value - whole !== 0.5) return Math.round(value);
  return whole % 2 === 0 ? whole : whole + 1;
}
