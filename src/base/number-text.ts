/**
 * Numbers and durations as Go parses them, with its error texts, which etcd's tools print. Source: Go's
 * strconv.ParseInt, strconv.ParseBool and time.ParseDuration.
 */
import { KvorumError } from "./errors.ts";
import { quote } from "./quote.ts";

/** The text is not a value of the expected kind. */
export class ParseError extends KvorumError {
  override name = "ParseError";
  readonly code = "ERR_PARSE";
}

const INT64_MAX = 2n ** 63n - 1n;
const UINT64_MAX = 2n ** 64n - 1n;

/** A signed 64-bit integer. Base 0 takes the prefixes 0x, 0o, 0b and 0. Throws ParseError. */
export function parseInt64(text: string, base: 0 | 10 | 16): bigint {
  return parseInteger("ParseInt", text, base, -INT64_MAX - 1n, INT64_MAX);
}

/** As parseInt64, without a sign. */
export function parseUint64(text: string, base: 0 | 10 | 16): bigint {
  return parseInteger("ParseUint", text, base, 0n, UINT64_MAX);
}

/** A 64-bit integer as a number: exact below 2^53, otherwise the nearest number that is still exact. */
export function clampToSafe(value: bigint): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) return Number.MAX_SAFE_INTEGER;
  if (value < BigInt(Number.MIN_SAFE_INTEGER)) return Number.MIN_SAFE_INTEGER;
  return Number(value);
}

function parseInteger(name: string, text: string, base: 0 | 10 | 16, min: bigint, max: bigint): bigint {
  const fail = (problem: string): never => {
    throw new ParseError(`strconv.${name}: parsing ${quote(text)}: ${problem}`);
  };
  const [, sign = "", rest = ""] = /^([+-]?)(.*)$/s.exec(text) ?? [];
  if (sign !== "" && name === "ParseUint") fail("invalid syntax");
  let digits = rest;
  if (base === 16) digits = `0x${rest}`;
  else if (base === 0) {
    digits = rest.toLowerCase().replace(/(?<=[0-9a-fx])_(?=[0-9a-f])/g, "");
    if (/^0[0-7]+$/.test(digits)) digits = `0o${digits.slice(1)}`;
  }
  const valid = base === 10 ? /^\d+$/ : /^(?:\d+|0x[0-9a-f]+|0o[0-7]+|0b[01]+)$/i;
  if (!valid.test(digits)) fail("invalid syntax");
  const value = BigInt(digits) * (sign === "-" ? -1n : 1n);
  if (value < min || value > max) fail("value out of range");
  return value;
}

/** Throws ParseError. */
export function parseBool(text: string): boolean {
  if (/^(?:1|t|T|TRUE|true|True)$/.test(text)) return true;
  if (/^(?:0|f|F|FALSE|false|False)$/.test(text)) return false;
  throw new ParseError(`strconv.ParseBool: parsing ${quote(text)}: invalid syntax`);
}

const UNIT_MS: ReadonlyMap<string, number> = new Map([
  ["ns", 1e-6],
  ["us", 1e-3],
  ["µs", 1e-3],
  ["μs", 1e-3],
  ["ms", 1],
  ["s", 1000],
  ["m", 60_000],
  ["h", 3_600_000],
]);

/** A duration such as "1h30m" or "1.5s" in milliseconds. Throws ParseError. */
export function parseDuration(text: string): number {
  const [, sign = "", rest = ""] = /^([+-]?)(.*)$/s.exec(text) ?? [];
  if (rest === "0") return 0;
  if (rest === "") throw new ParseError(`time: invalid duration ${quote(text)}`);
  let total = 0;
  for (let at = 0; at < rest.length; ) {
    const [all = "", digits = "", unit = ""] = /^(\d+\.?\d*|\.\d+)([^\d.]*)/.exec(rest.slice(at)) ?? [];
    if (digits === "") throw new ParseError(`time: invalid duration ${quote(text)}`);
    if (unit === "") throw new ParseError(`time: missing unit in duration ${quote(text)}`);
    const unitMs = UNIT_MS.get(unit);
    if (unitMs === undefined) throw new ParseError(`time: unknown unit ${quote(unit)} in duration ${quote(text)}`);
    total += Number(digits) * unitMs;
    at += all.length;
  }
  // Go counts nanoseconds in 64 bits.
  if (total * 1e6 > 2 ** 63) throw new ParseError(`time: invalid duration ${quote(text)}`);
  return sign === "-" ? -total : total;
}
