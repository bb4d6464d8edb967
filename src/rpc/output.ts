/**
 * Outgoing bytes of one connection. Frames are written directly into a chunk; all of a turn are sent in one socket
 * write.
 *
 * Chunks come from a pool shared by all connections: a chunk is returned as soon as the socket has taken its bytes, so
 * an idle connection holds none. Bytes that the socket could not send count as backlog; above SOCKET_BACKLOG_MAX the
 * connection stops producing data and stops reading until it has drained.
 */
import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { SOCKET_BACKLOG_MAX } from "./protocol.ts";

export const CHUNK_BYTES = 64 * 1024;
const POOL_CHUNKS_MAX = 64;

export class ChunkPool {
  readonly #free: Buffer[] = [];

  take(): Buffer {
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(CHUNK_BYTES);
  }

  give(chunk: Buffer): void {
    if (this.#free.length < POOL_CHUNKS_MAX) this.#free.push(chunk);
  }
}

const NO_CHUNK = Buffer.alloc(0);

export class Output {
  /** The buffer to write to; `reserve` returns the offset. */
  buf: Buffer = NO_CHUNK;
  /** True from a full backlog until it is drained. */
  blocked = false;
  /** Bytes given to the socket so far. */
  bytesWritten = 0;

  readonly #socket: Duplex;
  /**
   * A real socket (TLS too) has sent or encrypted the bytes it no longer counts; another stream may still hold them.
   */
  readonly #recycles: boolean;
  readonly #pool: ChunkPool;
  readonly #onDrain: () => void;
  readonly #onWritten = (): void => this.#written();
  /** Output of this turn before the current part of the chunk: full chunks and foreign buffers. */
  #full: Buffer[] = [];
  #fullBytes = 0;
  #start = 0;
  #pos = 0;
  #closed = false;

  constructor(socket: Duplex, pool: ChunkPool, onDrain: () => void) {
    this.#socket = socket;
    this.#recycles = socket instanceof Socket;
    this.#pool = pool;
    this.#onDrain = onDrain;
  }

  /** Reserves `size` contiguous bytes (at most 64 KiB) and returns their offset in `buf`. */
  reserve(size: number): number {
    if (this.buf.length - this.#pos < size) this.#nextChunk();
    const at = this.#pos;
    this.#pos = at + size;
    return at;
  }

  /** Adds bytes without a copy; they must not change afterwards. Worthwhile from a few kilobytes on. */
  append(bytes: Buffer): void {
    if (this.#closed) return;
    this.#cut();
    this.#full.push(bytes);
    this.#fullBytes += bytes.length;
  }

  /** Whether `size` more bytes would directly follow the last `before` bytes, none of which was sent yet. */
  continues(before: number, size: number): boolean {
    return this.#pos - this.#start >= before && this.buf.length - this.#pos >= size;
  }

  /** Bytes written since the beginning. */
  get position(): number {
    return this.bytesWritten + this.unflushed;
  }

  /** Bytes written since the last flush. */
  get unflushed(): number {
    return this.#fullBytes + this.#pos - this.#start;
  }

  /** True while more data frames may be produced. */
  get hasRoom(): boolean {
    return !this.blocked && this.#fullBytes + this.#pos - this.#start < SOCKET_BACKLOG_MAX;
  }

  /** Bytes that the socket has not taken. */
  get backlogBytes(): number {
    return this.#socket.writableLength;
  }

  flush(): void {
    const socket = this.#socket;
    const bytes = this.unflushed;
    if (bytes === 0 || this.#closed) return;
    this.bytesWritten += bytes;
    const view = this.buf.subarray(this.#start, this.#pos);
    this.#start = this.#pos;
    if (this.#full.length === 0) socket.write(view, this.#onWritten);
    else {
      const full = this.#full;
      this.#full = [];
      this.#fullBytes = 0;
      socket.cork();
      for (const chunk of full) socket.write(chunk);
      socket.write(view, this.#onWritten);
      socket.uncork();
    }
    const waiting = socket.writableLength;
    if (waiting === 0) this.#release();
    else if (waiting >= SOCKET_BACKLOG_MAX) this.blocked = true;
  }

  /** Drops unflushed bytes and accepts no more. */
  close(): void {
    this.#closed = true;
    this.#full = [];
    this.#fullBytes = 0;
    this.#start = this.#pos = 0;
    // The socket may still hold parts of the chunk, so it is not returned to the pool.
    this.buf = NO_CHUNK;
  }

  #nextChunk(): void {
    if (!this.#closed) this.#cut();
    this.buf = this.#closed ? Buffer.allocUnsafeSlow(CHUNK_BYTES) : this.#pool.take();
    this.#start = this.#pos = 0;
  }

  /** Ends the current part of the chunk. */
  #cut(): void {
    if (this.#pos === this.#start) return;
    this.#full.push(this.buf.subarray(this.#start, this.#pos));
    this.#fullBytes += this.#pos - this.#start;
    this.#start = this.#pos;
  }

  #written(): void {
    if (this.#closed) return;
    const waiting = this.#socket.writableLength;
    if (waiting === 0) this.#release();
    if (this.blocked && waiting < SOCKET_BACKLOG_MAX / 2) {
      this.blocked = false;
      this.#onDrain();
    }
  }

  /** The socket no longer holds any part of the chunk; unflushed output may: frame headers before foreign buffers. */
  #release(): void {
    if (!this.#recycles || this.buf.length === 0 || this.unflushed > 0) return;
    this.#pool.give(this.buf);
    this.buf = NO_CHUNK;
    this.#start = this.#pos = 0;
  }
}
