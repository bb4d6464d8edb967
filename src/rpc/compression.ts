/**
 * gzip of gRPC messages. A message is bounded before and after: nothing decompresses to more than the receive limit.
 *
 * Small messages are processed synchronously, within each turn's allowance. Others go to the thread pool, two at a
 * time: the log needs the rest of its four threads. Connections take turns; the queue is bounded.
 */
import { gunzip, gunzipSync, gzip, gzipSync, type ZlibOptions } from "node:zlib";
import type { Clock } from "../base/clock.ts";
import { Code } from "../base/grpc-codes.ts";

export const GZIP = "gzip";

/** Up to this size the synchronous call takes about 50 µs. */
const NOW_BYTES_MAX = 4096;
/** Synchronous work per turn: bytes, and the fixed cost of a message in bytes. */
const NOW_ALLOWANCE = 128 * 1024;
const NOW_COST = 2048;
/** Larger messages are not worth 100 ms of a thread, and are sent uncompressed. */
export const COMPRESS_BYTES_MAX = 4 * 1024 * 1024;
const THREADS_MAX = 2;
/** Total bytes of messages waiting for a thread. */
const WAITING_BYTES_MAX = 64 * 1024 * 1024;
const CHUNK_BYTES = 64 * 1024;

/** Why a message cannot be decompressed, in grpc-go's words. */
export interface Unreadable {
  readonly code: number;
  readonly message: string;
}

interface Job {
  readonly bytes: number;
  /** Starts it; false when the result is no longer wanted. */
  start(): boolean;
}

export class Compression {
  readonly #clock: Clock;
  /** By requester; the first is served next. */
  readonly #waiting = new Map<object, Job[]>();
  #waitingBytes = 0;
  #running = 0;
  #allowance = NOW_ALLOWANCE;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The compressed message, if that is quick. */
  compressNow(message: Uint8Array): Buffer | undefined {
    return message.length <= NOW_BYTES_MAX && this.#takeAllowance(message.length) ? gzipSync(message) : undefined;
  }

  /**
   * Compresses on a thread; `message` must not change meanwhile. `wanted` is called when its turn comes. False when too
   * much waits already: send it uncompressed, also when the result is undefined.
   */
  compress(
    owner: object,
    message: Uint8Array,
    wanted: () => boolean,
    done: (packed: Buffer | undefined) => void,
  ): boolean {
    return this.#add(owner, {
      bytes: message.length,
      start: () => {
        if (!wanted()) return false;
        gzip(message, { chunkSize: CHUNK_BYTES }, (error, packed) =>
          this.#ended(() => done(error === null ? packed : undefined)),
        );
        return true;
      },
    });
  }

  /** The decompressed message, if that is quick, or why it is unreadable. Undefined: it takes a thread. */
  decompressNow(packed: Uint8Array, bytesMax: number): Buffer | Unreadable | undefined {
    const size = sizeOf(packed);
    if (packed.length > NOW_BYTES_MAX || size > NOW_BYTES_MAX || !this.#takeAllowance(packed.length + size)) {
      return undefined;
    }
    try {
      // The size it declares cannot be trusted.
      return gunzipSync(packed, { maxOutputLength: Math.max(1, Math.min(bytesMax, size + 1)) });
    } catch (error) {
      return isTooLarge(error) && size < bytesMax ? undefined : unreadable(error as Error, bytesMax);
    }
  }

  /** Decompresses on a thread. False when too much waits already. */
  decompress(
    owner: object,
    packed: Uint8Array,
    bytesMax: number,
    wanted: () => boolean,
    done: (message: Buffer | Unreadable) => void,
  ): boolean {
    const options: ZlibOptions = { maxOutputLength: Math.max(1, bytesMax), chunkSize: CHUNK_BYTES };
    return this.#add(owner, {
      bytes: packed.length,
      start: () => {
        if (!wanted()) return false;
        gunzip(packed, options, (error, message) =>
          this.#ended(() => done(error === null ? message : unreadable(error, bytesMax))),
        );
        return true;
      },
    });
  }

  #takeAllowance(bytes: number): boolean {
    if (this.#allowance < NOW_COST + bytes) return false;
    if (this.#allowance === NOW_ALLOWANCE) {
      this.#clock.defer(() => {
        this.#allowance = NOW_ALLOWANCE;
      });
    }
    this.#allowance -= NOW_COST + bytes;
    return true;
  }

  #add(owner: object, job: Job): boolean {
    if (this.#waitingBytes > 0 && this.#waitingBytes + job.bytes > WAITING_BYTES_MAX) return false;
    const jobs = this.#waiting.get(owner);
    if (jobs === undefined) this.#waiting.set(owner, [job]);
    else jobs.push(job);
    this.#waitingBytes += job.bytes;
    this.#startNext();
    return true;
  }

  #startNext(): void {
    while (this.#running < THREADS_MAX) {
      const next = this.#waiting.entries().next().value;
      if (next === undefined) return;
      const [owner, jobs] = next;
      const job = jobs.shift()!;
      this.#waiting.delete(owner);
      if (jobs.length > 0) this.#waiting.set(owner, jobs);
      this.#waitingBytes -= job.bytes;
      if (job.start()) this.#running++;
    }
  }

  #ended(report: () => void): void {
    this.#running--;
    this.#startNext();
    report();
  }
}

/** The content length that the end of a gzip stream declares. */
function sizeOf(packed: Uint8Array): number {
  const at = packed.length - 4;
  if (at < 0) return 0;
  return packed[at]! + packed[at + 1]! * 256 + packed[at + 2]! * 65536 + packed[at + 3]! * 16777216;
}

function isTooLarge(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === "ERR_BUFFER_TOO_LARGE";
}

function unreadable(error: Error, bytesMax: number): Unreadable {
  if (isTooLarge(error)) {
    return {
      code: Code.RESOURCE_EXHAUSTED,
      message: `grpc: received message after decompression larger than max ${bytesMax}`,
    };
  }
  const text = error.message;
  if (text === "incorrect header check") {
    return { code: Code.INTERNAL, message: "grpc: failed to decompress the message: gzip: invalid header" };
  }
  const reason = text === "unexpected end of file" ? "unexpected EOF" : text;
  return { code: Code.INTERNAL, message: `grpc: failed to read decompressed data: ${reason}` };
}
