/** From plain bytes to stored ones and back, as streams: compressed, encrypted, counted, and hashed. */
import { createHash } from "node:crypto";
import type { Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip, createGzip } from "node:zlib";
import { codeOf } from "../base/errors.ts";
import { decrypted, encrypted } from "./age/file.ts";
import type { Identity, Recipient } from "./age/keys.ts";
import { BackupError, damaged } from "./error.ts";
import type { StoredData } from "./format/manifest.ts";
import type { Store } from "./store/store.ts";

/** Fast: a large database is read once a day, and its pages compress well at every level. */
const GZIP_LEVEL = 3;

export interface Tally {
  plainBytes: number;
  sizeBytes: number;
  sha256: string;
}

/** The stored form of plain bytes. `tally` is complete when the iteration has ended. */
export async function* storedForm(
  plain: AsyncIterable<Uint8Array>,
  recipients: readonly Recipient[],
  tally: Tally,
): AsyncGenerator<Uint8Array, void, undefined> {
  const counted = counting(plain, (bytes) => {
    tally.plainBytes += bytes;
  });
  const packed = through(counted, createGzip({ level: GZIP_LEVEL }));
  const hash = createHash("sha256");
  for await (const chunk of recipients.length > 0 ? encrypted(packed, recipients) : packed) {
    hash.update(chunk);
    tally.sizeBytes += chunk.length;
    yield chunk;
  }
  tally.sha256 = hash.digest("hex");
}

/** The stored bytes of an object, compared with its digest. Throws BackupError, at the end. */
export async function* storedBytes(store: Store, data: StoredData): AsyncGenerator<Uint8Array, void, undefined> {
  const hash = createHash("sha256");
  let sizeBytes = 0;
  for await (const chunk of store.get(data.name)) {
    hash.update(chunk);
    sizeBytes += chunk.length;
    if (sizeBytes > data.sizeBytes) break;
    yield chunk;
  }
  if (sizeBytes !== data.sizeBytes) {
    const problem = sizeBytes < data.sizeBytes ? `is cut off after ${sizeBytes} bytes` : "is longer than it was";
    throw damaged(data.name, `${problem}: it had ${data.sizeBytes}`);
  }
  if (hash.digest("hex") !== data.sha256) throw damaged(data.name, "is not what its digest says: it was changed");
}

/** The plain bytes of an object. Throws BackupError that names it. */
export async function* plainForm(
  store: Store,
  data: StoredData,
  identities: readonly Identity[],
): AsyncGenerator<Uint8Array, void, undefined> {
  const stored = storedBytes(store, data);
  const packed = data.isEncrypted ? decrypted(stored, identities) : stored;
  try {
    yield* through(packed, createGunzip());
  } catch (error) {
    if (codeOf(error)?.startsWith("Z_")) throw damaged(data.name, "cannot be decompressed", { cause: error });
    if (error instanceof BackupError && error.code === "ERR_BACKUP_DAMAGED" && !error.message.startsWith(data.name)) {
      throw damaged(data.name, `is damaged: ${error.message}`, { cause: error });
    }
    throw error;
  }
}

export async function* counting(
  source: AsyncIterable<Uint8Array>,
  count: (bytes: number) => void,
): AsyncGenerator<Uint8Array, void, undefined> {
  for await (const chunk of source) {
    count(chunk.length);
    yield chunk;
  }
}

async function* through(
  source: AsyncIterable<Uint8Array>,
  transform: Transform,
): AsyncGenerator<Uint8Array, void, undefined> {
  const done = pipeline(source, transform);
  // Its error comes out of the iteration, too.
  done.catch(() => {});
  try {
    yield* transform;
    await done;
  } finally {
    transform.destroy();
  }
}
