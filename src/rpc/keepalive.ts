/**
 * Pings of one connection, as grpc-go handles them: ours, sent after a long silence, must be answered in time; the
 * client's must not be more frequent than the policy allows.
 */
import type { Timer } from "../base/clock.ts";
import type { Connection } from "./connection.ts";
import type { RpcCore } from "./core.ts";

const STRIKES_MAX = 2;
/** Minimum interval of pings from a client without calls, when the policy forbids them. */
const IDLE_PING_MS = 2 * 3600 * 1000;
const PING_PAYLOAD = Buffer.from("kvorum\0\0", "latin1");

export class Keepalive {
  /** Time of the last input. */
  lastReadMs: number;

  readonly #connection: Connection;
  readonly #core: RpcCore;
  #timer: Timer;
  #lastPingMs = -Infinity;
  #strikes = 0;
  /** Headers and data frames sent when the last ping arrived. */
  #framesSentAtPing = 0;

  constructor(connection: Connection, core: RpcCore) {
    this.#connection = connection;
    this.#core = core;
    this.lastReadMs = connection.nowMs;
    this.#timer = this.#after(core.keepalive.intervalMs);
  }

  stop(): void {
    this.#timer.cancel();
  }

  /**
   * Whether this is the client's first ping since our last headers or data, as from clients that measure bandwidth.
   * Such a ping is free and clears earlier strikes.
   */
  followsReply(nowMs: number): boolean {
    const { framesSent } = this.#connection.sender;
    if (framesSent === this.#framesSentAtPing) return false;
    this.#framesSentAtPing = framesSent;
    this.#strikes = 0;
    this.#lastPingMs = nowMs;
    return true;
  }

  /** For any other ping: false when the client has pinged too often for too long. */
  allowsPing(nowMs: number): boolean {
    const { minTimeMs, permitWithoutStream } = this.#core.keepalive;
    const since = nowMs - this.#lastPingMs;
    this.#lastPingMs = nowMs;
    if (since < (this.#connection.streamCount > 0 || permitWithoutStream ? minTimeMs : IDLE_PING_MS)) this.#strikes++;
    return this.#strikes <= STRIKES_MAX;
  }

  /** A Node timer takes at most 2^31-1 milliseconds. */
  #after(delayMs: number): Timer {
    return this.#core.clock.after(Math.min(Math.max(1, delayMs), 2147483647), () => this.#check());
  }

  #check(): void {
    const { intervalMs, timeoutMs } = this.#core.keepalive;
    const silentMs = this.#core.clock.nowMs() - this.lastReadMs;
    if (silentMs < intervalMs) {
      this.#timer = this.#after(intervalMs - silentMs);
      return;
    }
    const sentAtMs = this.#core.clock.nowMs();
    this.#connection.sender.ping(false, PING_PAYLOAD);
    this.#connection.sender.flush();
    this.#timer = this.#core.clock.after(timeoutMs, () => {
      if (this.lastReadMs < sentAtMs) this.#connection.destroy();
      else this.#check();
    });
  }
}
