import { InvariantError } from "../../base/fatal.ts";
import type { RawSlot } from "../backend/backend.ts";
import { revisionInfo } from "../index/packed-revision.ts";
import { CompactedError, copyOf, FROM_KEY, type KeyInPlace, keyCopy } from "../model/types.ts";
import type { StoreCore } from "./core.ts";

/**
 * What a read sees: all revisions up to `main`, and of `main` itself the changes before number `sub`. So a read inside
 * a transaction can run after its end with the same result.
 */
export interface ReadPoint {
  readonly main: number;
  /** Infinity: all of `main`. */
  readonly sub: number;
}

/** Gets a key with the revision visible to the read. Returning false stops after it. */
export type CursorVisitor = (
  key: KeyInPlace,
  main: number,
  sub: number,
  createRevision: number,
  version: number,
) => boolean;

/**
 * A resumable walk over the keys of a range at one point, ascending or descending: it continues in a later turn,
 * whatever was written or compacted meanwhile. A walk of more than one turn needs a pin at the point.
 */
export class RangeCursor {
  /** The last key of the range was passed. */
  done = false;
  readonly #core: StoreCore;
  readonly #point: ReadPoint;
  readonly #descending: boolean;
  #start: Uint8Array;
  #end: Uint8Array | null;
  #epoch: number;

  /** `rangeEnd` as in ReadView, but never null. */
  constructor(core: StoreCore, point: ReadPoint, key: Uint8Array, rangeEnd: Uint8Array, descending: boolean) {
    this.#core = core;
    this.#point = point;
    this.#descending = descending;
    // They may be parts of a request, whose memory is used again.
    this.#start = copyOf(key, 0, key.length);
    const isOpen = rangeEnd === FROM_KEY || (rangeEnd.length === 1 && rangeEnd[0] === 0);
    this.#end = isOpen ? null : copyOf(rangeEnd, 0, rangeEnd.length);
    this.#epoch = core.epoch;
  }

  /** A second cursor at the same position. */
  copy(): RangeCursor {
    const copy = new RangeCursor(this.#core, this.#point, NO_BYTES, FROM_KEY, this.#descending);
    copy.done = this.done;
    copy.#start = this.#start;
    copy.#end = this.#end;
    copy.#epoch = this.#epoch;
    return copy;
  }

  /**
   * Passes at most `entriesMax` keys, including those that the read does not see, and visits the others. Throws
   * CompactedError when the backend was replaced by one without the revision. Returns how many keys it passed.
   */
  advance(entriesMax: number, visit: CursorVisitor): number {
    const { index } = this.#core;
    const { main, sub } = this.#point;
    if (this.#epoch !== this.#core.epoch) this.#checkBackend();
    let passed = 0;
    let last = 0;
    const visitor = (id: number): boolean => {
      last = id;
      passed++;
      const isSeen =
        sub === Number.POSITIVE_INFINITY ? index.readAt(id, main, found) : index.readBefore(id, main, sub, found);
      if (isSeen && !visit(index.locate(id), found.main, found.sub, found.created, found.version)) return false;
      return passed < entriesMax;
    };
    const stopped = this.#descending
      ? !index.visitDescending(this.#start, this.#end, visitor)
      : !index.visit(this.#start, this.#end, visitor);
    if (!stopped) this.done = true;
    else if (this.#descending) this.#end = keyCopy(index.locate(last));
    else this.#start = successorOf(index.locate(last));
    return passed;
  }

  #checkBackend(): void {
    const { compactRevision, epoch } = this.#core;
    if (this.#point.main < compactRevision) throw new CompactedError(compactRevision);
    this.#epoch = epoch;
  }
}

/** The smallest key above the key. */
export function successorOf({ bytes, keyStart, keyEnd }: KeyInPlace): Buffer {
  const successor = Buffer.alloc(keyEnd - keyStart + 1);
  successor.set(bytes.subarray(keyStart, keyEnd));
  return successor;
}

/** Reads the stored KeyValue of a revision found by a cursor. The bytes are valid until the next read. */
export function readRow(core: StoreCore, main: number, sub: number, out: RawSlot): void {
  if (!core.backend.getRevision(main, sub, out)) {
    throw new InvariantError(`the backend lacks revision ${main}.${sub}, which the index has`);
  }
}

const found = revisionInfo();
const NO_BYTES = Buffer.alloc(0);
