/**
 * Parses values as Go's strconv, time and flag packages do, so that the same values are accepted, and the others
 * refused with the same texts. Functions throw `GoValueError` with Go's text.
 */
import { KvorumError } from "../../base/errors.ts";
import { ParseError, parseDuration } from "../../base/number-text.ts";

export class GoValueError extends KvorumError {
  override name = "GoValueError";
  readonly code = "ERR_GO_VALUE";
}

const SYNTAX = "parse error";
const RANGE = "value out of range";

const TRUE = new Set(["1", "t", "T", "true", "TRUE", "True"]);
const FALSE = new Set(["0", "f", "F", "false", "FALSE", "False"]);

export function parseGoBool(text: string): boolean {
  if (TRUE.has(text)) return true;
  if (FALSE.has(text)) return false;
  throw new GoValueError(SYNTAX);
}

const INTEGER = /^[+-]?(0[xX](_?[0-9a-fA-F])+|0[bB](_?[01])+|0[oO]?(_?[0-7])+|0|[1-9](_?[0-9])*)$/;

/** Bits and sign of Go's integer types on the platforms that etcd supports. */
const LIMITS = {
  int: [-(2n ** 63n), 2n ** 63n - 1n],
  int64: [-(2n ** 63n), 2n ** 63n - 1n],
  uint: [0n, 2n ** 64n - 1n],
  uint64: [0n, 2n ** 64n - 1n],
  uint32: [0n, 2n ** 32n - 1n],
} as const;

export type GoIntegerType = keyof typeof LIMITS;

/**
 * An integer in any of Go's notations (`12`, `0x1f`, `0b1`, `0o17`, `017`, `1_000`). Values that a number cannot hold
 * exactly (beyond 2^53) are out of range here, where Go goes to 2^64.
 */
export function parseGoInteger(text: string, type: GoIntegerType): number {
  const unsigned = type.startsWith("u");
  if (!INTEGER.test(text) || (unsigned && /^[+-]/.test(text))) throw new GoValueError(SYNTAX);
  const negative = text.startsWith("-");
  let digits = text.replace(/^[+-]/, "").replaceAll("_", "");
  if (/^0[0-7]/.test(digits)) digits = `0o${digits.slice(1)}`;
  const value = negative ? -BigInt(digits) : BigInt(digits);
  if (!fitsGoInteger(value, type)) throw new GoValueError(RANGE);
  return Number(value);
}

export function fitsGoInteger(value: bigint, type: GoIntegerType): boolean {
  const [low, high] = LIMITS[type];
  return value >= low && value <= high && value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER;
}

/** A Go duration such as "1h30m", "100ms" or "1.5s", in milliseconds. Source: Go's `time.ParseDuration`. */
export function parseGoDuration(text: string): number {
  try {
    return parseDuration(text);
  } catch (error) {
    throw error instanceof ParseError ? new GoValueError(error.message) : error;
  }
}
