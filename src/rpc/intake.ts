/**
 * Reads a connection's input in slices: a chunk from the socket may hold thousands of calls, and other connections take
 * turns in between. The socket is paused while part of a chunk is unread.
 */
import type { Connection } from "./connection.ts";
import { READ_SLICE_MS, type Reader } from "./read-turns.ts";

/** Frames read, or calls deferred, between two reads of the clock. */
const FRAMES_PER_LOOK = 16;
const WAITING_CALLS_MAX = 64;

export class Intake implements Reader {
  readonly #connection: Connection;
  #unread: Buffer | null = null;
  #frames = 0;
  #mustYield = false;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  onChunk(chunk: Buffer): void {
    const { core, isEnded } = this.#connection;
    if (isEnded) return;
    core.stats.bytesReceived += chunk.length;
    if (this.#unread !== null) this.#unread = Buffer.concat([this.#unread, chunk]);
    else if (core.readTurns.isUsedUp) this.#readLater(chunk, false);
    else this.#read(chunk);
  }

  /** The socket may be read again. */
  resume(): void {
    if (this.#unread === null) this.#connection.socket.resume();
    else this.#connection.core.readTurns.later(this, true);
  }

  /** Work was done that counts as this many frames. */
  took(frames: number): void {
    this.#frames += frames;
  }

  /** Asked after each frame, with the number of calls that start when reading stops: whether to continue. */
  goesOn(waitingCalls: number): boolean {
    if (++this.#frames < FRAMES_PER_LOOK) return true;
    this.#frames = 0;
    const { core, nowMs } = this.#connection;
    this.#mustYield = core.clock.nowMs() - nowMs > READ_SLICE_MS || waitingCalls > WAITING_CALLS_MAX;
    return !this.#mustYield;
  }

  readOn(): void {
    const connection = this.#connection;
    const unread = this.#unread;
    if (unread === null) return;
    // A blocked socket resumes reading when it has drained.
    if (connection.sender.isBlocked && !connection.isEnded) return;
    this.#unread = null;
    this.#read(unread);
    if (this.#unread === null && !connection.closed && !connection.sender.isBlocked) connection.socket.resume();
  }

  #read(chunk: Buffer): void {
    const connection = this.#connection;
    if (connection.isEnded) return;
    const { core } = connection;
    const read = connection.read(chunk);
    if (this.#mustYield) {
      this.#mustYield = false;
      if (read < chunk.length && !connection.isEnded) this.#readLater(chunk.subarray(read), true);
    }
    core.readTurns.used(core.clock.nowMs() - connection.nowMs);
  }

  #readLater(unread: Buffer, begun: boolean): void {
    this.#unread = unread;
    this.#connection.socket.pause();
    this.#connection.core.readTurns.later(this, begun);
  }
}
