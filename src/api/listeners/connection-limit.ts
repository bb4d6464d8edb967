/**
 * Limits the listeners' connections, so that the log, snapshots, the database and the other members keep their file
 * descriptors whatever clients do. All listeners for clients, HTTP and metrics share one limit; the peer listener has
 * its own, which clients cannot use up.
 *
 * At the limit, a new connection replaces the one that has been silent the longest, or one that is idle between
 * requests; the new one is closed only if all others are busy. So connections that are opened and abandoned block no
 * other client.
 */
import * as fs from "node:fs";
import type { Socket } from "node:net";
import type { Clock } from "../../base/clock.ts";
import { Complaints } from "../../base/complaints.ts";
import type { Logger } from "../../base/log.ts";
import { type AnySocket, rawSocket } from "../../rpc/tls/raw-socket.ts";

/** Descriptors reserved for files and outgoing connections. etcd's number. */
export const RESERVED_DESCRIPTORS = 150;
/** Members' connections; each member keeps about ten. */
const PEERS_MAX = 1024;
const PEERS_MIN = 32;
const PEERS_SHARE = 8;
/** With fewer, a member is hardly usable; then the descriptor limit is too low, and the log says so. */
const CLIENTS_MIN = 32;
/** Minimum interval of searches for idle connections, which examine all of them. */
const LOOK_INTERVAL_MS = 100;

export interface ConnectionLimitOptions {
  readonly who: "client" | "peer";
  readonly max: number;
  /** Advice to the operator when the limit is reached. */
  readonly advice: string;
  readonly clock: Clock;
  readonly logger: Logger;
}

export class ConnectionLimit {
  readonly max: number;
  /** New connections closed, and connections closed for new ones. */
  refused = 0;
  displaced = 0;
  readonly #options: ConnectionLimitOptions;
  readonly #complaints: Complaints;
  readonly #open = new Set<Socket>();
  /** Connections that have sent no request yet, oldest first. */
  readonly #silent = new Set<Socket>();
  readonly #resting: (() => readonly AnySocket[])[] = [];
  #lookedAtMs = Number.NEGATIVE_INFINITY;

  constructor(options: ConnectionLimitOptions) {
    this.#options = options;
    this.max = options.max;
    this.#complaints = new Complaints(options.logger, options.clock);
  }

  get open(): number {
    return this.#open.size;
  }

  /** Admits an accepted socket; false when it was closed instead. */
  admit(socket: Socket): boolean {
    if (this.#open.size >= this.max && !this.#makeRoom()) {
      this.refused++;
      this.#complain(`refused a ${this.#options.who} connection, since as many as can be served are open and busy`);
      socket.destroy();
      return false;
    }
    this.#open.add(socket);
    this.#silent.add(socket);
    socket.once("close", () => this.#forget(socket));
    return true;
  }

  /** The connection has sent a request. */
  spoke(socket: AnySocket): void {
    this.#silent.delete(rawSocket(socket));
  }

  /** At the limit, `close` is called to close idle connections and return them. */
  whenFull(close: () => readonly AnySocket[]): void {
    this.#resting.push(close);
  }

  #makeRoom(): boolean {
    for (const socket of this.#silent) {
      this.#forget(socket);
      socket.destroy();
      this.#displaced(1, "said nothing yet");
      return true;
    }
    const nowMs = this.#options.clock.nowMs();
    if (nowMs - this.#lookedAtMs < LOOK_INTERVAL_MS) return false;
    this.#lookedAtMs = nowMs;
    for (const close of this.#resting) {
      const closed = close();
      for (const socket of closed) this.#forget(rawSocket(socket));
      if (closed.length > 0) this.#displaced(closed.length, "rested between requests");
    }
    return this.#open.size < this.max;
  }

  #displaced(count: number, why: string): void {
    this.displaced += count;
    this.#complain(`closed a ${this.#options.who} connection that ${why}, to make room for another`);
  }

  #complain(what: string): void {
    this.#complaints.warn(what, { "connections-max": this.max, advice: this.#options.advice });
  }

  #forget(socket: Socket): void {
    this.#open.delete(socket);
    this.#silent.delete(socket);
  }
}

export interface ConnectionLimits {
  readonly clients: ConnectionLimit;
  readonly peers: ConnectionLimit;
}

/** The limits of a member. `clientsMax` is the operator's, or 0. */
export function connectionLimits(options: {
  readonly clientsMax: number;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly descriptors?: number;
}): ConnectionLimits {
  const { clientsMax, clock, logger, descriptors = descriptorLimit() } = options;
  const forAll = descriptors - RESERVED_DESCRIPTORS;
  const peersMax = Math.min(PEERS_MAX, Math.max(PEERS_MIN, Math.floor(forAll / PEERS_SHARE)));
  const most = forAll - peersMax;
  const raise = "raise the limit of open files (systemd: LimitNOFILE=, shell: ulimit -n)";
  if (most < CLIENTS_MIN) {
    logger.warn("the limit of file descriptors is too low for a member", {
      "descriptors-max": descriptors,
      advice: raise,
    });
  }
  const usable = Math.max(CLIENTS_MIN, most);
  const isOwn = clientsMax > 0 && clientsMax < usable;
  const advice = isOwn ? "raise --max-client-connections, or close connections" : `${raise}, or close connections`;
  return {
    clients: new ConnectionLimit({ who: "client", max: isOwn ? clientsMax : usable, advice, clock, logger }),
    peers: new ConnectionLimit({
      who: "peer",
      max: peersMax,
      advice: `${raise}; see who connects to the peer port`,
      clock,
      logger,
    }),
  };
}

/** Used where the system does not report it: macOS's limit, which Node raises to the maximum. */
const DESCRIPTORS_DEFAULT = 10_240;

/** The soft limit, which Node raises to the hard limit at its start. */
export function descriptorLimit(): number {
  try {
    const found = /^Max open files\s+(\d+|unlimited)/m.exec(fs.readFileSync("/proc/self/limits", "latin1"))?.[1];
    if (found === "unlimited") return Number.MAX_SAFE_INTEGER;
    return found === undefined ? DESCRIPTORS_DEFAULT : Number(found);
  } catch {
    return DESCRIPTORS_DEFAULT;
  }
}
