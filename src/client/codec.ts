/** How values and keys become bytes and back. */
import { KvorumError, messageOf } from "../base/errors.ts";

/**
 * Turns a type of yours into bytes and back.
 *
 * @example
 * const numbers: Codec<number> = {
 *   encode: (value) => Buffer.from(String(value)),
 *   decode: (bytes) => Number(Buffer.from(bytes).toString()),
 * };
 * await client.values(numbers).put("answer", 42);
 */
export interface Codec<T> {
  encode(value: T): Uint8Array;
  /** The bytes are a view of received data: copy what you keep. */
  decode(bytes: Uint8Array): T;
}

/** Stored bytes are not what the codec expects. `cause` is what it threw. */
export class CodecError extends KvorumError {
  override name = "CodecError";
  readonly code = "ERR_CODEC";
}

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const ASCII_LOOP_MAX = 64;

/** Strings as UTF-8. Bytes that are not UTF-8 are refused with CodecError, never replaced. */
export const utf8: Codec<string> = {
  encode: (value) => Buffer.from(value, "utf8"),
  decode: decodeText,
};

function decodeText(bytes: Uint8Array): string {
  const { length } = bytes;
  if (length <= ASCII_LOOP_MAX) {
    let i = 0;
    while (i < length && bytes[i]! < 128) i++;
    if (i === length) return Buffer.from(bytes.buffer, bytes.byteOffset, length).toString("latin1");
  }
  try {
    return decoder.decode(bytes);
  } catch (error) {
    throw new CodecError("the bytes are not UTF-8: read them with `bytes`", { cause: error });
  }
}

/** Bytes as they are. Each value is a copy of its own. */
export const bytes: Codec<Uint8Array> = {
  encode: (value) => value,
  decode: (value) => new Uint8Array(value),
};

/**
 * Values as JSON. The type is your promise: nothing checks it.
 *
 * @example
 * const users = client.namespace("users/").values(json<{ name: string }>());
 * await users.put("1", { name: "Ada" });
 */
export function json<T>(): Codec<T> {
  return {
    encode: (value) => {
      const text: string | undefined = JSON.stringify(value);
      if (text === undefined) throw new CodecError(`${typeof value} has no form in JSON`);
      return Buffer.from(text, "utf8");
    },
    decode: (value) => {
      try {
        return JSON.parse(decodeText(value));
      } catch (error) {
        throw new CodecError(`the value is not JSON: ${messageOf(error)}`, { cause: error });
      }
    },
  };
}
