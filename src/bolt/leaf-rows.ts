/**
 * The rows of one leaf page that is being filled from left to right, in columns: no object for each row, since there are
 * as many as there are changes. They refer to their original bytes until the page is written.
 */
import { ELEMENT_BYTES, LEAF_PAGE, PAGE_HEADER_BYTES, writePageHeader } from "./format.ts";
import { elementAt } from "./raw-page.ts";
import { copyBytes, type Entry, setU32 } from "./tree-node.ts";

export class LeafRows {
  readonly #bytes: Uint8Array[] = [];
  readonly #starts: number[] = [];
  readonly #keyEnds: number[] = [];
  readonly #ends: number[] = [];
  count = 0;
  /** Its size in the file. */
  sizeBytes = PAGE_HEADER_BYTES;

  /** Adds a row above all others: `bytes[start .. keyEnd)` is the key, followed by the value up to `end`. */
  push(bytes: Uint8Array, start: number, keyEnd: number, end: number): void {
    const at = this.count++;
    this.#bytes[at] = bytes;
    this.#starts[at] = start;
    this.#keyEnds[at] = keyEnd;
    this.#ends[at] = end;
    this.sizeBytes += ELEMENT_BYTES + end - start;
  }

  clear(): void {
    this.count = 0;
    this.sizeBytes = PAGE_HEADER_BYTES;
  }

  /** The row as an entry. */
  entry(index: number): Entry {
    const bytes = this.#bytes[index]!;
    const start = this.#starts[index]!;
    return {
      bytes,
      start,
      keyEnd: this.#keyEnds[index]!,
      end: this.#ends[index]!,
      flags: 0,
      child: 0,
      node: undefined,
    };
  }

  /** Writes the page, and zeros up to the end of its `span` pages. */
  write(out: Buffer, at: number, id: number, span: number, pageSize: number): void {
    const { count } = this;
    writePageHeader(out, at, id, LEAF_PAGE, count, span - 1);
    let data = elementAt(at, count);
    for (let i = 0; i < count; i++) {
      const element = elementAt(at, i);
      const start = this.#starts[i]!;
      const keyEnd = this.#keyEnds[i]!;
      const end = this.#ends[i]!;
      setU32(out, element, 0);
      setU32(out, element + 4, data - element);
      setU32(out, element + 8, keyEnd - start);
      setU32(out, element + 12, end - keyEnd);
      copyBytes(this.#bytes[i]!, start, end, out, data);
      data += end - start;
    }
    out.fill(0, data, at + span * pageSize);
  }
}
