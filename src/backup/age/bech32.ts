/** Bech32 (BIP 173) without its length limit: how age writes recipients and identities. */
import { BackupError } from "../error.ts";

const ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const CHECKSUM_CHARS = 6;
const GENERATOR = [0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3];

/** Throws BackupError when the text is not `prefix` with data and the right checksum. */
export function decodeBech32(prefix: string, text: string): Buffer {
  const lower = text.toLowerCase();
  const at = lower.lastIndexOf("1");
  const wrong = (why: string): BackupError =>
    new BackupError("ERR_BACKUP_KEY", `"${shortened(text, prefix)}" is no ${prefix}1… of age: ${why}`);
  if (text !== lower && text !== text.toUpperCase()) throw wrong("it mixes upper and lower case");
  if (lower.slice(0, Math.max(0, at)) !== prefix) throw wrong("it begins differently");
  const values = [...lower.slice(at + 1)].map((char) => ALPHABET.indexOf(char));
  if (values.includes(-1)) throw wrong("it has a character that does not occur there");
  if (values.length < CHECKSUM_CHARS || checksum([...expanded(prefix), ...values]) !== 1) {
    throw wrong("its checksum is wrong: a character is missing or changed");
  }
  return regroup(values.slice(0, -CHECKSUM_CHARS));
}

/** A secret key must not appear in a message. */
function shortened(text: string, prefix: string): string {
  return prefix.includes("secret") ? "…" : text;
}

function expanded(prefix: string): number[] {
  const codes = [...prefix].map((char) => char.charCodeAt(0));
  return [...codes.map((code) => code >> 5), 0, ...codes.map((code) => code & 31)];
}

function checksum(values: readonly number[]): number {
  let sum = 1;
  for (const value of values) {
    const top = sum >>> 25;
    sum = ((sum & 0x1ffffff) << 5) ^ value;
    GENERATOR.forEach((factor, i) => {
      if ((top >>> i) & 1) sum ^= factor;
    });
  }
  return sum >>> 0;
}

/** Groups of 5 bits become bytes; the bits that remain are padding. */
function regroup(values: readonly number[]): Buffer {
  const out: number[] = [];
  let bits = 0;
  let count = 0;
  for (const value of values) {
    bits = ((bits << 5) | value) & 0xfff;
    count += 5;
    if (count < 8) continue;
    count -= 8;
    out.push((bits >> count) & 0xff);
  }
  return Buffer.from(out);
}
