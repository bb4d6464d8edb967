import { varintSize, writeVarint } from "../../base/varint.ts";
import { Event, KeyValue } from "../../proto/mvccpb.ts";
import type { ByteString, Change } from "../model/types.ts";
import { variantBits } from "./variants.ts";

/**
 * Events for watchers. Both classes are shared by all watchers that get the same events, and cache their encoding: an
 * event is encoded once (or twice: with and without the previous key-value), regardless of the number of watchers.
 */

/** Finds the encoded KeyValue of a key at a revision; undefined when there was none or the revision is compacted. */
export type PrevKvLookup = (key: ByteString, revision: number) => Uint8Array | undefined;

/** One change of a key, ready to become an element of `WatchResponse.events`. */
export class WatchEvent {
  readonly key: ByteString;
  /** Mod revision. */
  readonly revision: number;
  readonly tombstone: boolean;
  /** Bytes of the stored KeyValue. */
  readonly byteCount: number;
  readonly #bytes: Uint8Array;
  readonly #start: number;
  readonly #end: number;
  readonly #lookup: PrevKvLookup;
  #plain: Buffer | undefined = undefined;
  #withPrev: Buffer | undefined = undefined;

  /** `bytes[start .. end)`, the encoded KeyValue, must not change while the event exists. */
  constructor(
    key: ByteString,
    revision: number,
    tombstone: boolean,
    bytes: Uint8Array,
    start: number,
    end: number,
    lookup: PrevKvLookup,
  ) {
    this.key = key;
    this.revision = revision;
    this.tombstone = tombstone;
    this.byteCount = end - start;
    this.#bytes = bytes;
    this.#start = start;
    this.#end = end;
    this.#lookup = lookup;
  }

  static fromChange(change: Change, lookup: PrevKvLookup): WatchEvent {
    const { key, main, tombstone, bytes, start, end } = change;
    return new WatchEvent(key, main, tombstone, bytes, start, end, lookup);
  }

  /**
   * The event as a field of WatchResponse: tag, length, mvccpb.Event. Shared: never change it. The first call with
   * `prevKv` reads the store.
   */
  encoded(prevKv: boolean): Buffer {
    if (!prevKv) return (this.#plain ??= this.#encode(undefined));
    if (this.#withPrev === undefined) {
      const previous = this.#isCreation() ? undefined : this.#lookup(this.key, this.revision - 1);
      this.#withPrev = previous === undefined ? this.encoded(false) : this.#encode(previous);
    }
    return this.#withPrev;
  }

  #isCreation(): boolean {
    if (this.tombstone) return false;
    return KeyValue.decode(this.#bytes, this.#start, this.#end).createRevision === this.revision;
  }

  #encode(previous: Uint8Array | undefined): Buffer {
    const { key, revision, tombstone } = this;
    // A stored tombstone has only the key; its event also has the revision.
    const kvSize = tombstone
      ? 1 + varintSize(key.length) + key.length + 1 + varintSize(revision)
      : this.#end - this.#start;
    const prevSize = previous === undefined ? 0 : 1 + varintSize(previous.length) + previous.length;
    const eventSize = (tombstone ? 2 : 0) + 1 + varintSize(kvSize) + kvSize + prevSize;
    const out = Buffer.allocUnsafe(1 + varintSize(eventSize) + eventSize);
    out[0] = TAG_EVENTS;
    let pos = writeVarint(out, 1, eventSize);
    if (tombstone) {
      out[pos++] = TAG_EVENT_TYPE;
      out[pos++] = 1;
    }
    out[pos++] = TAG_EVENT_KV;
    pos = writeVarint(out, pos, kvSize);
    if (tombstone) {
      out[pos++] = TAG_KV_KEY;
      pos = writeVarint(out, pos, key.length);
      pos += out.write(key, pos, "latin1");
      out[pos++] = TAG_KV_MOD_REVISION;
      pos = writeVarint(out, pos, revision);
    } else {
      out.set(this.#bytes.subarray(this.#start, this.#end), pos);
      pos += kvSize;
    }
    if (previous !== undefined) {
      out[pos++] = TAG_EVENT_PREV_KV;
      pos = writeVarint(out, pos, previous.length);
      out.set(previous, pos);
    }
    return out;
  }
}

/**
 * Previous values read at a time, a few microseconds each, and their bytes. One revision may exceed the first number,
 * up to the second.
 */
const PREVIOUS_READS_MAX = 512;
const PREVIOUS_READS_OF_ONE_MAX = 1024;
const PREVIOUS_BYTES_MAX = 1024 * 1024;

/**
 * Reads the previous values of the first events, as many as allowed, ending at a whole revision. Returns the number of
 * events.
 */
function readPrevious(events: readonly WatchEvent[]): number {
  let bytes = 0;
  let wholeCount = 0;
  for (let i = 0; i < events.length; i++) {
    if (i > 0 && events[i]!.revision !== events[i - 1]!.revision) wholeCount = i;
    const readsMax = wholeCount === 0 ? PREVIOUS_READS_OF_ONE_MAX : PREVIOUS_READS_MAX;
    if (i > 0 && (i >= readsMax || bytes >= PREVIOUS_BYTES_MAX)) return wholeCount;
    bytes += events[i]!.encoded(true).length;
  }
  return events.length;
}

const TAG_EVENTS = 0x5a;
const TAG_EVENT_TYPE = 0x08;
const TAG_EVENT_KV = 0x12;
const TAG_EVENT_PREV_KV = 0x1a;
const TAG_KV_KEY = 0x0a;
const TAG_KV_MOD_REVISION = 0x18;

/** The events that one or many watchers get in one response: at least one, ascending, each revision complete. */
export class WatchBatch {
  /** For the response header: the watcher has every event up to this revision in this or an earlier response. */
  readonly revision: number;
  readonly events: readonly WatchEvent[];
  readonly prevKv: boolean;
  #encoded: Buffer | undefined = undefined;

