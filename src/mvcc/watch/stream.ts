import { toByteString } from "../model/types.ts";
import { WATCH_ID_ALL, WatchError, type WatchRequest, type WatchSink } from "./types.ts";
import { variantBits } from "./variants.ts";
import { Watcher, type WatcherOutlet, watcherStates } from "./watcher-group.ts";

/** The part of the hub that a stream needs. */
export interface StreamOwner {
  readonly revision: number;
  add(watcher: Watcher): void;
  remove(watcher: Watcher): void;
  /** Revision up to which the watcher has received everything; undefined while unknown. */
  progressOf(watcher: Watcher): number;
  /** Continues progress notifications interrupted by a full stream or the end of a turn. */
  tellProgress(stream: WatchStream): void;
  /** The stream's sink has room again. */
  resume(stream: WatchStream): void;
  streamClosed(stream: WatchStream): void;
}

/**
 * The watchers of one client stream: their ids, and the sink for all their responses, in order. Created by
 * `WatchHub.newStream`; close it when the client is gone.
 */
export class WatchStream implements WatcherOutlet {
  readonly sink: WatchSink;
  full = false;
  readonly blocked = new Set<Watcher>();
  readonly #hub: StreamOwner;
  readonly #watchersMax: number;
  readonly #watchers = new Map<number, Watcher>();
  /** First id to try for a watcher without one. */
  #nextId = 0;
  #closed = false;
  /** Watchers that the progress timer's turn has not reached. */
  #untold: Iterator<Watcher, undefined> | undefined = undefined;
  /** The watcher whose notification the full stream refused. */
  #refused: Watcher | undefined = undefined;
  /** Remaining watchers of a closed stream. */
  #leaving: Iterator<Watcher, undefined> | undefined = undefined;

  constructor(hub: StreamOwner, sink: WatchSink, watchersMax: number) {
    this.#hub = hub;
    this.sink = sink;
    this.#watchersMax = watchersMax;
  }

  /** Current revision of the store, for the headers of responses without events. */
  get revision(): number {
    return this.#hub.revision;
  }

  get size(): number {
    return this.#watchers.size;
  }

