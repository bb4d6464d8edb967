import { type BoltLayout, BoltStream, metaPages } from "../../src/bolt/writer.ts";
import type { BackendSnapshot, SnapshotImage } from "../../src/mvcc/backend/backend.ts";
import { writeRevision } from "../../src/mvcc/model/revision.ts";

/** A view in memory as a bbolt file: one pass over its rows measures the file, a second one writes it. */
export function memoryImage(snapshot: BackendSnapshot): SnapshotImage {
  const measured = new BoltStream(false);
  addAll(snapshot, measured);
  const layout = measured.finish();
  return { sizeBytes: layout.sizeBytes, chunks: () => chunksOf(snapshot, layout) };
}

async function* chunksOf(snapshot: BackendSnapshot, layout: BoltLayout): AsyncGenerator<Uint8Array, void, void> {
  yield metaPages(layout);
  const stream = new BoltStream(true);
  addAll(snapshot, stream);
  stream.finish(layout);
  yield* stream.take();
}

function addAll(snapshot: BackendSnapshot, stream: BoltStream): void {
  const key = Buffer.alloc(32);
  for (const bucket of snapshot.buckets()) {
    stream.startBucket(Buffer.from(bucket));
    if (bucket === "key") {
      snapshot.forEachRevision(0, 0, (main, sub, tombstone, bytes, start, end) => {
        stream.add(key.subarray(0, writeRevision(key, 0, main, sub, tombstone)), bytes, start, end);
        return true;
      });
    } else
      for (const chunk of snapshot.entries(bucket)) for (const { key: name, value } of chunk) stream.add(name, value);
  }
}
