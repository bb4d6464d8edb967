/**
 * What arrives on one connection, read in slices: a piece from the socket may hold thousands of calls, and those of other
 * connections come between. While a part of a piece is unread the socket is paused.
 */
import type { Connection } from "./connection.ts";
import { READ_SLICE_MS, type Reader } from "./read-turns.ts";

/** Between two looks at the clock, at most so many frames are read, or calls put off. */
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

  /** Something was done that counts as so many frames. */
  took(frames: number): void {
    this.#frames += frames;
  }

  /** Asked after each frame, with the number of calls that begin when reading stops: whether to read on. */
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
    // A socket that is blocked resumes us when it has drained.
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
