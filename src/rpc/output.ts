/**
 * Outgoing bytes of one connection. Frames are written straight into a chunk, and all of a turn leave in one socket write.
 *
 * Chunks come from a pool that all connections share: a chunk goes back as soon as the socket has taken its bytes, so an
 * idle connection holds none. Bytes that the socket could not send count as backlog, and above SOCKET_BACKLOG_MAX the
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
  /** Where to write; `reserve` says at which offset. */
  buf: Buffer = NO_CHUNK;
  /** True from a full backlog until it has drained. */
  blocked = false;
  /** Bytes given to the socket so far. */
  bytesWritten = 0;

  readonly #socket: Duplex;
  /** A real socket (TLS too) has sent or encrypted what it no longer counts; another stream may still hold the bytes. */
  readonly #recycles: boolean;
  readonly #pool: ChunkPool;
  readonly #onDrain: () => void;
  readonly #onWritten = (): void => this.#written();
  /** What goes out in this turn before the present piece of the chunk: filled chunks, and bytes of others. */
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

  /** Makes room for `size` bytes in one piece (at most 64 KiB) and returns their offset in `buf`. */
  reserve(size: number): number {
    if (this.buf.length - this.#pos < size) this.#nextChunk();
    const at = this.#pos;
    this.#pos = at + size;
    return at;
  }

  /** Adds bytes without a copy; they must not change any more. Worth it from a few kilobytes on. */
  append(bytes: Buffer): void {
    if (this.#closed) return;
    this.#cut();
    this.#full.push(bytes);
    this.#fullBytes += bytes.length;
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

  /** Drops what was not flushed and takes no more. */
  close(): void {
    this.#closed = true;
    this.#full = [];
    this.#fullBytes = 0;
    this.#start = this.#pos = 0;
    // The socket may still hold parts of the chunk, so it does not go back to the pool.
    this.buf = NO_CHUNK;
  }

  #nextChunk(): void {
    if (!this.#closed) this.#cut();
    this.buf = this.#closed ? Buffer.allocUnsafeSlow(CHUNK_BYTES) : this.#pool.take();
    this.#start = this.#pos = 0;
  }

  /** Ends the present piece of the chunk. */
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

  /** The socket holds nothing of the chunk any more. */
  #release(): void {
    if (!this.#recycles || this.buf.length === 0 || this.#pos !== this.#start) return;
    this.#pool.give(this.buf);
    this.buf = NO_CHUNK;
    this.#start = this.#pos = 0;
  }
}
