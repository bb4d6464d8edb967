/**
 * Bytes as strings and back without loss: UTF-8 becomes its characters, any other byte a lone surrogate (U+DC80 to
 * U+DCFF), which no UTF-8 decodes to. The command-line programs use it for keys and values, which are bytes. Source:
 * Python's PEP 383 ("surrogateescape").
 */

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const ESCAPED = /[\udc80-\udcff]/;
const LONE_SURROGATE = /\p{Surrogate}/u;

export function decodeLossless(bytes: Uint8Array): string {
  try {
    return utf8.decode(bytes);
  } catch {
    return decodeDamaged(bytes);
  }
}

export function encodeLossless(text: string): Buffer {
  if (!LONE_SURROGATE.test(text)) return Buffer.from(text);
  const parts: Buffer[] = [];
  // Iterating by characters leaves only lone surrogates.
  for (const char of text) {
    const lone = char.length === 1 && ESCAPED.test(char);
    parts.push(lone ? Buffer.of(char.charCodeAt(0) & 0xff) : Buffer.from(char));
  }
  return Buffer.concat(parts);
}

/** Whether the text holds no byte that is not UTF-8. */
export const isText = (text: string): boolean => !LONE_SURROGATE.test(text);

function decodeDamaged(bytes: Uint8Array): string {
  let text = "";
  for (let at = 0; at < bytes.length; ) {
    const length = sequenceLength(bytes, at);
    if (length === 0) text += String.fromCharCode(0xdc00 + bytes[at]!);
    else text += utf8.decode(bytes.subarray(at, at + length));
    at += Math.max(1, length);
  }
  return text;
}

/** Bytes of the well-formed UTF-8 sequence at `at`; 0 when there is none. */
export function sequenceLength(bytes: Uint8Array, at: number): number {
  const first = bytes[at]!;
  const length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
  if (length === 0 || at + length > bytes.length) return 0;
  for (let i = 1; i < length; i++) if ((bytes[at + i]! & 0xc0) !== 0x80) return 0;
  const second = bytes[at + 1]!;
  const overlong = (first === 0xe0 && second < 0xa0) || (first === 0xf0 && second < 0x90);
  const outside = (first === 0xed && second > 0x9f) || (first === 0xf4 && second > 0x8f);
  return overlong || outside ? 0 : length;
}
