/**
 * Answers of ranges, for serializable reads. Those of the present state are dropped when the proxy forwards a write to
 * one of their keys. Source: etcd v3.7, server/proxy/grpcproxy/cache.
 */

const ENTRIES_MAX = 2048;
/** Together, and of one answer: a list of everything would push out the rest. */
const BYTES_MAX = 64 * 1024 * 1024;
const ANSWER_BYTES_MAX = 1024 * 1024;

export interface CachedRange {
  readonly key: Uint8Array;
  /** As in a RangeRequest: empty for one key, a zero byte for all from `key` on. */
  readonly rangeEnd: Uint8Array;
  /** 0 for the present state. */
  readonly revision: number;
}

interface Entry extends CachedRange {
  readonly name: string;
  readonly answer: Uint8Array;
}

export class RangeCache {
  /** The least recently used first. */
  readonly #entries = new Map<string, Entry>();
  /** Entries of the present state: of one key by that key, and the others. */
  readonly #points = new Map<string, Set<Entry>>();
  readonly #ranges = new Set<Entry>();
  #bytes = 0;
  #compactRevision = 0;
  /** Counts writes, so that an answer that was on its way meanwhile is not kept. */
  #writes = 0;

  get size(): number {
    return this.#entries.size;
  }

  /** The state that an answer asked for now is of; for `add`. */
  get state(): number {
    return this.#writes;
  }

  /** `name` stands for the request and who may see its answer. */
  get(name: string): Uint8Array | undefined {
    const entry = this.#entries.get(name);
    if (entry === undefined) return undefined;
    this.#entries.delete(name);
    this.#entries.set(name, entry);
    return entry.answer;
  }

  isCompacted(revision: number): boolean {
    return revision > 0 && revision < this.#compactRevision;
  }

  /** Keeps a copy of an answer. `state` is that of the moment when it was asked for. */
  add(name: string, range: CachedRange, answer: Uint8Array, state: number): void {
    const isPresent = range.revision === 0;
    if (answer.length > ANSWER_BYTES_MAX || this.isCompacted(range.revision)) return;
    if (isPresent && state !== this.#writes) return;
    const before = this.#entries.get(name);
    if (before !== undefined) this.#drop(before);
    const { revision } = range;
    const entry = {
      name,
      key: Uint8Array.from(range.key),
      rangeEnd: Uint8Array.from(range.rangeEnd),
      revision,
      answer: Uint8Array.from(answer),
    };
    this.#entries.set(name, entry);
    this.#bytes += sizeOf(entry);
    if (isPresent) {
      if (entry.rangeEnd.length > 0) this.#ranges.add(entry);
      else this.#pointsOf(entry.key).add(entry);
    }
    for (const oldest of this.#entries.values()) {
      if (this.#entries.size <= ENTRIES_MAX && this.#bytes <= BYTES_MAX) break;
      this.#drop(oldest);
    }
  }

  /** A write to these keys was sent, or was answered: what is known of them is old. */
  invalidate(key: Uint8Array, rangeEnd: Uint8Array): void {
    this.#writes++;
    if (rangeEnd.length === 0) for (const entry of this.#points.get(nameOf(key)) ?? []) this.#drop(entry);
    else {
      for (const entries of this.#points.values()) {
        for (const entry of entries) if (overlaps(entry, key, rangeEnd)) this.#drop(entry);
      }
    }
    for (const entry of this.#ranges) if (overlaps(entry, key, rangeEnd)) this.#drop(entry);
  }

  compact(revision: number): void {
    this.#compactRevision = Math.max(this.#compactRevision, revision);
    for (const entry of this.#entries.values()) if (this.isCompacted(entry.revision)) this.#drop(entry);
  }

  #pointsOf(key: Uint8Array): Set<Entry> {
    const name = nameOf(key);
    let entries = this.#points.get(name);
    if (entries === undefined) this.#points.set(name, (entries = new Set()));
    return entries;
  }

  #drop(entry: Entry): void {
    this.#entries.delete(entry.name);
    this.#bytes -= sizeOf(entry);
    this.#ranges.delete(entry);
    const name = nameOf(entry.key);
    const points = this.#points.get(name);
    points?.delete(entry);
    if (points?.size === 0) this.#points.delete(name);
  }
}

const nameOf = (key: Uint8Array): string => Buffer.from(key.buffer, key.byteOffset, key.byteLength).toString("latin1");

const sizeOf = (entry: Entry): number => entry.name.length + 2 * entry.key.length + entry.answer.length;

/** Whether a write to `[key, rangeEnd)` may touch a cached range. */
function overlaps(cached: CachedRange, key: Uint8Array, rangeEnd: Uint8Array): boolean {
  return isBelowEnd(cached.key, key, rangeEnd) && isBelowEnd(key, cached.key, cached.rangeEnd);
}

/** Whether `key` comes before the end of the range that begins at `start`. */
function isBelowEnd(key: Uint8Array, start: Uint8Array, end: Uint8Array): boolean {
  if (end.length === 0) return Buffer.compare(key, start) <= 0;
  return (end.length === 1 && end[0] === 0) || Buffer.compare(key, end) < 0;
}
