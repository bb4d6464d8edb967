/**
 * Starts handshakes a few at a time. The server's part, a signature, takes a millisecond or more of the event loop: a
 * thousand at once would block everything else for seconds. So sockets whose first message has arrived wait in a queue,
 * and each turn starts as many as fit into a few milliseconds, one per address in turn.
 *
 * Within an address the newest comes first: under overload an earlier client has waited in vain already, while a new
 * one is still there.
 */
import type { Socket } from "node:net";
import type { Clock } from "../../base/clock.ts";

/** Time per turn for handshakes. */
const TURN_MS = 4;
/** For clocks that stand still during a turn. */
const TURN_HANDSHAKES_MAX = 16;

export class HandshakeQueue {
  readonly #clock: Clock;
  readonly #begin: (socket: Socket) => void;
  /** Waiting sockets by address. The first address is the next to be served. */
  readonly #waiting = new Map<string, Socket[]>();
  #running = false;

  /** `begin` starts the handshake, which runs in the next ticks of the process. */
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
      // Runs after the tick in which the handshake does its work.
      process.nextTick(() => {
        if (--left > 0 && this.#clock.nowMs() < endMs) next();
        else this.#clock.defer(() => this.#turn());
      });
    };
    next();
  }

  /** Takes one from the address that has waited longest for its turn. */
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
