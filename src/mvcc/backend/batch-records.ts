import { type KnownBucket, RecordBuffer } from "../../bolt/records.ts";
import { REVISION_BYTES, TOMBSTONE_BYTES, writeRevision } from "../model/revision.ts";
import { BUCKETS, type BucketName } from "./backend.ts";
import type { Batch } from "./batch.ts";

/** etcd's buckets, in the order known to both threads. */
export const knownBuckets: readonly KnownBucket[] = BUCKETS.map((name) => ({ name, sequential: name === "key" }));

const places = new Map<BucketName, number>(BUCKETS.map((name, place) => [name, place]));
const ROWS = places.get("key")!;

/** Bytes copied per event loop turn: about half a millisecond. */
const SLICE_BYTES = 512 * 1024;
const SLICE_RECORDS = 4000;

/** A sealed batch as records for the writing thread, a slice at a time. The batch must not change any more. */
export function* batchRecords(batch: Batch): Generator<Uint8Array<ArrayBuffer>, void, void> {
  yield* smallRecords(batch);
  yield* deletedRecords(batch);
  yield* rowRecords(batch);
}

function* smallRecords(batch: Batch): Generator<Uint8Array<ArrayBuffer>, void, void> {
  let out: RecordBuffer | undefined;
  let count = 0;
  for (const [name, entries] of batch.smallBuckets) {
    const bucket = places.get(name)!;
    for (const [key, value] of entries) {
      out ??= new RecordBuffer(16 * 1024);
      const at = value === null ? out.delete(bucket, key.length) : out.put(bucket, key.length, value.length);
      out.bytes.write(key, at, "latin1");
      if (value !== null) out.bytes.set(value, at + key.length);
      if (++count % SLICE_RECORDS !== 0 && out.length < SLICE_BYTES) continue;
      yield out.take();
      out = undefined;
    }
  }
  if (out !== undefined) yield out.take();
}

function* deletedRecords(batch: Batch): Generator<Uint8Array<ArrayBuffer>, void, void> {
  const rows = batch.deletedRows;
  for (let from = 0; from < rows.length; from += SLICE_RECORDS) {
    const to = Math.min(rows.length, from + SLICE_RECORDS);
    const out = new RecordBuffer((to - from) * (TOMBSTONE_BYTES + 8));
    for (let i = from; i < to; i++) {
      const { main, sub, tombstone } = rows[i]!;
      const at = out.delete(ROWS, tombstone ? TOMBSTONE_BYTES : REVISION_BYTES);
      writeRevision(out.bytes, at, main, sub, tombstone);
    }
    yield out.take();
  }
}

function* rowRecords(batch: Batch): Generator<Uint8Array<ArrayBuffer>, void, void> {
  let fromMain = 0;
  let fromSub = 0;
  for (let isThrough = false; !isThrough; ) {
    const out = new RecordBuffer(Math.min(SLICE_BYTES, batch.rows.byteCount + 8 * batch.rows.size) + 1024);
    let count = 0;
    isThrough = batch.rows.forEach(
      fromMain,
      fromSub,
      Number.POSITIVE_INFINITY,
      (main, sub, tombstone, bytes, start, end) => {
        const at = out.put(ROWS, tombstone ? TOMBSTONE_BYTES : REVISION_BYTES, end - start);
        const valueAt = writeRevision(out.bytes, at, main, sub, tombstone);
        out.bytes.set(end - start === bytes.length ? bytes : bytes.subarray(start, end), valueAt);
        fromMain = main;
        fromSub = sub + 1;
        return ++count < SLICE_RECORDS && out.length < SLICE_BYTES;
      },
    );
    if (count > 0) yield out.take();
  }
}
