/**
 * Lets handshakes begin a few at a time. The server's part of one, a signature, takes a millisecond and more of the loop: a
 * thousand that came at once would hold up everything else for seconds. So those whose first message is here wait in line,
 * and each turn of the loop begins as many as a few milliseconds are enough for, one from each address in turn.
 *
 * Of one address the newest comes first: who came earlier has waited in vain already where more come than can be served,
 * and a client that came just now is still there.
 */
import type { Socket } from "node:net";
import type { Clock } from "../../base/clock.ts";

/** Of a turn, for handshakes. */
const TURN_MS = 4;
/** For clocks that stand still during a turn. */
const TURN_HANDSHAKES_MAX = 16;

export class HandshakeQueue {
  readonly #clock: Clock;
  readonly #begin: (socket: Socket) => void;
  /** Waiting sockets by address. The first address is the next to be served. */
  readonly #waiting = new Map<string, Socket[]>();
  #running = false;

  /** `begin` starts the handshake, whose work is done in the next ticks of the process. */
  constructor(clock: Clock, begin: (socket: Socket) => void) {
    this.#clock = clock;
    this.#begin = begin;
  }

  push(socket: Socket): void {
    const address = socket.remoteAddress ?? "";
    const same = this.#waiting.get(address);
    if (same === undefined) this.#waiting.set(address, [socket]);
    else same.push(socket);
    if (this.#running) return;
    this.#running = true;
    this.#turn();
  }

  #turn(): void {
    const endMs = this.#clock.nowMs() + TURN_MS;
    let left = TURN_HANDSHAKES_MAX;
    const next = (): void => {
      const socket = this.#take();
      if (socket === undefined) {
        this.#running = false;
        return;
      }
      this.#begin(socket);
      // Runs behind the tick in which the handshake does its work.
      process.nextTick(() => {
        if (--left > 0 && this.#clock.nowMs() < endMs) next();
        else this.#clock.defer(() => this.#turn());
      });
    };
    next();
  }

  /** One of the address that has waited for its turn the longest. */
  #take(): Socket | undefined {
    for (const [address, sockets] of this.#waiting) {
      this.#waiting.delete(address);
      for (let socket = sockets.pop(); socket !== undefined; socket = sockets.pop()) {
        if (socket.destroyed) continue;
        if (sockets.length > 0) this.#waiting.set(address, sockets);
        return socket;
      }
    }
    return undefined;
  }
}
