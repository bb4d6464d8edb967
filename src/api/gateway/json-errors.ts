import { KvorumError } from "../../base/errors.ts";

/** A JSON syntax error, with the text of Go's encoding/json. */
export class JsonSyntaxError extends KvorumError {
  override name = "JsonSyntaxError";
  readonly code = "ERR_JSON_SYNTAX";
}

const NAMED: Readonly<Record<number, string>> = {
  7: "\\a",
  8: "\\b",
  9: "\\t",
  10: "\\n",
  11: "\\v",
  12: "\\f",
  13: "\\r",
  39: "\\'",
  92: "\\\\",
};

/** A byte that is not allowed here. */
export function unexpected(byte: number, context: string): never {
  throw new JsonSyntaxError(`invalid character ${quoted(byte)} ${context}`);
}

/** A byte in single quotes as Go writes it. */
function quoted(byte: number): string {
  const named = NAMED[byte];
  if (named !== undefined) return `'${named}'`;
  if (byte >= 0x20 && byte !== 0x7f && (byte < 0x80 || byte > 0xa0) && byte !== 0xad) {
    return `'${String.fromCharCode(byte)}'`;
  }
  const hex = byte.toString(16).padStart(2, "0");
  return byte < 0x80 ? `'\\x${hex}'` : `'\\u00${hex}'`;
}
