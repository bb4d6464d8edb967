import { Writer } from "../base/protobuf.ts";

const CRLF = Buffer.from("\r\n");
/** From this size on, bytes are sent by reference: another piece in a write costs less than a copy. */
const OWN_PIECE_BYTES_MIN = 32 * 1024;

/** Writes one chunk of HTTP/1.1's chunked encoding, back to front like its base Writer. */
export class ChunkWriter extends Writer {
  readonly #eight = Buffer.alloc(8);
  /** The pieces after the current one, last first. */
  #pieces: Uint8Array[] = [];
  #piecesBytes = 0;

  begin(): void {
    this.reset();
    this.raw(CRLF);
  }

  /** The chunk as pieces to send in order: the size line, then what was written since `begin`. */
  end(): Uint8Array[] {
    this.raw(Buffer.from(`${(this.length - CRLF.length).toString(16)}\r\n`, "latin1"));
    this.#cut();
    const pieces = this.#pieces.reverse();
    this.#pieces = [];
    this.#piecesBytes = 0;
    return pieces;
  }

  override get length(): number {
    return super.length + this.#piecesBytes;
  }

  /** Large values must not change until they are sent. */
  override bytes(value: Uint8Array): void {
    if (value.length < OWN_PIECE_BYTES_MIN) return super.bytes(value);
    this.#cut();
    this.#pieces.push(value);
    this.#piecesBytes += value.length;
    this.uint32(value.length);
  }

  /** Eight bytes, big-endian. */
  uint64BE(value: number): void {
    this.#eight.writeUInt32BE(Math.floor(value / 2 ** 32), 0);
    this.#eight.writeUInt32BE(value % 2 ** 32, 4);
    this.raw(this.#eight);
  }

  #cut(): void {
    if (super.length === 0) return;
    const piece = this.finish();
    this.#pieces.push(piece);
    this.#piecesBytes += piece.length;
  }
}
