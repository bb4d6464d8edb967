/** The text forms of the gRPC wire: percent-encoded messages and timeouts. Source: gRPC over HTTP2. */
import { quote as quoteBytes } from "../base/quote.ts";

/** `grpc-message`: printable ASCII is kept; everything else and `%` become percent-encoded UTF-8. */
export function encodeStatusMessage(message: string): string {
  if (/^[ -$&-~]*$/.test(message)) return message;
  let out = "";
  for (const byte of Buffer.from(message, "utf8")) {
    out +=
      byte >= 0x20 && byte <= 0x7e && byte !== 0x25
        ? String.fromCharCode(byte)
        : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return out;
}

const UNIT_MS: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1000, m: 1, u: 1e-3, n: 1e-6 };

/** Milliseconds of a `grpc-timeout` value, or grpc-go's error text. */
export function parseTimeout(text: string): number | string {
  if (text.length < 2) return `transport: timeout string is too short: ${quote(text)}`;
  if (text.length > 9) return `transport: timeout string is too long: ${quote(text)}`;
  const unit = UNIT_MS[text[text.length - 1]!];
  if (unit === undefined) return `transport: timeout unit is not recognized: ${quote(text)}`;
  let count = 0;
  for (let i = 0; i < text.length - 1; i++) {
    const digit = text.charCodeAt(i) - 0x30;
    if (digit < 0 || digit > 9) return `strconv.ParseUint: parsing ${quote(text.slice(0, -1))}: invalid syntax`;
    count = count * 10 + digit;
  }
  return count * unit;
}

/** Offset of the first character of a `-bin` value that is not base64, or -1. Padding may be absent. */
export function base64ErrorAt(value: string): number {
  let length = value.length;
  if (length % 4 === 0) for (let i = 0; i < 2 && length > 0 && value[length - 1] === "="; i++) length--;
  for (let i = 0; i < length; i++) if (!/[A-Za-z0-9+/]/.test(value[i]!)) return i;
  return length % 4 === 1 ? length : -1;
}

/** A string in Go's `%q`, for texts that quote client input. Takes one character per byte. */
export function quote(text: string): string {
  return quoteBytes(Buffer.from(text, "latin1"));
}
