/**
 * Two ends of a connection inside the process: what one writes the other reads, and the end of one is the end of the
 * other. To the code on both sides it is a socket; no file descriptor and no system call is behind it.
 */
import { Socket } from "node:net";
import { systemClock } from "../base/clock.ts";

export interface SocketPair {
  readonly client: Socket;
  readonly server: Socket;
}

/** `defer` runs what arrives at the server: later, so that both sides cannot keep each other busy within one turn. */
export function socketPair(defer: (deliver: () => void) => void): SocketPair {
  const client = new MemorySocket((deliver) => deliver());
  const server = new MemorySocket(defer);
  client.join(server);
  server.join(client);
  return { client, server };
}

class MemorySocket extends Socket {
  #other: MemorySocket | undefined;
  readonly #arrive: (deliver: () => void) => void;
  /** Written by the other end and not taken yet: its callback says that there is room again. */
  #waiting: (() => void)[] = [];

  constructor(arrive: (deliver: () => void) => void) {
    super();
    this.#arrive = arrive;
  }

  join(other: MemorySocket): void {
    this.#other = other;
  }

  override _read(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const done of waiting) done();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    const other = this.#other;
    // The writer may use its buffer again when this is done.
    if (other === undefined) done();
    else other.#take(Buffer.from(chunk), done);
  }

  override _writev(chunks: { chunk: Buffer }[], done: () => void): void {
    this._write(Buffer.concat(chunks.map(({ chunk }) => chunk)), "utf8", done);
  }

  override _final(done: () => void): void {
    if (this.#other !== undefined) this.#other.#take(null, () => {});
    done();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    const other = this.#other;
    this.#other = undefined;
    for (const each of this.#waiting) each();
    this.#waiting = [];
    // The other side learns of the end, whatever the reason was on this one.
    if (other !== undefined) systemClock.defer(() => other.destroy());
    super._destroy(error, done);
  }

  #take(bytes: Buffer | null, done: () => void): void {
    this.#arrive(() => {
      if (this.destroyed) return done();
      if (this.push(bytes) || bytes === null) done();
      else this.#waiting.push(done);
    });
  }
}
