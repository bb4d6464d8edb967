/**
 * Files in age's format, as streams: a header with the wrapped key, then the data in sealed chunks of 64 KiB. The
 * program `age` reads what this writes, and the other way round. Source: C2SP, age.md.
 */
import { createCipheriv, createDecipheriv, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { BackupError } from "../error.ts";
import { base64, derive, type Identity, type Recipient, type Stanza } from "./keys.ts";

const VERSION_LINE = "age-encryption.org/v1";
const CHUNK_BYTES = 64 * 1024;
const TAG_BYTES = 16;
const NONCE_BYTES = 16;
const FILE_KEY_BYTES = 16;
const LINE_CHARS = 64;
const HEADER_BYTES_MAX = 64 * 1024;
const EMPTY = Buffer.alloc(0);

/** Throws BackupError when the recipients do not go together. */
export async function* encrypted(
  source: AsyncIterable<Uint8Array>,
  recipients: readonly Recipient[],
): AsyncGenerator<Buffer, void, undefined> {
  if (recipients.length === 0 || (recipients.length > 1 && recipients.some(({ isAlone }) => isAlone))) {
    throw new BackupError("ERR_BACKUP_KEY", "a file is for recipients, or for a passphrase alone");
  }
  const fileKey = randomBytes(FILE_KEY_BYTES);
  const stanzas = recipients.map((recipient) => stanzaText(recipient.wrap(fileKey))).join("");
  const head = `${VERSION_LINE}\n${stanzas}---`;
  const nonce = randomBytes(NONCE_BYTES);
  yield Buffer.concat([Buffer.from(`${head} ${base64(macOf(fileKey, head))}\n`), nonce]);
  const key = derive(fileKey, nonce, "payload");
  let number = 0;
  for await (const { chunk, isLast } of chunksOf(source, CHUNK_BYTES)) {
    const cipher = createCipheriv("chacha20-poly1305", key, chunkNonce(number++, isLast), { authTagLength: TAG_BYTES });
    yield Buffer.concat([cipher.update(chunk), cipher.final(), cipher.getAuthTag()]);
  }
}

/** Throws BackupError: no identity fits, or the data is damaged or cut off. */
export async function* decrypted(
  source: AsyncIterable<Uint8Array>,
  identities: readonly Identity[],
): AsyncGenerator<Buffer, void, undefined> {
  const input = source[Symbol.asyncIterator]();
  try {
    let bytes: Buffer = EMPTY;
    let headEnd = -1;
    while (headEnd < 0 || bytes.length < headEnd + NONCE_BYTES) {
      const next = await input.next();
      if (next.done || bytes.length > HEADER_BYTES_MAX) throw broken("has no header of age");
      bytes = Buffer.concat([bytes, next.value]);
      headEnd = endOfHeader(bytes);
    }
    const fileKey = fileKeyOf(bytes.subarray(0, headEnd).toString("latin1"), identities);
    const key = derive(fileKey, bytes.subarray(headEnd, headEnd + NONCE_BYTES), "payload");
    const rest = bytes.subarray(headEnd + NONCE_BYTES);
    let number = 0;
    for await (const { chunk, isLast } of chunksOf(following(rest, input), CHUNK_BYTES + TAG_BYTES)) {
      if (chunk.length < TAG_BYTES) throw broken("is cut off");
      const decipher = createDecipheriv("chacha20-poly1305", key, chunkNonce(number++, isLast), {
        authTagLength: TAG_BYTES,
      });
      decipher.setAuthTag(chunk.subarray(chunk.length - TAG_BYTES));
      const plain = decipher.update(chunk.subarray(0, chunk.length - TAG_BYTES));
      try {
        decipher.final();
      } catch (cause) {
        throw broken("is damaged or cut off", cause);
      }
      yield plain;
    }
  } finally {
    await input.return?.();
  }
}

const broken = (problem: string, cause?: unknown): BackupError =>
  new BackupError("ERR_BACKUP_DAMAGED", `the encrypted data ${problem}`, { cause });

/** After the line that begins with `---`; -1 when it is not complete. */
function endOfHeader(bytes: Buffer): number {
  const at = bytes.indexOf("\n--- ");
  const end = at < 0 ? -1 : bytes.indexOf("\n", at + 1);
  return end < 0 ? -1 : end + 1;
}

function fileKeyOf(header: string, identities: readonly Identity[]): Buffer {
  const lines = header.split("\n");
  if (lines[0] !== VERSION_LINE) throw broken("has no header of age");
  for (const stanza of stanzasOf(lines.slice(1))) {
    for (const identity of identities) {
      const fileKey = identity.unwrap(stanza);
      if (fileKey === undefined) continue;
      const end = header.lastIndexOf("\n--- ") + "\n---".length;
      const mac = Buffer.from(header.slice(end + 1).trim(), "base64");
      const expected = macOf(fileKey, header.slice(0, end));
      if (mac.length !== expected.length || !timingSafeEqual(mac, expected)) throw broken("has a changed header");
      return fileKey;
    }
  }
  throw new BackupError("ERR_BACKUP_KEY", "no key fits: give the --identity file or the passphrase it was made for");
}

function stanzasOf(lines: readonly string[]): Stanza[] {
  const stanzas: Stanza[] = [];
  for (let i = 0; i < lines.length && !lines[i]!.startsWith("---"); ) {
    if (!lines[i]!.startsWith("-> ")) throw broken("has a header that is not age's");
    const words = lines[i++]!.slice("-> ".length).split(" ");
    let body = "";
    for (let isMore = true; isMore && i < lines.length; i++) {
      body += lines[i]!;
      // A line that is not full ends the body.
      isMore = lines[i]!.length === LINE_CHARS;
    }
    stanzas.push({ words, body: Buffer.from(body, "base64") });
  }
  return stanzas;
}

function stanzaText({ words, body }: Stanza): string {
  return `-> ${words.join(" ")}\n${base64(body)}\n`;
}

function macOf(fileKey: Buffer, head: string): Buffer {
  return createHmac("sha256", derive(fileKey, EMPTY, "header"))
    .update(head, "latin1")
    .digest();
}

function chunkNonce(number: number, isLast: boolean): Buffer {
  const nonce = Buffer.alloc(12);
  nonce.writeUIntBE(number, 5, 6);
  nonce[11] = isLast ? 1 : 0;
  return nonce;
}

async function* following(first: Buffer, rest: AsyncIterator<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
  yield first;
  for (let next = await rest.next(); !next.done; next = await rest.next()) yield next.value;
}

/** Full chunks, of which the last may be shorter; it is empty only when everything is. */
async function* chunksOf(
  source: AsyncIterable<Uint8Array>,
  chunkBytes: number,
): AsyncGenerator<{ readonly chunk: Buffer; readonly isLast: boolean }, void, undefined> {
  let parts: Uint8Array[] = [];
  let total = 0;
  for await (const part of source) {
    parts.push(part);
    total += part.length;
    if (total <= chunkBytes) continue;
    const joined = Buffer.concat(parts, total);
    let at = 0;
    // The last chunk is known only at the end, so a full one waits for the next byte.
    for (; total - at > chunkBytes; at += chunkBytes) {
      yield { chunk: joined.subarray(at, at + chunkBytes), isLast: false };
    }
    parts = [joined.subarray(at)];
    total -= at;
  }
  yield { chunk: Buffer.concat(parts, total), isLast: true };
}