  /**
   * Creates a watcher and returns its id. Delivery starts with the event loop's next turn or the next change, so write
   * the `created` response at once. Throws WatchError; check permissions first.
   */
  watch(request: WatchRequest): number {
    const { startRevision } = request;
    if (this.#closed) throw new WatchError("ERR_WATCH_STREAM_CLOSED", "mvcc: the WatchStream is closed");
    if (startRevision < 0) throw new WatchError("ERR_WATCH_NEGATIVE_REVISION", COMPACTED_TEXT);
    const key = request.key.length === 0 ? "\0" : toByteString(request.key);
    const end = endOf(request.rangeEnd);
    if (end !== null && end !== "" && key >= end) {
      throw new WatchError("ERR_WATCH_EMPTY_RANGE", "mvcc: watcher range is empty");
    }
    const id = this.#chooseId(request.watchId);
    const { fragment, progressNotify } = request;
    const watcher = new Watcher(this, {
      id,
      key,
      end,
      startRevision,
      variant: variantOf(request),
      fragment,
      progressNotify,
    });
    this.#watchers.set(id, watcher);
    this.#hub.add(watcher);
    return id;
  }

  /** Ends a watcher and frees its id. False when there is none; then the client gets no answer. */
  cancel(id: number): boolean {
    const watcher = this.#watchers.get(id);
    if (watcher === undefined) return false;
    this.#hub.remove(watcher);
    this.#watchers.delete(id);
    return true;
  }

  /** Sends a watcher's progress; nothing when it is unsynced. */
  requestProgress(id: number): void {
    const watcher = this.#watchers.get(id);
    if (watcher !== undefined) this.#tellProgress(id, this.#hub.progressOf(watcher));
  }

  /**
   * Answers WatchProgressRequest: one notification for all watchers of the stream, if none of them is unsynced,
   * compacted, or waiting for a future revision. Otherwise false, and the client must ask again.
   */
  requestProgressAll(): boolean {
    let revision = 0;
    for (const watcher of this.#watchers.values()) {
      revision = this.#hub.progressOf(watcher);
      if (revision === 0) return false;
    }
    this.#tellProgress(WATCH_ID_ALL, revision);
    return true;
  }

  /**
   * Call it once per progress interval: sends progress to the watchers that want it and had no event since the last
   * call. Many watchers take several turns; a full stream is waited for.
   */
  progressTick(): void {
    if (this.#closed || this.#untold !== undefined) return;
    this.#untold = this.#watchers.values();
    this.goOnTelling(TOLD_AT_ONCE);
    if (this.isTelling && !this.full) this.#hub.tellProgress(this);
  }

  /** Some watchers were not notified yet. */
  get isTelling(): boolean {
    return this.#untold !== undefined;
  }

  /** For the hub: checks at most this many more watchers. Returns how many. */
  goOnTelling(most: number): number {
    let count = 0;
    while (count < most && this.#untold !== undefined) {
      const watcher = this.#refused ?? this.#untold.next().value;
      this.#refused = undefined;
      count++;
      if (watcher === undefined) this.#untold = undefined;
      else if (watcher.progressNotify && watcher.state !== watcherStates.cancelled) {
        if (watcher.quiet && !this.#tellProgress(watcher.id, this.#hub.progressOf(watcher))) {
          this.#refused = watcher;
          break;
        }
        watcher.quiet = true;
      }
    }
    return count;
  }

  /** The sink accepts responses again after refusing one. */
  drained(): void {
    if (!this.full || this.#closed) return;
    this.full = false;
    this.#hub.resume(this);
  }

  /** Ends all watchers: no more responses. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.full = true;
    this.#untold = undefined;
    this.#refused = undefined;
    this.#leaving = this.#watchers.values();
    this.#hub.streamClosed(this);
  }

  /** For the hub: removes some watchers of a closed stream. Returns how many. */
  letGo(most: number): number {
    let count = 0;
    for (; count < most; count++) {
      const watcher = this.#leaving!.next().value;
      if (watcher === undefined) {
        this.#watchers.clear();
        break;
      }
      this.#hub.remove(watcher);
    }
    return count;
  }

  #chooseId(wanted: number): number {
    if (this.#watchers.size >= this.#watchersMax) {
      const text = `mvcc: a WatchStream cannot have more than ${this.#watchersMax} watchers: open another one`;
      throw new WatchError("ERR_WATCH_TOO_MANY", text);
    }
    if (wanted === 0) {
      while (this.#watchers.has(this.#nextId)) this.#nextId++;
      return this.#nextId++;
    }
    if (this.#watchers.has(wanted)) {
      throw new WatchError("ERR_WATCH_DUPLICATE_ID", "mvcc: duplicate watch ID provided on the WatchStream");
    }
    return wanted;
  }

  /** False when a notification was due and the stream is full. */
  #tellProgress(id: number, revision: number): boolean {
    if (revision > 0 && !this.full) this.full = !this.sink.deliverProgress(id, revision);
    return revision === 0 || !this.full;
  }
}

/** Watchers notified at once by the progress timer's turn. */
const TOLD_AT_ONCE = 512;

/** The cancel reason for a negative start revision. */
const COMPACTED_TEXT = "etcdserver: mvcc: required revision has been compacted";

const FILTER_NOPUT = 0;
const FILTER_NODELETE = 1;

function variantOf(request: WatchRequest): number {
  let variant = request.prevKv ? variantBits.prevKv : 0;
  for (const filter of request.filters) {
    if (filter === FILTER_NOPUT) variant |= variantBits.noPut;
    else if (filter === FILTER_NODELETE) variant |= variantBits.noDelete;
  }
  return variant;
}

/** Null for the single key, "" for no end. */
function endOf(rangeEnd: Uint8Array): string | null {
  if (rangeEnd.length === 0) return null;
  return rangeEnd.length === 1 && rangeEnd[0] === 0 ? "" : toByteString(rangeEnd);
}
