/** What watchers see. */
import { KvorumError } from "../base/errors.ts";
import { EMPTY_BYTES } from "../base/protobuf.ts";
import { type Event, Event_EventType } from "../proto/mvccpb.ts";
import type { KeyValue, Space } from "./keys.ts";

/** A key was written. */
export interface PutEvent<V, K> {
  readonly type: "put";
  readonly key: K;
  readonly kv: KeyValue<V, K>;
  /** The pair before, when it was asked for and is not compacted. */
  readonly previous: KeyValue<V, K> | undefined;
  /** The key did not exist before. */
  readonly isCreate: boolean;
  readonly revision: number;
}

/** A key was deleted, also by the end of its lease. */
export interface DeleteEvent<V, K> {
  readonly type: "delete";
  readonly key: K;
  readonly previous: KeyValue<V, K> | undefined;
  readonly revision: number;
}

/** What happened to a key. */
export type WatchEvent<V, K> = PutEvent<V, K> | DeleteEvent<V, K>;

/** What arrived together: all events of one or more revisions, or none. */
export interface WatchBatch<V, K> {
  readonly events: readonly WatchEvent<V, K>[];
  /** All events up to this revision have been seen. */
  readonly revision: number;
  /**
   * True once: everything that had happened when the watch was created has now been seen. Members before etcd 3.4.25 and
   * 3.5.8 may say so too early.
   */
  readonly caughtUp: boolean;
}

/** The events that a watch should continue with are compacted: list the keys again and watch from there. */
export class WatchCompactedError extends KvorumError {
  override name = "WatchCompactedError";
  readonly code = "ERR_WATCH_COMPACTED";
  /** The oldest revision that can be watched. */
  readonly compactRevision: number;
  /** The first revision whose events were not seen. */
  readonly nextRevision: number;

  constructor(compactRevision: number, nextRevision: number) {
    super(`the events from revision ${nextRevision} on are compacted: the oldest there is are of ${compactRevision}`);
    this.compactRevision = compactRevision;
    this.nextRevision = nextRevision;
  }
}

export function watchEvent<V, K>(space: Space<V, K>, event: Event): WatchEvent<V, K> {
  const { kv, prevKv } = event;
  const previous = prevKv === undefined ? undefined : space.keyValue(prevKv);
  const revision = kv?.modRevision ?? 0;
  if (event.type === Event_EventType.DELETE || kv === undefined) {
    return { type: "delete", key: space.keyOf(kv?.key ?? EMPTY_BYTES), previous, revision };
  }
  const pair = space.keyValue(kv);
  return { type: "put", key: pair.key, kv: pair, previous, isCreate: kv.version === 1, revision };
}

/** Bytes that an event holds, about. */
export function sizeOf({ kv, prevKv }: Event): number {
  const of = (pair: Event["kv"]) => (pair === undefined ? 0 : pair.key.length + pair.value.length);
  return EVENT_OVERHEAD + of(kv) + of(prevKv);
}

const EVENT_OVERHEAD = 200;
