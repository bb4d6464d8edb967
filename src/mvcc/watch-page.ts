import { KeyValue } from "../proto/mvccpb.ts";
import { type ByteString, type ChangeSource, MvccInvariantError, toByteString } from "./types.ts";
import { type PrevKvLookup, WatchEvent } from "./watch-batch.ts";
import type { WatcherGroup, WatcherSet } from "./watcher-group.ts";

/** Bounds of one turn of catching up. A revision is never split, so one with many changes may go over them. */
export interface PageLimits {
  /** Watchers that share a page. */
  readonly watchersMax: number;
  /** Stored revisions that are read, of any key. */
  readonly entriesMax: number;
  /** Different revisions with events for someone. */
  readonly revisionsMax: number;
  /** Bytes of events. */
  readonly bytesMax: number;
}

/** Watchers and revisions: etcd's maxWatchersPerSync and watchBatchMaxRevs. A turn takes some milliseconds. */
export const PAGE_LIMITS: PageLimits = {
  watchersMax: 512,
  entriesMax: 4096,
  revisionsMax: 1000,
  bytesMax: 4 * 1024 * 1024,
};

/**
 * Reads the stored revisions from `from` to, but without, `to` until a limit is reached, and puts what the group watches on
 * its sets. Returns the revision to go on from: all before it were read completely.
 */
export function readPage(
  store: ChangeSource,
  group: WatcherGroup,
  from: number,
  to: number,
  limits: PageLimits,
  lookup: PrevKvLookup,
): number {
  const hits: WatcherSet[] = [];
  let next = to;
  let revision = 0;
  let hitRevision = 0;
  let entries = 0;
  let revisions = 0;
  let byteCount = 0;
  store.forEachRevision(from, to, (main, _sub, tombstone, bytes, start, end) => {
    if (main !== revision) {
      if (entries >= limits.entriesMax || revisions >= limits.revisionsMax || byteCount >= limits.bytesMax) {
        next = main;
        return false;
      }
      revision = main;
    }
    entries++;
    const key = keyOf(bytes, start, end);
    group.match(key, hits);
    if (hits.length === 0) return true;
    if (main !== hitRevision) {
      hitRevision = main;
      revisions++;
    }
    byteCount += end - start;
    const own = Buffer.from(bytes.subarray(start, end));
    const event = new WatchEvent(key, main, tombstone, own, 0, own.length, lookup);
    for (const set of hits) {
      if (set.events === undefined) set.events = [event];
      else set.events.push(event);
    }
    hits.length = 0;
    return true;
  });
  if (next <= from) throw new MvccInvariantError(`a page of revisions from ${from} ended at ${next}`);
  return next;
}

const TAG_KEY = 0x0a;

/** The key of an encoded KeyValue, which is its first field unless some other program wrote it. */
function keyOf(bytes: Uint8Array, start: number, end: number): ByteString {
  if (end - start < 2 || bytes[start] !== TAG_KEY) return toByteString(KeyValue.decode(bytes, start, end).key);
  let length = 0;
  let pos = start + 1;
  for (let shift = 0; shift < 28; shift += 7) {
    const byte = bytes[pos++]!;
    length |= (byte & 127) << shift;
    if (byte < 128) break;
  }
  return toByteString(bytes.subarray(pos, pos + length));
}
