/**
 * The keys that a leasing proxy holds: nobody writes them without asking it first, so what it knows of them is the present
 * state. Knows nothing of the cluster: what it drops for want of room is told to `onDropped`.
 */
import type { RangeRequest, RangeResponse, ResponseHeader } from "../../../proto/etcdserverpb.ts";
import type { KeyValue } from "../../../proto/mvccpb.ts";

const KEYS_MAX = 100_000;
const BYTES_MAX = 64 * 1024 * 1024;
/** A larger pair is read from the cluster each time. */
export const PAIR_BYTES_MAX = 1024 * 1024;
/** A key that was given up is left to others for so long. Source: etcd's revokeBackoff. */
const BACKOFF_MS = 2000;
const GIVEN_UP_MAX = 100_000;

export interface Held {
  readonly name: string;
  /** At which the leasing key was created: a write that is guarded by it fails when the key is held again. */
  readonly heldSince: number;
  /** Of the newest state. */
  header: ResponseHeader;
  /** Undefined: there is no such key. */
  pair: KeyValue | undefined;
  /** Writes of this proxy in progress: until they are answered nobody knows the present state. */
  writers: number;
}

export interface LeasingCacheLimits {
  readonly keysMax: number;
  readonly bytesMax: number;
}

export class LeasingCache {
  readonly #nowMs: () => number;
  readonly #onDropped: (held: Held) => void;
  readonly #limits: LeasingCacheLimits;
  /** The least recently read first. */
  readonly #held = new Map<string, Held>();
  #bytes = 0;
  /** By key: until when it is left to others, and the revision at which that was asked for. */
  readonly #givenUp = new Map<string, { readonly untilMs: number; readonly revision: number }>();

  /** `onDropped`: the key is still held in the cluster, and must be given up there. */
  constructor(
    nowMs: () => number,
    onDropped: (held: Held) => void,
    limits = { keysMax: KEYS_MAX, bytesMax: BYTES_MAX },
  ) {
    this.#nowMs = nowMs;
    this.#onDropped = onDropped;
    this.#limits = limits;
  }

  get size(): number {
    return this.#held.size;
  }

  get(name: string): Held | undefined {
    return this.#held.get(name);
  }

  /** What a read of a held key gives; undefined when the cluster has to be asked. */
  read(name: string, request: RangeRequest): RangeResponse | undefined {
    const held = this.#held.get(name);
    if (held === undefined || held.writers > 0) return undefined;
    this.#held.delete(name);
    this.#held.set(name, held);
    return responseOf(held, request);
  }

  mayAcquire(name: string): boolean {
    const given = this.#givenUp.get(name);
    if (given === undefined) return true;
    if (this.#nowMs() < given.untilMs) return false;
    this.#givenUp.delete(name);
    return true;
  }

  /** False when others have asked for the key meanwhile: it is given up already. */
  add(name: string, header: ResponseHeader, pair: KeyValue | undefined): boolean {
    const given = this.#givenUp.get(name);
    if (given !== undefined && given.revision > header.revision) return false;
    this.#remove(name);
    const held = { name, heldSince: header.revision, header, pair: pair && copyOf(pair), writers: 0 };
    this.#held.set(name, held);
    this.#bytes += sizeOf(held);
    for (const oldest of this.#held.values()) {
      if (this.#held.size <= this.#limits.keysMax && this.#bytes <= this.#limits.bytesMax) break;
      this.drop(oldest);
    }
    return true;
  }

  /** This proxy has written the key. What it cannot tell the state of is dropped. */
  wrote(held: Held, header: ResponseHeader, change: (pair: KeyValue | undefined) => KeyValue | undefined): void {
    if (this.#held.get(held.name) !== held) return;
    const pair = change(held.pair);
    // A deletion that found nothing.
    if (header.revision === held.header.revision && pair === undefined && held.pair === undefined) return;
    // Answers may come in another order than the writes were made in.
    if (header.revision <= held.header.revision) return this.drop(held);
    this.#bytes -= sizeOf(held);
    held.pair = pair;
    held.header = header;
    this.#bytes += sizeOf(held);
    if (sizeOf(held) > PAIR_BYTES_MAX) this.drop(held);
  }

  /** Forgets a key that is to be given up in the cluster too. */
  drop(held: Held): void {
    if (this.#held.get(held.name) !== held) return;
    this.#remove(held.name);
    this.#onDropped(held);
  }

  /** Others have asked for the key, at this revision. */
  giveUp(name: string, revision: number): void {
    this.#remove(name);
    this.#givenUp.delete(name);
    this.#givenUp.set(name, { untilMs: this.#nowMs() + BACKOFF_MS, revision });
    for (const [oldest, { untilMs }] of this.#givenUp) {
      if (this.#givenUp.size <= GIVEN_UP_MAX && untilMs > this.#nowMs()) break;
      this.#givenUp.delete(oldest);
    }
  }

  /** The leasing key is gone, at this revision. */
  lost(name: string, revision: number): void {
    const held = this.#held.get(name);
    if (held !== undefined && held.heldSince < revision) this.#remove(name);
  }

  /** Held keys between two, in the form of a request: `end` empty for one key, a zero byte for all behind it. */
  *within(begin: string, end: string): Iterable<Held> {
    if (end === "") {
      const held = this.#held.get(begin);
      if (held !== undefined) yield held;
      return;
    }
    for (const held of this.#held.values()) if (held.name >= begin && (end === "\0" || held.name < end)) yield held;
  }

  clear(): void {
    this.#held.clear();
    this.#bytes = 0;
  }

  #remove(name: string): void {
    const held = this.#held.get(name);
    if (held === undefined) return;
    this.#held.delete(name);
    this.#bytes -= sizeOf(held);
  }
}

/** Strings with one character a byte. */
export const nameOf = (key: Uint8Array): string =>
  Buffer.from(key.buffer, key.byteOffset, key.byteLength).toString("latin1");

function responseOf({ header, pair }: Held, request: RangeRequest): RangeResponse {
  const { countOnly, keysOnly } = request;
  const isShown = pair !== undefined && !countOnly && isWanted(pair, request);
  const kvs = isShown ? [keysOnly ? { ...pair, value: NO_BYTES } : pair] : [];
  return { header, kvs, more: false, count: pair === undefined ? 0 : 1 };
}

function isWanted({ modRevision, createRevision }: KeyValue, request: RangeRequest): boolean {
  const { minModRevision, maxModRevision, minCreateRevision, maxCreateRevision } = request;
  if (modRevision < minModRevision || (maxModRevision !== 0 && modRevision > maxModRevision)) return false;
  return createRevision >= minCreateRevision && (maxCreateRevision === 0 || createRevision <= maxCreateRevision);
}

const NO_BYTES = new Uint8Array();

/** What was received may be part of something larger. */
const copyOf = (pair: KeyValue): KeyValue => ({
  ...pair,
  key: Uint8Array.from(pair.key),
  value: Uint8Array.from(pair.value),
});

const sizeOf = ({ name, pair }: Held): number =>
  name.length + (pair === undefined ? 0 : name.length + pair.value.length);
