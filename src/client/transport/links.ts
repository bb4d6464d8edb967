/**
 * The connections to all endpoints, and the choice between them for each call.
 *
 * Connects when a call needs it: to all endpoints at once while none is connected, so that the first to answer serves. A
 * failed endpoint is tried again after a growing pause. One whose calls fail is avoided for a while.
 */
import type { Socket } from "node:net";
import type { Clock, Timer } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import type { Random } from "../../base/random.ts";
import type { ChunkPool } from "../../rpc/output.ts";
import { type ConnectionDiagnostics, connectionChannel } from "../diagnostics.ts";
import { type Address, hostPort, parseEndpoint } from "../endpoint.ts";
import type { ClientTls } from "../options.ts";
import { ClientConnection } from "./connection.ts";
import { dial } from "./dial.ts";

export interface LinkOptions {
  readonly tls: ClientTls | undefined;
  readonly connectTimeoutMs: number;
  readonly keepAliveMs: number;
  readonly keepAliveTimeoutMs: number;
  readonly roundRobin: boolean;
  readonly clock: Clock;
  readonly random: Random;
  readonly chunks: ChunkPool;
  /** See `ClientOptions`. */
  readonly connect: ((endpoint: string) => Socket | undefined) | undefined;
  readonly failFast: boolean;
}

/** A call, or something else, that needs a connection. */
export interface Waiter {
  /** The member that it must be, if it matters. */
  readonly endpoint: string | undefined;
  onConnection(link: Link): void;
  /** No endpoint can be reached at present; called only with `failFast`, and then it waits no more. */
  onUnreachable(): void;
}

/** The state of one endpoint, for the client's status. */
export interface EndpointStatus {
  readonly endpoint: string;
  readonly connected: boolean;
  /** Calls in progress. */
  readonly calls: number;
  /** Why the last attempt or connection failed; empty after a success. */
  readonly problem: string;
}

const BACKOFF_FIRST_MS = 50;
const BACKOFF_MAX_MS = 2000;
/** How long an endpoint is avoided whose calls fail. */
const AVOID_MS = 3000;
const USER_AGENT = "kvorum-client";

export class Links {
  readonly #options: LinkOptions;
  #links: Link[];
  #current = 0;
  /** Asked for by name, and none of the endpoints. */
  readonly #others = new Map<string, Link>();
  #waiters = new Set<Waiter>();
  /** Those that wait will be looked at soon. */
  #tellScheduled = false;
  #closed = false;
  /** Grows when the status of an endpoint may have changed. */
  changes = 0;
  #toTell = new Set<() => void>();

  /** Throws EndpointError. */
  constructor(endpoints: readonly string[], options: LinkOptions) {
    this.#options = options;
    this.#links = endpoints.map((endpoint) => new Link(endpoint, options, this.#serve, this.#failed));
    this.#current = options.random.below(this.#links.length);
  }

  get endpoints(): readonly string[] {
    return this.#links.map(({ endpoint }) => endpoint);
  }

  get status(): readonly EndpointStatus[] {
    return this.#links.map((link) => link.status);
  }

  /** What went wrong lately, for the error of a call that found no connection. */
  problems(endpoint: string | undefined): string {
    const links = endpoint === undefined ? this.#links : [this.to(endpoint)];
    const problems = links.map(({ problem }) => problem).filter((problem) => problem !== "");
    return problems.length === 0 ? "no endpoint is connected yet" : problems.join("; ");
  }

