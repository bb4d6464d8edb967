/**
 * Quoted strings as Go writes and reads them: `%q`, as etcd's tools print keys and users type them. Source: Go's
 * strconv.Quote and strconv.Unquote.
 */
import { encodeLossless, sequenceLength } from "./lossless-text.ts";

const SHORT: Readonly<Record<string, string>> = {
  "\x07": "\\a",
  "\b": "\\b",
  "\f": "\\f",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
  "\v": "\\v",
  "\\": "\\\\",
  '"': '\\"',
};
/** Letters, marks, numbers, punctuation, symbols and the plain space. */
const PRINTABLE = /^[\p{L}\p{M}\p{N}\p{P}\p{S} ]$/u;

/** Bytes, or text in the sense of lossless-text, within double quotes. */
export function quote(value: Uint8Array | string): string {
  const bytes = typeof value === "string" ? encodeLossless(value) : bufferOf(value);
  const parts = ['"'];
  for (let at = 0; at < bytes.length; ) {
    // Runs without escapes are taken at once: values may be megabytes long.
    const end = endOfPlain(bytes, at);
    if (end > at) parts.push(bytes.toString("latin1", at, end));
    at = end;
    if (at === bytes.length) break;
    const length = sequenceLength(bytes, at);
    parts.push(length === 0 ? `\\x${hex(bytes[at]!, 2)}` : escapeChar(bytes.toString("utf8", at, at + length)));
    at += Math.max(1, length);
  }
  parts.push('"');
  return parts.join("");
}

const bufferOf = (bytes: Uint8Array) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);

/** Where the run of ASCII characters that need no escape ends. */
function endOfPlain(bytes: Uint8Array, from: number): number {
  let at = from;
  for (; at < bytes.length; at++) {
    const byte = bytes[at]!;
    if (byte < 0x20 || byte > 0x7e || byte === 0x22 || byte === 0x5c) break;
  }
  return at;
}

function escapeChar(char: string): string {
  const short = SHORT[char];
  if (short !== undefined) return short;
  if (PRINTABLE.test(char)) return char;
  const code = char.codePointAt(0)!;
  if (code < 0x80) return `\\x${hex(code, 2)}`;
  return code < 0x10000 ? `\\u${hex(code, 4)}` : `\\U${hex(code, 8)}`;
}

const hex = (value: number, digits: number) => value.toString(16).padStart(digits, "0");

const LONG: Readonly<Record<string, string>> = {
  a: "\x07",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
  v: "\v",
  "\\": "\\",
  '"': '"',
};

/**
 * The value of the quoted string at the start of `text`, within double quotes or backquotes, and what follows it;
 * undefined when there is none.
 */
export function unquotePrefix(text: string): { readonly value: Buffer; readonly rest: string } | undefined {
  if (text[0] === "`") {
    const end = text.indexOf("`", 1);
    return end < 0 ? undefined : { value: encodeLossless(text.slice(1, end)), rest: text.slice(end + 1) };
  }
  const match = /^"((?:[^"\\\n]|\\.)*)"/s.exec(text);
  if (match === null) return undefined;
  const parts: Buffer[] = [];
  const pattern = /\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|([abfnrtv\\"])|(.?))|[^\\]+/gs;
  for (const [all, byte, short, long, octal, letter, bad] of match[1]!.matchAll(pattern)) {
    if (byte !== undefined) parts.push(Buffer.of(Number.parseInt(byte, 16)));
    else if (octal !== undefined) {
      const value = Number.parseInt(octal, 8);
      if (value > 255) return undefined;
      parts.push(Buffer.of(value));
    } else if (letter !== undefined) parts.push(Buffer.from(LONG[letter]!));
    else if (short !== undefined || long !== undefined) {
      const code = Number.parseInt((short ?? long)!, 16);
      if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return undefined;
      parts.push(Buffer.from(String.fromCodePoint(code)));
    } else if (bad !== undefined) return undefined;
    else parts.push(encodeLossless(all));
  }
  return { value: Buffer.concat(parts), rest: text.slice(match[0].length) };
}
