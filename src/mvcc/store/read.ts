import { InvariantError } from "../../base/fatal.ts";
import { KeyValue } from "../../proto/mvccpb.ts";
import type { RawSlot } from "../backend/backend.ts";
import { revisionInfo } from "../index/packed-revision.ts";
import {
  CompactedError,
  copyOf,
  type DecodedRangeResult,
  FutureRevisionError,
  type KeyVisitor,
  type RangeOptions,
  type RangeResult,
  type RawVisitor,
} from "../model/types.ts";
import type { StoreCore } from "./core.ts";

/**
 * Reads of the key space at a revision: the index finds the revisions, the backend reads their bytes. `latest` is the
 * newest revision visible to the reader: the current one or, inside a write transaction that has written, the next one.
 */
export function rangeAt(
  core: StoreCore,
  latest: number,
  key: Uint8Array,
  rangeEnd: Uint8Array | null,
  options: RangeOptions,
  visit: RawVisitor,
): RangeResult {
  if (rangeEnd !== null) return walk(core, latest, key, rangeEnd, options, (id) => emitRow(core, id, visit));
  const id = findOne(core, latest, key, options);
  if (id === 0) return { count: 0, visited: 0, revision: latest };
  if (options.countOnly) return { count: 1, visited: 0, revision: latest };
  emitRow(core, id, visit);
  return { count: 1, visited: 1, revision: latest };
}

/** Like rangeAt, but from the index only: no values, leases or backend. */
export function rangeKeysAt(
  core: StoreCore,
  latest: number,
  key: Uint8Array,
  rangeEnd: Uint8Array | null,
  options: RangeOptions,
  visit: KeyVisitor,
): RangeResult {
  const emit = (id: number): void => visit(core.index.locate(id), found.main, found.created, found.version);
  if (rangeEnd !== null) return walk(core, latest, key, rangeEnd, options, emit);
  const id = findOne(core, latest, key, options);
  if (id === 0) return { count: 0, visited: 0, revision: latest };
  if (options.countOnly) return { count: 1, visited: 0, revision: latest };
  emit(id);
  return { count: 1, visited: 1, revision: latest };
}

export function rangeDecodedAt(
  core: StoreCore,
  latest: number,
  key: Uint8Array,
  rangeEnd: Uint8Array | null,
  options: RangeOptions,
): DecodedRangeResult {
  const kvs: KeyValue[] = [];
  const { count, visited, revision } = rangeAt(core, latest, key, rangeEnd, options, (bytes, start, end) => {
    // The bytes belong to the store, and the decoded message holds views of its input.
    kvs.push(KeyValue.decode(copyOf(bytes, start, end)));
  });
  return { kvs, count, visited, revision };
}

const slot: RawSlot = { bytes: Buffer.alloc(0), start: 0, end: 0 };
/** The revision that `walk` or `findOne` found, for its callback. */
const found = revisionInfo();

function emitRow(core: StoreCore, id: number, visit: RawVisitor): void {
  if (!core.backend.getRevision(found.main, found.sub, slot)) {
    throw new InvariantError(
      `the backend lacks revision ${found.main}.${found.sub} of key ${JSON.stringify(core.index.key(id))}`,
    );
  }
  visit(slot.bytes, slot.start, slot.end);
}

/** The revision to read at. Throws when it is not readable. */
function checkedRevision(core: StoreCore, latest: number, options: RangeOptions): number {
  const at = options.revision <= 0 ? latest : options.revision;
  if (at > latest) throw new FutureRevisionError(latest);
  if (at < core.compactRevision) throw new CompactedError(core.compactRevision);
  return at;
}

/** The id of a key that exists at the revision, with `found` filled in; 0 when it does not. */
function findOne(core: StoreCore, latest: number, key: Uint8Array, options: RangeOptions): number {
  const at = checkedRevision(core, latest, options);
  const id = core.index.find(key);
  return id !== 0 && core.index.readAt(id, at, found) ? id : 0;
}

/** Finds the range's keys at the revision and calls `emit` for each, up to the limit, with `found` filled in. */
function walk(
  core: StoreCore,
  latest: number,
  key: Uint8Array,
  rangeEnd: Uint8Array,
  options: RangeOptions,
  emit: (id: number) => void,
): RangeResult {
  const at = checkedRevision(core, latest, options);
  const { index } = core;
  const end = rangeEnd.length === 1 && rangeEnd[0] === 0 ? null : rangeEnd;
  const limit = options.countOnly ? 0 : options.limit > 0 ? options.limit : Number.POSITIVE_INFINITY;
  // The index counts currently live keys; an older revision needs a check of every key.
  const countsLive = at === latest;
  const stopsAtLimit = countsLive || options.withoutCount === true;
  let count = 0;
  let visited = 0;
  if (!countsLive || limit > 0) {
    const visitor = (id: number): boolean => {
      if (!index.readAt(id, at, found)) return true;
      count++;
      if (visited < limit) {
        visited++;
        emit(id);
      }
      return visited < limit || !stopsAtLimit;
    };
    // The newest read sees exactly the live keys, unless an unfinished transaction has already changed them.
    if (countsLive && (!core.hasOpenChanges || latest > core.currentRevision)) {
      index.visitLive(key, end, visitor);
    } else index.visit(key, end, visitor);
  }
  if (countsLive && visited === limit && options.withoutCount !== true) {
    count = latest > core.currentRevision ? index.countLiveInside(key, end) : index.countLive(key, end);
  }
  return { count, visited, revision: latest };
}
