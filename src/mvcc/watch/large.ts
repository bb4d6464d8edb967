import { type ByteString, type ChangeSource, copyOf } from "../model/types.ts";
import { type PrevKvLookup, WatchEvent } from "./batch.ts";
import { keyOf } from "./page.ts";
import { type LargeBatch, LargeBatchGoneError } from "./types.ts";
import { variantBits } from "./variants.ts";
import type { Watcher } from "./watcher-group.ts";

/** The dependencies of large batches. */
export interface LargeContext {
  readonly store: ChangeSource;
  readonly lookup: PrevKvLookup;
  readonly onDelivered: (eventCount: number) => void;
}

/**
 * The events of one revision for watchers of one range, when they are too many to hold, for example after deleting
 * everything. A client must get them in one response, whose length comes first; so they are read twice, once to measure
 * them and once, piece by piece, as the client takes them. Only the positions of the pieces are kept, and the last few
 * pieces, for other watchers reading the same.
 */
export class StoredBatch implements LargeBatch {
  readonly revision: number;
  /** Known once measured: 0 when the filters leave none. */
  eventCount = 0;
  /** Bytes of all events as fields of WatchResponse. */
  byteCount = 0;
  readonly #context: LargeContext;
  readonly #key: ByteString;
  readonly #end: ByteString | null;
  readonly #variant: number;
  readonly #compactRevision: number;
  readonly #pieces: Piece[] = [];
  /** The pieces read last, by number. */
  readonly #recent = new Map<number, Buffer>();
  #nextSub = 0;
  #measured = false;

  static of({ key, end, variant }: Watcher, revision: number, context: LargeContext): StoredBatch {
    return new StoredBatch(key, end, variant, revision, context);
  }

  private constructor(
    key: ByteString,
    end: ByteString | null,
    variant: number,
    revision: number,
    context: LargeContext,
  ) {
    this.revision = revision;
    this.#key = key;
    this.#end = end;
    this.#variant = variant;
    this.#context = context;
    this.#compactRevision = context.store.compactRevision;
  }

  get pieceCount(): number {
    return this.#pieces.length;
  }

  pieceBytes(index: number): number {
    return this.#pieces[index]!.bytes;
  }

  /** Examines some more rows. Call it until it returns true. Throws LargeBatchGoneError. */
  measure(): boolean {
    if (this.#measured) return true;
    const { events, subs, nextSub } = this.#read(this.#nextSub, Number.POSITIVE_INFINITY);
    let piece = this.#pieces.at(-1);
    for (let i = 0; i < events.length; i++) {
      const bytes = events[i]!.encoded(this.#prevKv).length;
      if (piece === undefined || piece.bytes + bytes > PIECE_BYTES || piece.events >= PIECE_EVENTS_MAX) {
        this.#pieces.push((piece = { fromSub: subs[i]!, events: 0, bytes: 0 }));
      }
      piece.events++;
      piece.bytes += bytes;
      this.byteCount += bytes;
    }
    this.eventCount += events.length;
    this.#nextSub = nextSub;
    this.#measured = nextSub === Number.POSITIVE_INFINITY;
    return this.#measured;
  }

  /** Complete encoded events. Do not modify them. Throws LargeBatchGoneError. */
  piece(index: number): Buffer {
    const known = this.#recent.get(index);
    if (known !== undefined) return known;
    const { fromSub, events: count, bytes } = this.#pieces[index]!;
    const events: WatchEvent[] = [];
    for (let sub = fromSub; events.length < count; ) {
      const found = this.#read(sub, count - events.length);
      events.push(...found.events);
      sub = found.nextSub;
      if (sub === Number.POSITIVE_INFINITY) break;
    }
    const piece = Buffer.concat(events.map((event) => event.encoded(this.#prevKv)));
    if (events.length !== count || piece.length !== bytes) throw new LargeBatchGoneError(this.revision);
    this.#recent.set(index, piece);
    if (this.#recent.size > RECENT_PIECES) this.#recent.delete(this.#recent.keys().next().value!);
    return piece;
  }

  /** A client has received all of it. */
  delivered(): void {
    this.#context.onDelivered(this.eventCount);
  }

  get #prevKv(): boolean {
    return (this.#variant & variantBits.prevKv) !== 0;
  }

  /**
   * Reads a bounded number of rows. Their bytes are copied, and previous values are read only after all rows: the store
   * lends one buffer for both. `nextSub` is Infinity at the end of the revision.
   */
  #read(fromSub: number, eventsMax: number): { events: WatchEvent[]; subs: number[]; nextSub: number } {
    const { store, lookup } = this.#context;
    this.#checkThere(store);
    const revision = this.revision;
    const events: WatchEvent[] = [];
    const subs: number[] = [];
    const most = Math.min(eventsMax, this.#prevKv ? PREVIOUS_READS_PER_STEP : ROWS_PER_STEP);
    let nextSub = Number.POSITIVE_INFINITY;
    let rows = 0;
    let byteCount = 0;
    store.forEachRevision(revision, revision + 1, fromSub, (_main, sub, tombstone, bytes, start, end) => {
      const key = this.#wantedKey(tombstone, bytes, start, end);
      if (key !== null) {
        const own = copyOf(bytes, start, end);
        events.push(new WatchEvent(key, revision, tombstone, own, 0, own.length, lookup));
        subs.push(sub);
        byteCount += own.length;
      }
      if (++rows < ROWS_PER_STEP && events.length < most && byteCount < BYTES_PER_STEP) return true;
      nextSub = sub + 1;
      return false;
    });
    return { events, subs, nextSub };
  }

  /** Null when the row does not match these watchers. */
  #wantedKey(tombstone: boolean, bytes: Uint8Array, start: number, end: number): ByteString | null {
    if ((this.#variant & (tombstone ? variantBits.noDelete : variantBits.noPut)) !== 0) return null;
    const key = keyOf(bytes, start, end);
    if (this.#end === null) return key === this.#key ? key : null;
    return key >= this.#key && (this.#end === "" || key < this.#end) ? key : null;
  }

  /** A compaction removes rows and previous values: the measurement is then invalid. */
  #checkThere(store: ChangeSource): void {
    const { compactRevision } = store;
    if (compactRevision !== this.#compactRevision && compactRevision >= this.revision) {
      throw new LargeBatchGoneError(this.revision);
    }
  }
}

interface Piece {
  readonly fromSub: number;
  events: number;
  bytes: number;
}

/** A single event may be larger. */
const PIECE_BYTES = 64 * 1024;
const PIECE_EVENTS_MAX = 256;
const RECENT_PIECES = 8;
const ROWS_PER_STEP = 1024;
const PREVIOUS_READS_PER_STEP = 256;
const BYTES_PER_STEP = 512 * 1024;
