import assert from "node:assert/strict";
import { nullLogger } from "../../src/base/log.ts";
import { fromByteString } from "../../src/mvcc/model/types.ts";
import { MvccStore } from "../../src/mvcc/store/store.ts";
import type { WatchBatch } from "../../src/mvcc/watch/batch.ts";
import { WatchHub, type WatchHubOptions } from "../../src/mvcc/watch/hub.ts";
import type { WatchStream } from "../../src/mvcc/watch/stream.ts";
import type { LargeBatch, Watch, WatchRequest, WatchSink } from "../../src/mvcc/watch/types.ts";
import { WatchResponse } from "../../src/proto/etcdserverpb.ts";
import type { Event } from "../../src/proto/mvccpb.ts";
import { MemoryBackend } from "../harness/memory-backend.ts";
import type { VirtualClock } from "../harness/virtual-clock.ts";

/** Advances virtual time until the promise is settled. */
export async function settled<T>(clock: VirtualClock, promise: Promise<T>): Promise<T> {
  let pending = true;
  const done = promise.finally(() => {
    pending = false;
  });
  done.catch(() => {});
  for (let i = 0; pending; i++) {
    if (i > 100_000) throw new Error("the promise is not settled by moving the clock");
    clock.advance(1);
    await new Promise((resolve) => setImmediate(resolve));
  }
  return done;
}

export async function openStore(clock: VirtualClock): Promise<MvccStore> {
  const backend = new MemoryBackend({ clock });
  return settled(clock, MvccStore.open({ backend, clock, logger: nullLogger }));
}

export function openHub(store: MvccStore, clock: VirtualClock, options: Partial<WatchHubOptions> = {}): WatchHub {
  return new WatchHub({ store, clock, logger: nullLogger, ...options });
}

/** One write transaction. Keys and values are byte strings. */
export function write(
  store: MvccStore,
  puts: readonly (readonly [string, string])[],
  deletes: readonly string[] = [],
): number {
  const txn = store.begin();
  for (const [key, value] of puts) txn.put(fromByteString(key), fromByteString(value), 0n);
  for (const key of deletes) txn.deleteKey(key);
  txn.end();
  return store.currentRevision;
}

export function request(
  key: string,
  fields: Partial<Omit<WatchRequest, "key" | "rangeEnd">> & { end?: string } = {},
): WatchRequest {
  const { end, ...rest } = fields;
  return {
    key: fromByteString(key),
    rangeEnd: fromByteString(end ?? ""),
    startRevision: 0,
    watchId: 0,
    filters: [],
    prevKv: false,
    progressNotify: false,
    fragment: false,
    ...rest,
  };
}

/** The parts of a batch that tests examine. */
export interface DeliveredBatch {
  readonly revision: number;
  readonly events: readonly { readonly revision: number }[];
  decodedEvents(): Event[];
}

/** All of a large batch, read at once. */
export function readLarge(batch: LargeBatch): DeliveredBatch {
  while (!batch.measure());
  const pieces = Array.from({ length: batch.pieceCount }, (_, i) => batch.piece(i));
  const { events } = WatchResponse.decode(Buffer.concat(pieces));
  assert.equal(events.length, batch.eventCount);
  batch.delivered();
  return {
    revision: batch.revision,
    events: events.map(({ kv }) => ({ revision: kv!.modRevision })),
    decodedEvents: () => events,
  };
}

export type Delivery =
  | { kind: "events"; watch: Watch; batch: DeliveredBatch }
  | { kind: "compacted"; watch: Watch; compactRevision: number }
  | { kind: "progress"; watchId: number; revision: number };

/** A sink that holds at most `capacity` responses until they are taken. */
export class BufferSink implements WatchSink {
  readonly buffer: Delivery[] = [];
  refusals = 0;
  largeCount = 0;
  acceptedCount = 0;
  #capacity: number;
  onTake: (delivery: Delivery) => void = () => {};

  constructor(capacity = Number.POSITIVE_INFINITY) {
    this.#capacity = capacity;
  }

  deliver(watch: Watch, batch: WatchBatch): boolean {
    return this.#accept({ kind: "events", watch, batch });
  }

  deliverLarge(watch: Watch, batch: LargeBatch): boolean {
    if (this.buffer.length >= this.#capacity) return this.#refuse();
    const read = readLarge(batch);
    this.largeCount++;
    return read.events.length === 0 || this.#accept({ kind: "events", watch, batch: read });
  }

  deliverCompacted(watch: Watch, compactRevision: number): boolean {
    return this.#accept({ kind: "compacted", watch, compactRevision });
  }

  deliverProgress(watchId: number, revision: number): boolean {
    return this.#accept({ kind: "progress", watchId, revision });
  }

  #accept(delivery: Delivery): boolean {
    if (this.buffer.length >= this.#capacity) return this.#refuse();
    this.buffer.push(delivery);
    this.acceptedCount++;
    return true;
  }

  #refuse(): false {
    this.refusals++;
    return false;
  }

  /** Empties the buffer and notifies the stream. */
  take(stream: WatchStream): Delivery[] {
    const taken = this.buffer.splice(0);
    for (const delivery of taken) this.onTake(delivery);
    stream.drained();
    return taken;
  }
}

/** A delivery as text: `id@headerRevision key=value@revision key=DELETED@revision`, `id compacted 5`, `id progress 7`. */
export function describeDelivery(delivery: Delivery): string {
  if (delivery.kind === "compacted") return `${delivery.watch.id} compacted ${delivery.compactRevision}`;
  if (delivery.kind === "progress") return `${delivery.watchId} progress ${delivery.revision}`;
  const events = delivery.batch.decodedEvents().map(({ type, kv, prevKv }) => {
    const key = Buffer.from(kv!.key).toString("latin1");
    const value = type === 1 ? "DELETED" : Buffer.from(kv!.value).toString("latin1");
    const previous = prevKv === undefined ? "" : `(was ${Buffer.from(prevKv.value).toString("latin1")})`;
    return `${key}=${value}@${kv!.modRevision}${previous}`;
  });
  return `${delivery.watch.id}@${delivery.batch.revision} ${events.join(" ")}`;
}
