/**
 * The hash chain of an audit file. Records are lines of JSON; each block of them ends with a seal, which has the sha256 of the
 * seal before and of all bytes since. Each file begins with a line that names the last seal of the file before. So nothing
 * can be changed, left out or put in without another hash at the end, which is compared with one that is kept elsewhere.
 */
import { createHash } from "node:crypto";

/** Of the first file. */
export const NO_SEAL = "0".repeat(64);

export interface Seal {
  readonly hash: string;
  /** Records before it, over all files. */
  readonly records: number;
}

export const headLine = (previous: Seal): string =>
  `${JSON.stringify({ audit: 1, previous: previous.hash, records: previous.records })}\n`;

export const sealLine = ({ hash, records }: Seal): string => `${JSON.stringify({ seal: hash, records })}\n`;

/** The hash of the seal behind `pieces`: all bytes since the line of the seal before. */
export function sealOf(previous: string, pieces: readonly Uint8Array[]): string {
  const hash = createHash("sha256").update(previous, "latin1");
  for (const piece of pieces) hash.update(piece);
  return hash.digest("hex");
}

/** The seal that a line is; undefined for any other line. */
export function readSeal(line: string): Seal | undefined {
  if (!line.startsWith('{"seal":"')) return undefined;
  const { seal, records } = parse(line);
  return typeof seal === "string" && typeof records === "number" ? { hash: seal, records } : undefined;
}

/** The seal that the first line of a file continues from; undefined when it is no such line. */
export function readHead(line: string): Seal | undefined {
  const { audit, previous, records } = parse(line);
  return audit === 1 && typeof previous === "string" && typeof records === "number"
    ? { hash: previous, records }
    : undefined;
}

interface Line {
  readonly seal?: unknown;
  readonly audit?: unknown;
  readonly previous?: unknown;
  readonly records?: unknown;
}

function parse(line: string): Line {
  try {
    const value: Line | null = JSON.parse(line);
    return value ?? {};
  } catch {
    return {};
  }
}
