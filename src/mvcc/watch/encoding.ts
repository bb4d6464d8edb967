import { varintSize, writeVarint } from "../../base/varint.ts";
import { WatchResponse } from "../../proto/etcdserverpb.ts";
import type { WatchBatch } from "./batch.ts";

/**
 * Encodes WatchResponse messages. Those with events are assembled around the events' shared encoding: a header of about
 * 30 bytes and one copy per watcher, and no copy for watchers with equal ids.
 */
export class WatchResponseEncoder {
  readonly #clusterId: bigint;
  readonly #memberId: bigint;
  /** The first two fields of every response header. */
  readonly #ids: Buffer;

  constructor(clusterId: bigint, memberId: bigint) {
    this.#clusterId = clusterId;
    this.#memberId = memberId;
    const ids: number[] = [];
    pushId(ids, TAG_HEADER_CLUSTER_ID, clusterId);
    pushId(ids, TAG_HEADER_MEMBER_ID, memberId);
    this.#ids = Buffer.from(ids);
  }

  /** One response with all events. May return the same buffer for several watchers: do not modify it. */
  encodeEvents(batch: WatchBatch, watchId: number, term: number): Buffer {
    if (batch.lastWatchId === watchId && batch.lastTerm === term) return batch.lastResponse!;
    const out = Buffer.allocUnsafe(this.eventsSize(batch, watchId, term));
    this.writeEvents(out, 0, batch, watchId, term);
    batch.lastWatchId = watchId;
    batch.lastTerm = term;
    batch.lastResponse = out;
    return out;
  }

  /** Length of the output of `writeEvents`. */
  eventsSize(batch: WatchBatch, watchId: number, term: number): number {
    return this.#prefixSize(batch.revision, watchId, term) + batch.encodedEvents().length;
  }

  /** The same as `encodeEvents`, written to `out` from `start`; returns the position after it. */
  writeEvents(out: Buffer, start: number, batch: WatchBatch, watchId: number, term: number): number {
    const events = batch.encodedEvents();
    const pos = this.#writePrefix(out, start, batch.revision, watchId, term);
    out.set(events, pos);
    return pos + events.length;
  }

  /**
   * Header and watch id, and the fragment flag if more fragments follow: the bytes before the encoded events when these
   * are written separately.
   */
  encodePrefix(revision: number, watchId: number, term: number, isFragment: boolean): Buffer {
    const flag = isFragment ? FRAGMENT_FIELD : NO_FIELD;
    const out = Buffer.allocUnsafe(this.#prefixSize(revision, watchId, term) + flag.length);
    out.set(flag, this.#writePrefix(out, 0, revision, watchId, term));
    return out;
  }

  /**
   * The responses for a watcher with `fragment` set: as many as needed to keep each below `bytesMax`, except that each
   * has at least one event; all but the last have `fragment` set. Source: sendFragments in etcd's api/v3rpc/watch.go.
   */
  forEachFragment(
    batch: WatchBatch,
    watchId: number,
    term: number,
    bytesMax: number,
    visit: (prefix: Buffer, events: Buffer) => void,
  ): void {
    const { events, prevKv, revision } = batch;
    const whole = batch.encodedEvents();
    const prefixSize = this.#prefixSize(revision, watchId, term);
    if (prefixSize + whole.length < bytesMax || events.length < 2) {
      visit(this.encodePrefix(revision, watchId, term, false), whole);
      return;
    }
    for (let first = 0, offset = 0; first < events.length; ) {
      let size = events[first]!.encoded(prevKv).length;
      let next = first + 1;
      while (next < events.length) {
        const added = events[next]!.encoded(prevKv).length;
        // The flag counts even in the last response, which does not carry it, as in etcd.
        if (prefixSize + FRAGMENT_FIELD.length + size + added >= bytesMax) break;
        size += added;
        next++;
      }
      const prefix = this.encodePrefix(revision, watchId, term, next < events.length);
      visit(prefix, whole.subarray(offset, offset + size));
      first = next;
      offset += size;
    }
  }

  /** The watcher's next revision is compacted: it is cancelled. */
  encodeCompacted(watchId: number, compactRevision: number, term: number): Buffer {
    return this.encodeControl(0, term, { watchId, compactRevision, canceled: true });
  }

  /** No events: everything up to `revision` was delivered. */
  encodeProgress(watchId: number, revision: number, term: number): Buffer {
    return this.encodePrefix(revision, watchId, term, false);
  }

  encodeCreated(watchId: number, revision: number, term: number): Buffer {
    return this.#encodeFlag(watchId, revision, term, TAG_CREATED);
  }

  encodeCanceled(watchId: number, revision: number, term: number): Buffer {
    return this.#encodeFlag(watchId, revision, term, TAG_CANCELED);
  }

  #encodeFlag(watchId: number, revision: number, term: number, tag: number): Buffer {
    const size = this.#prefixSize(revision, watchId, term);
    const out = Buffer.allocUnsafe(size + 2);
    this.#writePrefix(out, 0, revision, watchId, term);
    out[size] = tag;
    out[size + 1] = 1;
    return out;
  }

  /** Any response without events: created, cancelled. */
  encodeControl(revision: number, term: number, fields: Partial<WatchResponse>): Buffer {
    const header = { clusterId: this.#clusterId, memberId: this.#memberId, revision, raftTerm: term };
    return WatchResponse.encode(WatchResponse.create({ ...fields, header }));
  }

  /** Size of header and watch id, which come before all other fields. */
  #prefixSize(revision: number, watchId: number, term: number): number {
    return 2 + this.#headerSize(revision, term) + (watchId === 0 ? 0 : 1 + varintSize(watchId));
  }

  #headerSize(revision: number, term: number): number {
    return this.#ids.length + (revision === 0 ? 0 : 1 + varintSize(revision)) + (term === 0 ? 0 : 1 + varintSize(term));
  }

  #writePrefix(out: Buffer, start: number, revision: number, watchId: number, term: number): number {
    const ids = this.#ids;
    let pos = start;
    out[pos++] = TAG_HEADER;
    out[pos++] = this.#headerSize(revision, term);
    for (let i = 0; i < ids.length; i++) out[pos++] = ids[i]!;
    if (revision !== 0) {
      out[pos++] = TAG_HEADER_REVISION;
      pos = writeVarint(out, pos, revision);
    }
    if (term !== 0) {
      out[pos++] = TAG_HEADER_RAFT_TERM;
      pos = writeVarint(out, pos, term);
    }
    if (watchId !== 0) {
      out[pos++] = TAG_WATCH_ID;
      pos = writeVarint(out, pos, watchId);
    }
    return pos;
  }
}

const TAG_HEADER = 0x0a;
const TAG_HEADER_CLUSTER_ID = 0x08;
const TAG_HEADER_MEMBER_ID = 0x10;
const TAG_HEADER_REVISION = 0x18;
const TAG_HEADER_RAFT_TERM = 0x20;
const TAG_WATCH_ID = 0x10;
const TAG_CREATED = 0x18;
const TAG_CANCELED = 0x20;
const FRAGMENT_FIELD = Buffer.from([0x38, 1]);
const NO_FIELD = Buffer.alloc(0);

function pushId(out: number[], tag: number, id: bigint): void {
  if (id === 0n) return;
  out.push(tag);
  let rest = BigInt.asUintN(64, id);
  for (; rest >= 128n; rest >>= 7n) out.push(Number(rest & 127n) | 128);
  out.push(Number(rest));
}