  /**
   * The last encoded response, reusable for the next watcher with the same id: most streams have one watcher, number 0.
   */
  lastWatchId = Number.NaN;
  lastTerm = 0;
  lastResponse: Buffer | undefined = undefined;

  constructor(revision: number, events: readonly WatchEvent[], prevKv: boolean) {
    this.revision = revision;
    this.events = events;
    this.prevKv = prevKv;
  }

  /**
   * The events that watchers of a variant get from `events`, ascending, all up to `revision`. Null when the filters
   * leave none. With previous values it may end earlier, at a whole revision, because these are read now (a compaction
   * must not remove them from under a queued batch); undefined when the first revision alone has too many.
   */
  static of(revision: number, events: readonly WatchEvent[], variant: number): WatchBatch | null | undefined {
    const noPut = (variant & variantBits.noPut) !== 0;
    const noDelete = (variant & variantBits.noDelete) !== 0;
    const wanted = noPut || noDelete ? events.filter((event) => !(event.tombstone ? noDelete : noPut)) : events;
    if (wanted.length === 0) return null;
    if ((variant & variantBits.prevKv) === 0) return new WatchBatch(revision, wanted, false);
    const count = readPrevious(wanted);
    if (count === wanted.length) return new WatchBatch(revision, wanted, true);
    return count === 0 ? undefined : new WatchBatch(wanted[count - 1]!.revision, wanted.slice(0, count), true);
  }

  /** Approximate bytes of all events. */
  get byteCount(): number {
    return this.encodedEvents().length;
  }

  /** All events as fields of WatchResponse. Shared: never change it. */
  encodedEvents(): Buffer {
    if (this.#encoded === undefined) {
      const { events, prevKv } = this;
      this.#encoded =
        events.length === 1 ? events[0]!.encoded(prevKv) : Buffer.concat(events.map((event) => event.encoded(prevKv)));
    }
    return this.#encoded;
  }

  /** The events as messages, for in-process listeners. */
  decodedEvents(): Event[] {
    return this.events.map((event) => {
      const field = event.encoded(this.prevKv);
      let start = 1;
      while (field[start]! >= 128) start++;
      return Event.decode(field, start + 1);
    });
  }
}