  /** A connected endpoint, or undefined: then `wait`. */
  pick(): Link | undefined {
    const { length } = this.#links;
    if (this.#options.roundRobin) {
      this.#current = (this.#current + 1) % length;
      for (const link of this.#links) link.connect();
    } else if (this.#links[this.#current]!.isGood) return this.#links[this.#current];
    let second: number | undefined;
    for (let i = 0; i < length; i++) {
      const at = (this.#current + i) % length;
      const link = this.#links[at]!;
      if (link.isGood) {
        this.#current = at;
        return link;
      }
      if (link.connection !== undefined) second ??= at;
    }
    // Nothing good: connect to the others meanwhile.
    for (const link of this.#links) link.connect();
    return second === undefined ? undefined : this.#links[second];
  }

  /** One endpoint, connected or not. Throws EndpointError. */
  to(endpoint: string): Link {
    const known = this.#links.find((each) => each.endpoint === endpoint) ?? this.#others.get(endpoint);
    if (known !== undefined) return known;
    const link = new Link(endpoint, this.#options, this.#serve, this.#failed);
    this.#others.set(endpoint, link);
    return link;
  }

  /** Calls `onConnection` once, as soon as there is one. */
  wait(waiter: Waiter): void {
    this.#waiters.add(waiter);
    if (waiter.endpoint !== undefined) this.to(waiter.endpoint).connect();
    else for (const link of this.#links) link.connect();
    // Not before its maker knows it, and once for all that begin to wait in this turn.
    if (!this.#options.failFast || this.#tellScheduled) return;
    this.#tellScheduled = true;
    this.#options.clock.defer(() => this.#tellUnreachable());
  }

  /** With `failFast`: the last attempt of every endpoint has failed, and none is being made. */
  #tellUnreachable(): void {
    this.#tellScheduled = false;
    if (!this.#options.failFast || this.#waiters.size === 0 || this.#closed) return;
    const isNoneReachable = this.#links.every((link) => link.isUnreachable);
    for (const waiter of [...this.#waiters]) {
      const { endpoint } = waiter;
      if (!(endpoint === undefined ? isNoneReachable : this.to(endpoint).isUnreachable)) continue;
      this.#waiters.delete(waiter);
      waiter.onUnreachable();
    }
  }

  forget(waiter: Waiter): void {
    this.#waiters.delete(waiter);
  }

  /** Replaces the endpoints; connections to those that stay are kept. Throws EndpointError. */
  setEndpoints(endpoints: readonly string[]): void {
    const links = endpoints.map(
      (endpoint) =>
        this.#links.find((link) => link.endpoint === endpoint) ??
        new Link(endpoint, this.#options, this.#serve, this.#failed),
    );
    for (const link of this.#links) if (!links.includes(link)) link.retire();
    this.#links = links;
    this.#current = this.#options.random.below(links.length);
    this.#tellChanged();
    if (this.#waiters.size > 0) for (const link of links) link.connect();
  }

  /** Resolves when `changes` has grown, or with the signal. */
  changed(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve) => {
      const tell = (): void => {
        signal?.removeEventListener("abort", tell);
        this.#toTell.delete(tell);
        resolve();
      };
      this.#toTell.add(tell);
      signal?.addEventListener("abort", tell);
    });
  }

  close(reason: string): void {
    this.#closed = true;
    this.#waiters.clear();
    this.#tellChanged();
    for (const link of [...this.#links, ...this.#others.values()]) link.close(reason);
  }

  readonly #failed = (): void => {
    this.#tellChanged();
    this.#tellUnreachable();
  };

  #tellChanged(): void {
    this.changes++;
    const told = this.#toTell;
    this.#toTell = new Set();
    for (const tell of told) tell();
  }

  readonly #serve = (link: Link): void => {
    if (this.#closed) return;
    this.#tellChanged();
    const isOne = this.#links.includes(link);
    for (const waiter of [...this.#waiters]) {
      if (waiter.endpoint === undefined ? !isOne : waiter.endpoint !== link.endpoint) continue;
      if (link.connection === undefined) return link.connect();
      this.#waiters.delete(waiter);
      waiter.onConnection(link);
    }
  };
}

export class Link {
  readonly endpoint: string;
  connection: ClientConnection | undefined;
  /** Of the last attempt. */
  problem = "";
  readonly #address: Address;
  readonly #options: LinkOptions;
  readonly #changed: (link: Link) => void;
  readonly #onFailed: () => void;
  #avoidUntilMs = 0;
  #failures = 0;
  #timer: Timer | undefined;
  #giveUp: (() => void) | undefined;
  #closed = false;

  constructor(endpoint: string, options: LinkOptions, changed: (link: Link) => void, onFailed: () => void) {
    this.endpoint = endpoint;
    this.#address = parseEndpoint(endpoint);
    this.#options = options;
    this.#changed = changed;
    this.#onFailed = onFailed;
  }

  /** Connected, and its calls do not fail. */
  get isGood(): boolean {
    return (
      this.connection !== undefined && (this.#avoidUntilMs === 0 || this.#options.clock.nowMs() >= this.#avoidUntilMs)
    );
  }

  /** Its last attempt has failed, and the next one has not begun. */
  get isUnreachable(): boolean {
    return this.connection === undefined && this.#giveUp === undefined && this.#failures > 0;
  }

  get status(): EndpointStatus {
    const { endpoint, connection, problem } = this;
    return { endpoint, connected: connection !== undefined, calls: connection?.load ?? 0, problem };
  }

  /** A call to it failed in a way that another member may not: others are preferred for a while. */
  avoid(): void {
    this.#avoidUntilMs = this.#options.clock.nowMs() + AVOID_MS;
  }

  /** Begins to connect, unless it is connected, at it, or in the pause after a failure. */
  connect(): void {
    if (this.connection !== undefined || this.#giveUp !== undefined || this.#timer !== undefined || this.#closed)
      return;
    const { clock, connectTimeoutMs } = this.#options;
    const tls = this.#options.tls ?? (this.#address.secure ? {} : undefined);
    const beganMs = clock.nowMs();
    const done = (socket: Socket | undefined, problem: string): void => {
      this.#giveUp = undefined;
      if (socket === undefined) return this.#failed(problem);
      const { host, path } = this.#address;
      const connection = new ClientConnection(socket, {
        ...this.#options,
        scheme: tls === undefined ? "http" : "https",
        authority: path === undefined ? hostPort(this.#address) : host || "localhost",
        userAgent: USER_AGENT,
        onUnusable: (reason) => {
          settingsTimer.cancel();
          if (this.connection === connection || this.connection === undefined)
            this.#failed(`${this.endpoint}: ${reason}`);
        },
      });
      // What accepts connections is not yet a server that speaks HTTP/2.
      const leftMs = Math.max(1, connectTimeoutMs - (clock.nowMs() - beganMs));
      const settingsTimer = clock.after(leftMs, () => connection.close("the server sent no SETTINGS in time"));
      this.#giveUp = () => connection.close("given up");
      connection.onOpen = () => {
        connection.onOpen = undefined;
        settingsTimer.cancel();
        this.#giveUp = undefined;
        this.connection = connection;
        this.problem = "";
        this.#avoidUntilMs = 0;
        this.#publish(true);
        this.#changed(this);
      };
    };
    this.#giveUp = this.#connectOtherwise(done) ?? dial(this.#address, tls, connectTimeoutMs, clock, done);
  }

  /** Asks the client's own way to connect, if it has one; undefined when it leaves this endpoint to the network. */
  #connectOtherwise(done: (socket: Socket | undefined, problem: string) => void): (() => void) | undefined {
    const { connect, clock } = this.#options;
    let socket: Socket | undefined;
    let problem = "";
    try {
      socket = connect?.(this.endpoint);
      if (socket === undefined) return undefined;
    } catch (error) {
      problem = `${this.endpoint}: ${messageOf(error)}`;
    }
    let isOver = false;
    clock.defer(() => {
      if (!isOver) done(socket, problem);
    });
    return () => {
      isOver = true;
      socket?.destroy();
    };
  }

  #failed(problem: string): void {
    const wasConnected = this.connection !== undefined;
    this.connection = undefined;
    this.#giveUp = undefined;
    this.problem = problem;
    this.#publish(false);
    if (this.#closed) return;
    // The end of a connection is no reason to wait.
    this.#failures = wasConnected ? 0 : this.#failures + 1;
    const { clock, random } = this.#options;
    const pauseMs = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** Math.min(this.#failures, 10));
    this.#timer = clock.after(
      wasConnected ? random.below(BACKOFF_FIRST_MS) : pauseMs / 2 + random.below(pauseMs / 2),
      () => {
        this.#timer = undefined;
        this.#changed(this);
      },
    );
    this.#onFailed();
  }

  #publish(connected: boolean): void {
    if (!connectionChannel.hasSubscribers) return;
    const told: ConnectionDiagnostics = { endpoint: this.endpoint, connected, problem: this.problem };
    connectionChannel.publish(told);
  }

  /** Takes no more calls; those in progress go on. */
  retire(): void {
    this.#closed = true;
    this.#timer?.cancel();
    this.#giveUp?.();
    const { connection } = this;
    this.connection = undefined;
    connection?.retire("the endpoint was removed");
  }

  close(reason: string): void {
    this.#closed = true;
    this.#timer?.cancel();
    this.#giveUp?.();
    this.connection?.close(reason);
  }
}
