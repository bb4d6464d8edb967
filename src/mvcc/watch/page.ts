import { invariant } from "../../base/fatal.ts";
import { KeyValue } from "../../proto/mvccpb.ts";
import { type ByteString, type ChangeSource, toByteString } from "../model/types.ts";
import { type PrevKvLookup, WatchEvent } from "./batch.ts";
import type { WatcherGroup, WatcherSet } from "./watcher-group.ts";

/** Limits of one turn of catching up. */
export interface PageLimits {
  /** Watchers that get events; four times as many may join or leave the group catching up. */
  readonly watchersMax: number;
  /** Stored revisions read, of any key. */
  readonly entriesMax: number;
  /** Different revisions with matching events. */
  readonly revisionsMax: number;
  /** Bytes of events read, and of responses made. */
  readonly bytesMax: number;
  /** A revision with more rows, or more event bytes, is not kept in memory completely. */
  readonly largeRows: number;
  readonly largeBytes: number;
  /** Event bytes of a large revision kept for watchers that need few of them. */
  readonly keptBytesMax: number;
  /** Waiting watchers join a pass in steps of this many revisions. */
  readonly joinRevisions: number;
}

/** A turn takes a few milliseconds. Revisions: etcd's watchBatchMaxRevs. */
export const PAGE_LIMITS: PageLimits = {
  watchersMax: 512,
  entriesMax: 2048,
  revisionsMax: 1000,
  bytesMax: 256 * 1024,
  largeRows: 1024,
  largeBytes: 2 * 1024 * 1024,
  keptBytesMax: 16 * 1024 * 1024,
  joinRevisions: 1024,
};

/** Limit on the sets matched by the rows of a page. */
const MATCHES_MAX = 16_384;

export interface Page {
  /** Everything before this revision was read completely. The page was not begun if its first revision is `large`. */
  next: number;
  /** The revision to continue from has too many events to keep. */
  large: boolean;
}

/**
 * Reads the stored revisions from `from` up to, but excluding, `to` until a limit is reached. Adds events to the
 * group's matching sets, which are appended to `touched`. A revision is never split.
 */
export function readPage(
  store: ChangeSource,
  group: WatcherGroup,
  from: number,
  to: number,
  limits: PageLimits,
  lookup: PrevKvLookup,
  touched: WatcherSet[],
): Page {
  const page: Page = { next: to, large: false };
  const hits: WatcherSet[] = [];
  /** Matches of the current revision: they count when the revision is complete. */
  const pendingSets: WatcherSet[] = [];
  const pendingEvents: WatchEvent[] = [];
  let revision = 0;
  let rows = 0;
  let bytesOfRevision = 0;
  let entries = 0;
  let revisions = 0;
  let matches = 0;
  let byteCount = 0;
  const settle = (): void => {
    if (pendingSets.length === 0) return;
    for (let i = 0; i < pendingSets.length; i++) put(pendingSets[i]!, pendingEvents[i]!, touched);
    matches += pendingSets.length;
    byteCount += bytesOfRevision;
    revisions++;
    pendingSets.length = 0;
    pendingEvents.length = 0;
  };
  store.forEachRevision(from, to, 0, (main, _sub, tombstone, bytes, start, end) => {
    if (main !== revision) {
      invariant(
        main > revision && main >= from && main < to,
        "rows are read in the order of revisions",
        revision,
        main,
      );
      settle();
      if (
        entries >= limits.entriesMax ||
        revisions >= limits.revisionsMax ||
        byteCount >= limits.bytesMax ||
        matches >= MATCHES_MAX
      ) {
        page.next = main;
        return false;
      }
      revision = main;
      rows = 0;
      bytesOfRevision = 0;
    }
    entries++;
    rows++;
    const key = keyOf(bytes, start, end);
    group.match(key, hits);
    if (hits.length > 0) {
      bytesOfRevision += end - start;
      const own = Buffer.from(bytes.subarray(start, end));
      const event = new WatchEvent(key, main, tombstone, own, 0, own.length, lookup);
      for (const set of hits) {
        pendingSets.push(set);
        pendingEvents.push(event);
      }
      hits.length = 0;
    }
    if (
      rows <= limits.largeRows &&
      (rows === 1 || (bytesOfRevision <= limits.largeBytes && pendingSets.length <= MATCHES_MAX))
    ) {
      return true;
    }
    page.next = main;
    page.large = true;
    pendingSets.length = 0;
    return false;
  });
  settle();
  return page;
}

/** Adds an event to a set; records a set that had none. */
export function put(set: WatcherSet, event: WatchEvent, touched: WatcherSet[]): void {
  if (set.events !== undefined) set.events.push(event);
  else {
    set.events = [event];
    touched.push(set);
  }
}

const TAG_KEY = 0x0a;

/** The key of an encoded KeyValue: its first field, unless another program wrote it. */
export function keyOf(bytes: Uint8Array, start: number, end: number): ByteString {
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
