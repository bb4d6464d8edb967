import { InvariantError } from "../../base/fatal.ts";
import type { RawSlot } from "../backend/backend.ts";
import { type KeyEntry, revisionInfo } from "../index/key-entry.ts";
import { type ByteString, CompactedError, FROM_KEY, toByteString } from "../model/types.ts";
import type { StoreCore } from "./core.ts";

/**
 * What a read sees: all revisions up to `main`, and of `main` itself the changes before number `sub`. With that a read
 * inside a transaction can be made after it has ended, and gives the same.
 */
export interface ReadPoint {
  readonly main: number;
  /** Infinity: all of `main`. */
  readonly sub: number;
}

/** Gets a key with the revision that the read sees of it. Returning false stops behind it. */
export type CursorVisitor = (
  key: ByteString,
  main: number,
  sub: number,
  createRevision: number,
  version: number,
) => boolean;

/**
 * A walk over the keys of a range at one point, ascending or descending, that goes on where it stopped: in a later turn, and
 * whatever was written or compacted meanwhile. Whoever uses it over more than one turn holds a pin at the point.
 */
export class RangeCursor {
  /** The last key of the range has been passed. */
  done = false;
  readonly #core: StoreCore;
  readonly #point: ReadPoint;
  readonly #descending: boolean;
  #start: ByteString;
  #end: ByteString | null;
  #epoch: number;

  /** `rangeEnd` as ReadView takes it, but never null. */
  constructor(core: StoreCore, point: ReadPoint, key: Uint8Array, rangeEnd: Uint8Array, descending: boolean) {
    this.#core = core;
    this.#point = point;
    this.#descending = descending;
    this.#start = toByteString(key);
    this.#end = rangeEnd === FROM_KEY || (rangeEnd.length === 1 && rangeEnd[0] === 0) ? null : toByteString(rangeEnd);
    this.#epoch = core.epoch;
  }

  /** Another cursor at the same place. */
  copy(): RangeCursor {
    const copy = new RangeCursor(this.#core, this.#point, NO_BYTES, FROM_KEY, this.#descending);
    copy.done = this.done;
    copy.#start = this.#start;
    copy.#end = this.#end;
    copy.#epoch = this.#epoch;
    return copy;
  }

  /**
   * Passes at most `entriesMax` keys, those that the read does not see included, and visits the others. Throws
   * CompactedError when another backend took the place of the one that had the revision, and lacks it. Returns how many it
   * has passed.
   */
  advance(entriesMax: number, visit: CursorVisitor): number {
    const { index } = this.#core;
    const { main, sub } = this.#point;
    if (this.#epoch !== this.#core.epoch) this.#checkBackend();
    let passed = 0;
    let last: ByteString | undefined;
    const visitor = (entry: KeyEntry): boolean => {
      last = entry.key;
      passed++;
      if (sub === Number.POSITIVE_INFINITY ? entry.readAt(main, found) : entry.readBefore(main, sub, found)) {
        if (!visit(last, found.main, found.sub, found.created, found.version)) return false;
      }
      return passed < entriesMax;
    };
    const stopped = this.#descending
      ? !index.visitDescending(this.#start, this.#end, visitor)
      : !index.visit(this.#start, this.#end, visitor);
    if (!stopped) this.done = true;
    else if (this.#descending) this.#end = last!;
    else this.#start = `${last!}\0`;
    return passed;
  }

  #checkBackend(): void {
    const { compactRevision, epoch } = this.#core;
    if (this.#point.main < compactRevision) throw new CompactedError(compactRevision);
    this.#epoch = epoch;
  }
}

/** Reads the stored KeyValue of a revision that a cursor found. The bytes are valid until the next read. */
export function readRow(core: StoreCore, main: number, sub: number, out: RawSlot): void {
  if (!core.backend.getRevision(main, sub, out)) {
    throw new InvariantError(`the backend lacks revision ${main}.${sub}, which the index has`);
  }
}

const found = revisionInfo();
const NO_BYTES = Buffer.alloc(0);
