/** JSON byte by byte: the states between two bytes, which byte may follow in a number, and what stands for what in a string. */
import { unexpected } from "./json-errors.ts";

/**
 * States are numbers in this order, so that one comparison gives their kind. First those between tokens, where white
 * space is allowed.
 */
export const VALUE = 0;
export const VALUE_OR_END = 1;
export const NAME = 2;
export const NAME_OR_END = 3;
export const COLON = 4;
export const AFTER_MEMBER = 5;
export const AFTER_ELEMENT = 6;
/** Inside a string or a word. */
export const STRING = 7;
export const ESCAPE = 8;
export const HEX = 9;
export const LITERAL = 10;
/** Inside a number. */
export const MINUS = 11;
export const ZERO = 12;
export const INTEGER = 13;
const POINT = 14;
const FRACTION = 15;
const EXPONENT = 16;
const EXPONENT_SIGN = 17;
const EXPONENT_DIGITS = 18;

export const isNumberEnd = (state: number): boolean =>
  state === ZERO || state === INTEGER || state === FRACTION || state === EXPONENT_DIGITS;
export const isDigit = (byte: number): boolean => byte >= 0x30 && byte <= 0x39;
const isExponent = (byte: number): boolean => byte === 0x65 || byte === 0x45;
export const isSpace = (byte: number): boolean => byte === 0x20 || byte === 0x09 || byte === 0x0a || byte === 0x0d;

/** The state of a number after one more byte; VALUE: it ended before the byte. */
export function numberState(state: number, byte: number): number {
  switch (state) {
    case MINUS:
      if (byte === 0x30) return ZERO;
      if (!isDigit(byte)) unexpected(byte, "in numeric literal");
      return INTEGER;
    case ZERO:
    case INTEGER:
      if (state === INTEGER && isDigit(byte)) return INTEGER;
      if (byte === 0x2e) return POINT;
      return isExponent(byte) ? EXPONENT : VALUE;
    case POINT:
      if (!isDigit(byte)) unexpected(byte, "after decimal point in numeric literal");
      return FRACTION;
    case FRACTION:
      if (isDigit(byte)) return FRACTION;
      return isExponent(byte) ? EXPONENT : VALUE;
    case EXPONENT:
      if (byte === 0x2b || byte === 0x2d) return EXPONENT_SIGN;
      if (!isDigit(byte)) unexpected(byte, "in exponent of numeric literal");
      return EXPONENT_DIGITS;
    case EXPONENT_SIGN:
      if (!isDigit(byte)) unexpected(byte, "in exponent of numeric literal");
      return EXPONENT_DIGITS;
    default:
      return isDigit(byte) ? EXPONENT_DIGITS : VALUE;
  }
}

export function hexDigit(byte: number): number {
  if (isDigit(byte)) return byte - 0x30;
  const lower = byte | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1;
}

/** 1 for ASCII characters that represent themselves in a string. */
export const PLAIN = new Uint8Array(256).fill(1, 0x20, 0x80);
PLAIN[0x22] = 0;
PLAIN[0x5c] = 0;

/** Characters for the one-letter escapes. */
export const ESCAPES: Readonly<Record<number, number>> = {
  34: 34,
  47: 47,
  92: 92,
  98: 8,
  102: 12,
  110: 10,
  114: 13,
  116: 9,
};
