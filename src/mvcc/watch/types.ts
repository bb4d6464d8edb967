import { KvorumError } from "../../base/errors.ts";
import type { WatchBatch } from "./batch.ts";

/**
 * The interface between the watch hub and the carrier of its responses (a gRPC stream, an in-process listener). See
 * watch/hub.ts.
 */

/** A client's request: the fields of WatchCreateRequest, in its encoding. */
export interface WatchRequest {
  /** Empty means the smallest key, one zero byte. */
  readonly key: Uint8Array;
  /** Empty is the single key, one zero byte is every key from `key` on. */
  readonly rangeEnd: Uint8Array;
  /** First revision to deliver; 0 for new events only. */
  readonly startRevision: number;
  /** 0 lets the stream choose. */
  readonly watchId: number;
  /** WatchCreateRequest.FilterType; others are ignored. */
  readonly filters: readonly number[];
  readonly prevKv: boolean;
  readonly progressNotify: boolean;
  readonly fragment: boolean;
}

/** One watcher, as its sink sees it. */
export interface Watch {
  readonly id: number;
  readonly prevKv: boolean;
  readonly fragment: boolean;
}

/** The events of one revision that are too many to hold: they are read piece by piece, as the client takes them. */
export interface LargeBatch {
  readonly revision: number;
  /** Known once measured: 0 when the filters leave none. */
  readonly eventCount: number;
  /** Bytes of all events as fields of WatchResponse. */
  readonly byteCount: number;
  readonly pieceCount: number;
  pieceBytes(index: number): number;
  /** Examines some more rows. Call it until it returns true. Throws LargeBatchGoneError. */
  measure(): boolean;
  /** Complete encoded events. Do not modify them. Throws LargeBatchGoneError. */
  piece(index: number): Buffer;
  /** A client has received all of it. */
  delivered(): void;
}

/**
 * The revision was compacted during delivery. The receiver of this error ends the stream; its client reconnects with a
 * new one.
 */
export class LargeBatchGoneError extends KvorumError {
  override name = "LargeBatchGoneError";
  readonly code = "ERR_WATCH_BATCH_GONE";

  constructor(revision: number) {
    super(`revision ${revision} was compacted while a watcher received it: watch again`);
  }
}

/**
 * Receives the responses of one stream in delivery order.
 *
 * Every method returns whether the response was accepted. False means that the stream's buffer is full: nothing was
 * accepted, and nothing more is offered until the owner calls `WatchStream.drained()`. An empty buffer must accept any
 * response, however large. No method may call back into the hub or throw.
 */
export interface WatchSink {
  /** Events for one watcher. The batch is shared between watchers: do not modify it. */
  deliver(watch: Watch, batch: WatchBatch): boolean;
  /**
   * The events of one revision, for one watcher, that are too many to hold. An accepted batch occupies the sink until
   * its last piece is delivered: nothing more is offered before its owner calls `WatchStream.drained()`, even when the
   * stream is closed.
   */
  deliverLarge(watch: Watch, batch: LargeBatch): boolean;
  /** The watcher is cancelled because its next revision is compacted. The header of this response has revision 0. */
  deliverCompacted(watch: Watch, compactRevision: number): boolean;
  /** All events up to `revision` were delivered; `watchId` is WATCH_ID_ALL when that holds for the whole stream. */
  deliverProgress(watchId: number, revision: number): boolean;
}

/** Watch id of a progress notification for all watchers of a stream, and of responses to watches that were never created. */
export const WATCH_ID_ALL = -1;

export type WatchErrorCode =
  | "ERR_WATCH_EMPTY_RANGE"
  | "ERR_WATCH_DUPLICATE_ID"
  | "ERR_WATCH_NEGATIVE_REVISION"
  | "ERR_WATCH_TOO_MANY"
  | "ERR_WATCH_STREAM_CLOSED";

/**
 * The watch was not created: answer with `created` and `canceled` set, id WATCH_ID_ALL and the message as the reason.
 * The messages are etcd's where they exist.
 */
export class WatchError extends KvorumError {
  override name = "WatchError";
  readonly code: WatchErrorCode;

  constructor(code: WatchErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}
