/**
 * A prefix of a bucket of an S3-compatible service as a store. A large object goes there in parts, of which one is in memory
 * at a time; it appears with its last step. "Must not exist" is the service's own condition (`If-None-Match: *`).
 */
import { createHash } from "node:crypto";
import { BackupError } from "../error.ts";
import { type S3Settings, s3Response, s3Text, xmlText } from "./s3-request.ts";
import type { PutOptions, Store, StoredObject } from "./store.ts";

/** The service takes 10,000 parts, so an object may have 160 GB. */
const PART_BYTES = 16 * 1024 * 1024;
/** How often a download goes on after its connection broke. */
const RESUMES_MAX = 8;

export class S3Store implements Store {
  readonly url: string;
  readonly #settings: S3Settings;
  /** With a slash at its end, or empty. */
  readonly #prefix: string;

  constructor(settings: S3Settings, prefix: string) {
    this.url = settings.url;
    this.#settings = settings;
    this.#prefix = prefix === "" ? "" : `${prefix.replace(/\/$/, "")}/`;
  }

  async *list(): AsyncGenerator<StoredObject, void, undefined> {
    let token: string | undefined;
    do {
      const { text } = await s3Text(this.#settings, {
        method: "GET",
        key: "",
        query: [
          ["list-type", "2"],
          ["prefix", this.#prefix],
          ...(token === undefined ? [] : [["continuation-token", token] as const]),
        ],
      });
      for (const [, content] of text.matchAll(/<Contents>(.*?)<\/Contents>/gs)) {
        const key = xmlText(content!, "Key") ?? "";
        const name = key.slice(this.#prefix.length);
        if (name === "" || !key.startsWith(this.#prefix)) continue;
        const sizeBytes = Number(xmlText(content!, "Size"));
        yield { name, sizeBytes, modifiedMs: Date.parse(xmlText(content!, "LastModified") ?? "") };
      }
      token = xmlText(text, "IsTruncated") === "true" ? xmlText(text, "NextContinuationToken") : undefined;
    } while (token !== undefined);
  }

  async *get(name: string): AsyncGenerator<Uint8Array, void, undefined> {
    const key = this.#prefix + name;
    let at = 0;
    let etag: string | undefined;
    for (let resumes = 0; ; resumes++) {
      // Only the same object goes on.
      const headers = {
        ...(at > 0 ? { range: `bytes=${at}-` } : {}),
        ...(etag === undefined ? {} : { "if-match": etag }),
      };
      const response = await s3Response(this.#settings, { method: "GET", key, headers });
      if (at > 0 && response.statusCode !== 206) {
        response.destroy();
        throw new BackupError("ERR_BACKUP_STORE", `${this.url}: the connection broke, and ${name} cannot be resumed`);
      }
      etag ??= response.headers.etag;
      try {
        for await (const chunk of response) {
          at += chunk.length;
          yield chunk;
        }
        return;
      } catch (error) {
        if (resumes === RESUMES_MAX) {
          const options = { cause: error };
          throw new BackupError(
            "ERR_BACKUP_STORE",
            `${this.url}: the connection broke while ${name} was read`,
            options,
          );
        }
      } finally {
        response.destroy();
      }
    }
  }

  async put(name: string, bytes: AsyncIterable<Uint8Array>, options: PutOptions): Promise<void> {
    const key = this.#prefix + name;
    const parts = partsOf(bytes);
    try {
      const first = await parts.next();
      const body = first.done ? Buffer.alloc(0) : first.value.part;
      if (first.done || first.value.isLast) {
        const headers = { ...conditionOf(options), ...lockOf(options), ...checksumOf(body) };
        await s3Text(this.#settings, { method: "PUT", key, headers, body });
      } else await this.#putParts(key, body, parts, options);
    } finally {
      await parts.return();
    }
  }

  async #putParts(key: string, first: Buffer, rest: Parts, options: PutOptions): Promise<void> {
    const begun = await s3Text(this.#settings, {
      method: "POST",
      key,
      query: [["uploads", ""]],
      headers: lockOf(options),
    });
    const id = xmlText(begun.text, "UploadId");
    if (id === undefined)
      throw new BackupError("ERR_BACKUP_STORE", `${this.url}: the service began no upload of ${key}`);
    const etags: string[] = [];
    try {
      const send = async (body: Buffer): Promise<void> => {
        const query = [
          ["partNumber", `${etags.length + 1}`],
          ["uploadId", id],
        ] as const;
        etags.push((await s3Text(this.#settings, { method: "PUT", key, query, body, headers: checksumOf(body) })).etag);
      };
      await send(first);
      for await (const { part } of rest) await send(part);
      const list = etags.map(
        (etag, i) => `<Part><PartNumber>${i + 1}</PartNumber><ETag>${escaped(etag)}</ETag></Part>`,
      );
      const { text } = await s3Text(this.#settings, {
        method: "POST",
        key,
        query: [["uploadId", id]],
        headers: conditionOf(options),
        body: Buffer.from(`<CompleteMultipartUpload>${list.join("")}</CompleteMultipartUpload>`),
      });
      // The service answers 200 before it knows the outcome.
      if (text.includes("<Error>")) {
        throw new BackupError("ERR_BACKUP_STORE", `${this.url}: ${key}: ${xmlText(text, "Message") ?? "not stored"}`);
      }
    } catch (error) {
      await s3Text(this.#settings, { method: "DELETE", key, query: [["uploadId", id]] }).catch(() => {});
      throw error;
    }
  }

  async remove(name: string): Promise<void> {
    await s3Text(this.#settings, { method: "DELETE", key: this.#prefix + name });
  }
}

type Parts = AsyncGenerator<{ readonly part: Buffer; readonly isLast: boolean }, void, undefined>;

/** Full parts, and a last one that may be shorter. */
async function* partsOf(bytes: AsyncIterable<Uint8Array>): Parts {
  let chunks: Uint8Array[] = [];
  let total = 0;
  for await (const chunk of bytes) {
    chunks.push(chunk);
    total += chunk.length;
    while (total > PART_BYTES) {
      const joined = Buffer.concat(chunks, total);
      yield { part: joined.subarray(0, PART_BYTES), isLast: false };
      chunks = [joined.subarray(PART_BYTES)];
      total -= PART_BYTES;
    }
  }
  yield { part: Buffer.concat(chunks, total), isLast: true };
}

function conditionOf({ ifAbsent }: PutOptions): Record<string, string> {
  return ifAbsent ? { "if-none-match": "*" } : {};
}

function lockOf({ keepUntilMs }: PutOptions): Record<string, string> {
  if (keepUntilMs === undefined) return {};
  const until = new Date(keepUntilMs).toISOString();
  return { "x-amz-object-lock-mode": "COMPLIANCE", "x-amz-object-lock-retain-until-date": until };
}

/** The service compares it, and locks no object without it. */
function checksumOf(body: Buffer): Record<string, string> {
  return { "content-md5": createHash("md5").update(body).digest("base64") };
}

const escaped = (text: string): string => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
