import { BUCKET_ELEMENT } from "../../bolt/format.ts";
import {
  branchKeyStart,
  countOf,
  elementAt,
  leafFlags,
  leafKeyBytes,
  leafKeyStart,
  leafValueBytes,
} from "../../bolt/raw-page.ts";
import type { BucketRoot, StateReader } from "../../bolt/state-reader.ts";
import { isRevision, isTombstone, mainOf, REVISION_BYTES, subOf } from "../model/revision.ts";
import type { RevisionVisitor } from "../model/types.ts";
import type { RawSlot } from "./backend.ts";

/** The bucket of rows in one state of a bbolt file, addressed by numbers: keys are compared in place. */
export class FileRows {
  readonly #state: StateReader;
  readonly #root: BucketRoot | undefined;

  constructor(state: StateReader) {
    this.#state = state;
    this.#root = state.bucket("key");
  }

  /** Reads a row that is not a tombstone; the bytes are valid until the next call. Throws BoltError. */
  get(main: number, sub: number, out: RawSlot): boolean {
    const root = this.#root;
    if (root === undefined) return false;
    setTarget(main, sub);
    const { inline } = root;
    if (inline !== undefined) return found(inline, 0, countOf(inline, 0), out);
    const frame = this.#state.leafFor(root, seekRow);
    return found(frame.bytes, frame.at, frame.count, out);
  }

  /**
   * Visits from (fromMain, fromSub) up to, but excluding, (toMain, toSub). False when the visitor stopped it. Throws
   * BoltError.
   */
  forEach(fromMain: number, fromSub: number, toMain: number, toSub: number, visit: RevisionVisitor): boolean {
    if (this.#root === undefined) return true;
    let isStopped = false;
    const seek = (bytes: Uint8Array, at: number, count: number, isLeaf: boolean): number => {
      setTarget(fromMain, fromSub);
      return seekRow(bytes, at, count, isLeaf);
    };
    this.#state.forEachLeaf(this.#root, seek, (bytes, at, from, count, page) => {
      for (let i = from; i < count; i++) {
        const element = elementAt(at, i);
        if (leafFlags(bytes, element) & BUCKET_ELEMENT) continue;
        const start = leafKeyStart(bytes, element);
        const keyEnd = start + leafKeyBytes(bytes, element);
        if (!isRevision(bytes, start, keyEnd)) {
          const key = bytes.toString("hex", start, keyEnd);
          this.#state.damaged(page, `holds a key that is not a revision: ${key}`, "key");
        }
        const main = mainOf(bytes, start, keyEnd);
        const sub = subOf(bytes, start);
        if (main > toMain || (main === toMain && sub >= toSub)) return false;
        const end = keyEnd + leafValueBytes(bytes, element);
        if (visit(main, sub, isTombstone(bytes, start, keyEnd), bytes, keyEnd, end)) continue;
        isStopped = true;
        return false;
      }
      return true;
    });
    return !isStopped;
  }
}

const TWO_32 = 2 ** 32;
/** The target, in halves: a closure for every lookup would cost more than the lookup. */
let mainHigh = 0;
let mainLow = 0;
let subHigh = 0;
let subLow = 0;

function setTarget(main: number, sub: number): void {
  mainHigh = Math.floor(main / TWO_32);
  mainLow = main % TWO_32;
  subHigh = Math.floor(sub / TWO_32);
  subLow = sub % TWO_32;
}

/** The first element of a leaf at or above the target, or the child of a branch that contains it. */
function seekRow(bytes: Uint8Array, at: number, count: number, isLeaf: boolean): number {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const element = elementAt(at, middle);
    const order = compareTarget(bytes, isLeaf ? leafKeyStart(bytes, element) : branchKeyStart(bytes, element));
    if (isLeaf ? order < 0 : order <= 0) low = middle + 1;
    else high = middle;
  }
  return isLeaf ? low : Math.max(0, low - 1);
}

/** Order of the revision at `at` and the target. */
function compareTarget(bytes: Uint8Array, at: number): number {
  return (
    u32(bytes, at) - mainHigh ||
    u32(bytes, at + 4) - mainLow ||
    u32(bytes, at + 9) - subHigh ||
    u32(bytes, at + 13) - subLow
  );
}

function u32(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}

function found(bytes: Uint8Array, at: number, count: number, out: RawSlot): boolean {
  const index = seekRow(bytes, at, count, true);
  if (index >= count) return false;
  const element = elementAt(at, index);
  const start = leafKeyStart(bytes, element);
  if (leafKeyBytes(bytes, element) !== REVISION_BYTES || compareTarget(bytes, start) !== 0) return false;
  out.bytes = bytes;
  out.start = start + REVISION_BYTES;
  out.end = out.start + leafValueBytes(bytes, element);
  return true;
}
