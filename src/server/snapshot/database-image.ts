import type { Clock } from "../../base/clock.ts";
import { othersTurn } from "../../base/others-turn.ts";
import { type BoltLayout, BoltStream, metaPages } from "../../bolt/writer.ts";
import type { Backend, BackendSnapshot, BucketName } from "../../mvcc/backend/backend.ts";
import { writeRevision } from "../../mvcc/model/revision.ts";
import type { DatabaseImage } from "../contract/network.ts";

/**
 * The whole backend at one moment as a bbolt file, etcd's exchange format for databases. The file is never stored: one
 * pass over a snapshot measures it, a second one writes it, both yielding to other work.
 */
export class BackendImage implements DatabaseImage {
  readonly sizeBytes: number;
  readonly #snapshot: BackendSnapshot;
  readonly #layout: BoltLayout;
  readonly #clock: Clock;

  /** Resolves to undefined when cancelled. Close the image. */
  static async open(backend: Backend, clock: Clock, isCancelled: () => boolean): Promise<BackendImage | undefined> {
    const snapshot = await backend.snapshot();
    try {
      const stream = new BoltStream(false);
      for (const _ of addInSlices(snapshot, stream)) {
        await othersTurn(clock);
        if (isCancelled()) {
          snapshot.close();
          return undefined;
        }
      }
      return new BackendImage(snapshot, stream.finish(), clock);
    } catch (error) {
      snapshot.close();
      throw error;
    }
  }

  private constructor(snapshot: BackendSnapshot, layout: BoltLayout, clock: Clock) {
    this.sizeBytes = layout.sizeBytes;
    this.#snapshot = snapshot;
    this.#layout = layout;
    this.#clock = clock;
  }

  /** The snapshot of the image. */
  get snapshot(): BackendSnapshot {
    return this.#snapshot;
  }

  async *chunks(): AsyncGenerator<Uint8Array, void, void> {
    yield metaPages(this.#layout);
    const stream = new BoltStream(true);
    for (const _ of addInSlices(this.#snapshot, stream)) {
      yield* stream.take();
      await othersTurn(this.#clock);
    }
    stream.finish(this.#layout);
    yield* stream.take();
  }

  close(): void {
    this.#snapshot.close();
  }
}

/** Rows between two turns: a millisecond of work. */
const SLICE_ROWS = 1000;
const SLICE_BYTES = 256 * 1024;

/** Adds everything to the stream; yields wherever other work must run. */
function* addInSlices(snapshot: BackendSnapshot, stream: BoltStream): Generator<void, void, void> {
  for (const bucket of snapshot.buckets()) {
    stream.startBucket(Buffer.from(bucket));
    yield* bucket === "key" ? addRows(snapshot, stream) : addEntries(snapshot, bucket, stream);
  }
}

function* addRows(snapshot: BackendSnapshot, stream: BoltStream): Generator<void, void, void> {
  const space = Buffer.alloc(32);
  const keys = Array.from({ length: space.length }, (_, length) => space.subarray(0, length));
  let fromMain = 0;
  let fromSub = 0;
  for (;;) {
    let rows = 0;
    let size = 0;
    snapshot.forEachRevision(fromMain, fromSub, (main, sub, tombstone, bytes, start, end) => {
      stream.add(keys[writeRevision(space, 0, main, sub, tombstone)]!, bytes, start, end);
      fromMain = main;
      fromSub = sub + 1;
      size += end - start;
      return ++rows < SLICE_ROWS && size < SLICE_BYTES;
    });
    if (rows < SLICE_ROWS && size < SLICE_BYTES) return;
    yield;
  }
}

function* addEntries(snapshot: BackendSnapshot, bucket: BucketName, stream: BoltStream): Generator<void, void, void> {
  for (const chunk of snapshot.entries(bucket, SMALL_SLICE_BYTES)) {
    for (const { key, value } of chunk) stream.add(key, value);
    yield;
  }
}

/** Entries of the small buckets are some tens of bytes. */
const SMALL_SLICE_BYTES = 64 * 1024;
