/**
 * A delta: the rows that the changes of some revisions make in the key bucket, in order, with marks of time and the leases
 * that they name. A line `kvorum-delta 1`, then records: a byte for the kind, four for the length, the content.
 */
import { KvEncoder } from "../../mvcc/model/kv-encoder.ts";
import { mainOf, REVISION_BYTES, revisionBytes, subOf, TOMBSTONE_BYTES } from "../../mvcc/model/revision.ts";
import { damaged } from "../error.ts";

const MAGIC = Buffer.from("kvorum-delta 1\n");
const HEAD_BYTES = 5;
const KIND = { put: 1, tombstone: 2, mark: 3, lease: 4, end: 5 } as const;
/** A row is at most a request, which etcd limits to some megabytes, or as many as a member is told to accept. */
const RECORD_BYTES_MAX = 1024 * 1024 * 1024;

export type DeltaRecord =
  | { readonly kind: "row"; readonly key: Buffer; readonly value: Buffer; readonly main: number; readonly sub: number }
  /** All changes up to this revision had been received at this time. */
  | { readonly kind: "mark"; readonly wallMs: number; readonly revision: number }
  /** Seconds a lease was granted for; 0 when it was gone before it could be asked. */
  | { readonly kind: "lease"; readonly id: bigint; readonly ttl: number };

/** A change, as a watch reports it. */
export interface Change {
  readonly key: Uint8Array;
  readonly revision: number;
  /** Undefined for a deletion. */
  readonly kv:
    | {
        readonly value: Uint8Array;
        readonly version: number;
        readonly createRevision: number;
        readonly lease: bigint;
      }
    | undefined;
}

/** Collects a delta in memory. */
export class DeltaWriter {
  readonly #encoder = new KvEncoder();
  readonly #parts: Buffer[] = [MAGIC];
  #sizeBytes = MAGIC.length;
  #main: number;
  #sub = 0;
  #events = 0;
  #isFinished = false;
  readonly #from: number;

  /** Of the changes after revision `from`. */
  constructor(from: number) {
    this.#from = from;
    this.#main = from;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  get events(): number {
    return this.#events;
  }

  /** The last revision that it has. */
  get revision(): number {
    return this.#main;
  }

  /**
   * Adds the next change. False, and nothing is added, when it does not follow the one before: a change of every revision is
   * seen by a watch of all keys.
   */
  add({ key, revision, kv }: Change): boolean {
    if (revision === this.#main && this.#events > 0) this.#sub++;
    else if (revision === this.#main + 1) this.#sub = 0;
    else return false;
    this.#main = revision;
    this.#events++;
    const encoder = this.#encoder;
    if (kv === undefined) encoder.tombstone(key, 0, key.length);
    else encoder.put(key, kv.createRevision, revision, kv.version, kv.value, kv.lease);
    const row = revisionBytes(revision, this.#sub, kv === undefined);
    this.#record(kv === undefined ? KIND.tombstone : KIND.put, [
      row,
      encoder.bytes.subarray(encoder.start, encoder.end),
    ]);
    return true;
  }

  mark(wallMs: number): void {
    this.#record(KIND.mark, [uint64(wallMs), uint64(this.#main)]);
  }

  lease(id: bigint, ttl: number): void {
    const bytes = Buffer.alloc(8);
    bytes.writeBigInt64BE(id);
    this.#record(KIND.lease, [bytes, uint64(ttl)]);
  }

  get isFinished(): boolean {
    return this.#isFinished;
  }

  /** Ends it; nothing can be added any more. The second call returns the same. */
  finish(): readonly Buffer[] {
    if (!this.#isFinished) this.#record(KIND.end, [uint64(this.#from), uint64(this.#main), uint64(this.#events)]);
    this.#isFinished = true;
    return this.#parts;
  }

  #record(kind: number, contents: readonly Buffer[]): void {
    const head = Buffer.alloc(HEAD_BYTES);
    head[0] = kind;
    let length = 0;
    for (const { length: each } of contents) length += each;
    head.writeUInt32BE(length, 1);
    this.#parts.push(head, ...contents);
    this.#sizeBytes += HEAD_BYTES + length;
  }
}

/** The records of the delta called `name`. Throws BackupError when it is not a whole one. */
export async function* deltaRecords(
  name: string,
  source: AsyncIterable<Uint8Array>,
): AsyncGenerator<DeltaRecord, void, undefined> {
  let bytes = Buffer.alloc(0);
  let at = 0;
  let needed = MAGIC.length;
  let isStarted = false;
  let isEnded = false;
  let rows = 0;
  for await (const part of source) {
    bytes = Buffer.concat([bytes.subarray(at), part]);
    at = 0;
    while (bytes.length - at >= needed) {
      if (isEnded) throw damaged(name, "goes on behind its end");
      if (!isStarted) {
        if (!bytes.subarray(0, MAGIC.length).equals(MAGIC)) throw damaged(name, "is not a delta of format 1");
        isStarted = true;
        at = MAGIC.length;
        needed = HEAD_BYTES;
        continue;
      }
      const length = bytes.readUInt32BE(at + 1);
      if (length > RECORD_BYTES_MAX) throw damaged(name, `has a record of ${length} bytes`);
      needed = HEAD_BYTES + length;
      if (bytes.length - at < needed) break;
      const kind = bytes[at]!;
      const content = bytes.subarray(at + HEAD_BYTES, at + needed);
      at += needed;
      needed = HEAD_BYTES;
      if (kind === KIND.end) {
        if (content.length !== 24 || readUint64(content, 16) !== rows) throw damaged(name, "has not all of its rows");
        isEnded = true;
        // Nothing may follow.
        needed = 1;
        continue;
      }
      const record = recordOf(name, kind, content);
      if (record.kind === "row") rows++;
      yield record;
    }
  }
  if (!isEnded) throw damaged(name, "is cut off");
}

function recordOf(name: string, kind: number, content: Buffer): DeltaRecord {
  if (kind === KIND.put || kind === KIND.tombstone) {
    const keyBytes = kind === KIND.put ? REVISION_BYTES : TOMBSTONE_BYTES;
    if (content.length > keyBytes) {
      const key = content.subarray(0, keyBytes);
      return { kind: "row", key, value: content.subarray(keyBytes), main: mainOf(key), sub: subOf(key) };
    }
  } else if (kind === KIND.mark && content.length === 16) {
    return { kind: "mark", wallMs: readUint64(content, 0), revision: readUint64(content, 8) };
  } else if (kind === KIND.lease && content.length === 16) {
    return { kind: "lease", id: content.readBigInt64BE(0), ttl: readUint64(content, 8) };
  }
  throw damaged(name, `has a record of kind ${kind} with ${content.length} bytes`);
}

function uint64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}

const readUint64 = (bytes: Buffer, at: number): number => Number(bytes.readBigUInt64BE(at));
