import { Writer } from "../base/protobuf.ts";

const CRLF = Buffer.from("\r\n");

/** Writes one chunk of HTTP/1.1's chunked coding, back to front like the Writer below it, into one buffer. */
export class ChunkWriter extends Writer {
  readonly #scratch = Buffer.alloc(20);

  begin(): void {
    this.reset();
    this.raw(CRLF);
  }

  /** The chunk, its size line before what was written since `begin`. */
  override finish(): Buffer {
    const size = `${(this.length - CRLF.length).toString(16)}\r\n`;
    this.raw(this.#scratch.subarray(0, this.#scratch.write(size, "latin1")));
    return super.finish();
  }

  /** Eight bytes, big-endian. */
  uint64BE(value: number): void {
    this.#scratch.writeUInt32BE(Math.floor(value / 2 ** 32), 0);
    this.#scratch.writeUInt32BE(value % 2 ** 32, 4);
    this.raw(this.#scratch.subarray(0, 8));
  }
}
