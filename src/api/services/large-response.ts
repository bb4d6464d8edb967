import type { Clock } from "../../base/clock.ts";
import { spentOn } from "../../base/doing.ts";
import type { WatchResponseEncoder } from "../../mvcc/watch/encoding.ts";
import type { LargeBatch } from "../../mvcc/watch/types.ts";
import type { StreamCall } from "../../rpc/contract.ts";

/**
 * Writes the events of one large revision to one client, as it reads: in one response or, for a watcher with `fragment`
 * set, in several of at most the given size. Between two steps it holds only its position.
 */
export class LargeResponse {
  readonly #call: StreamCall;
  readonly #batch: LargeBatch;
  readonly #options: LargeResponseOptions;
  /** Next piece to write, and the first one after the current response. */
  #next = 0;
  #end = 0;

  constructor(call: StreamCall, batch: LargeBatch, options: LargeResponseOptions) {
    this.#call = call;
    this.#batch = batch;
    this.#options = options;
  }

  /**
   * Writes a little more. "wait": until the call drains. The client may be gone after any step; throws
   * LargeBatchGoneError when the revision is.
   */
  step(): "more" | "wait" | "done" {
    const batch = this.#batch;
    if (!batch.measure()) return "more";
    if (this.#next === batch.pieceCount) return "done";
    if (this.#next === this.#end) this.#begin();
    if (this.#call.cancelled) return "done";
    const more = this.#call.writePiece(batch.piece(this.#next++));
    if (this.#next === batch.pieceCount) batch.delivered();
    else if (!more) return "wait";
    return more ? "more" : "wait";
  }

  #begin(): void {
    const { encoder, watchId, term, fragmentBytesMax } = this.#options;
    const batch = this.#batch;
    let bytes = batch.pieceBytes(this.#next);
    let end = this.#next + 1;
    while (end < batch.pieceCount) {
      const added = batch.pieceBytes(end);
      if (bytes + added + PREFIX_BYTES_MAX >= fragmentBytesMax) break;
      bytes += added;
      end++;
    }
    this.#end = end;
    const prefix = encoder.encodePrefix(batch.revision, watchId, term, end < batch.pieceCount);
    this.#call.beginMessage(prefix.length + bytes);
    if (!this.#call.cancelled) this.#call.writePiece(prefix);
  }
}

export interface LargeResponseOptions {
  readonly encoder: WatchResponseEncoder;
  readonly watchId: number;
  readonly term: number;
  /** Infinity for one response. */
  readonly fragmentBytesMax: number;
}

/** Upper bound of header and watch id. */
const PREFIX_BYTES_MAX = 128;

/** Gives all large responses slices in turn, a few in each event loop turn. */
export class SliceQueue {
  readonly #clock: Clock;
  readonly #ready: (() => void)[] = [];
  #isScheduled = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  add(slice: () => void): void {
    this.#ready.push(slice);
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    this.#clock.defer(this.#run);
  }

  readonly #run = (): void => {
    const startMs = this.#clock.nowMs();
    for (const slice of this.#ready.splice(0, SLICES_PER_TURN)) slice();
    spentOn("a large revision for watchers", this.#clock.nowMs() - startMs);
    this.#isScheduled = this.#ready.length > 0;
    if (this.#isScheduled) this.#clock.defer(this.#run);
  };
}

/** Each reads a thousand rows, or writes 64 KiB. */
const SLICES_PER_TURN = 3;
