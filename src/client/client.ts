/** The client: its connections, and what can be done over them. */
import { systemClock } from "../base/clock.ts";
import { systemRandom } from "../base/random.ts";
import { ChunkPool } from "../rpc/output.ts";
import { Auth } from "./auth.ts";
import { Caller } from "./caller.ts";
import { Cluster } from "./cluster.ts";
import { utf8 } from "./codec.ts";
import { Space } from "./keys.ts";
import { Keyspace } from "./keyspace.ts";
import { Leases } from "./leases.ts";
import { Maintenance } from "./maintenance.ts";
import { type CallOptions, type ClientOptions, ClientOptionsError } from "./options.ts";
import { Tokens } from "./tokens.ts";
import type { EndpointStatus } from "./transport/links.ts";
import { Watches } from "./watches.ts";

const DEFAULT_ENDPOINT = "127.0.0.1:2379";
/** The largest message that gRPC knows. */
const RESPONSE_BYTES_MAX = 2 ** 31 - 1;
/** More than any limit of a server that etcd's documents recommend. */
const REQUEST_BYTES_MAX = 16 * 1024 * 1024;
const PENDING_BYTES_MAX = 256 * 1024 * 1024;

/**
 * A client of an etcd cluster, of kvorum or stock etcd from 3.4 on. It connects when first used, to another member when
 * one fails, and holds the process until it is closed.
 *
 * @example
 * await using client = new Client({ endpoints: ["10.0.0.1:2379", "10.0.0.2:2379"] });
 * await client.put("greeting", "hello");
 * console.log((await client.get("greeting"))?.value);
 */
export class Client extends Keyspace<string, string> {
  /** Leases, kept alive. */
  readonly leases: Leases;
  /** Users and roles. */
  readonly auth: Auth;
  /** The members. */
  readonly cluster: Cluster;
  /** Status, backups, compaction and the like. */
  readonly maintenance: Maintenance;

  /** Throws EndpointError or ClientOptionsError. */
  constructor(options: ClientOptions = {}) {
    const caller = callerOf(options);
    super(caller, new Space(new Uint8Array(), utf8, utf8), new Watches(caller), new Leases(caller));
    this.leases = this.sharedLeases;
    this.auth = new Auth(caller);
    this.cluster = new Cluster(caller);
    this.maintenance = new Maintenance(caller);
  }

  /** The members that this client uses, in the form they were given. */
  get endpoints(): readonly string[] {
    return this.caller.links.endpoints;
  }

  /** Uses other members from now on. Calls in progress end where they are. */
  set endpoints(endpoints: readonly string[]) {
    this.caller.links.setEndpoints(checkedEndpoints(endpoints));
  }

  /** Whether each endpoint is connected, and what was wrong last. */
  get status(): readonly EndpointStatus[] {
    return this.caller.links.status;
  }

  /**
   * The status of the endpoints now, and again whenever one of them connects, is lost or cannot be reached. Ends with its
   * loop, the signal, or the client.
   *
   * @example
   * for await (const endpoints of client.statuses()) {
   *   for (const { endpoint, connected, problem } of endpoints) console.log(endpoint, connected ? "up" : problem);
   * }
   */
  async *statuses(
    options: Pick<CallOptions, "signal"> = {},
  ): AsyncGenerator<readonly EndpointStatus[], void, undefined> {
    const { links } = this.caller;
    const { signal } = options;
    for (let seen = -1; !this.caller.closed; ) {
      signal?.throwIfAborted();
      if (seen !== links.changes) {
        seen = links.changes;
        yield links.status;
      } else await links.changed(signal);
    }
  }

  /** Bytes of requests that have no answer yet. */
  get pendingBytes(): number {
    return this.caller.pending.bytes;
  }

  /**
   * Resolves when little of what was asked is without an answer: less than a quarter of `pendingBytesMax`. For programs
   * that write faster than they wait for answers.
   *
   * @example
   * for (const key of ["a", "b", "c"]) {
   *   await client.drained();
   *   client.put(key, "value").catch(console.error);
   * }
   */
  drained(): Promise<void> {
    return this.caller.pending.drained();
  }

  /** Resolves once a member answers; rejects like any call, with what is wrong. */
  async ready(options?: CallOptions): Promise<void> {
    await this.maintenance.status(options);
  }

  /**
   * Ends all watches and leases with this reason, and keeps the client: for when the cluster's data has been replaced,
   * and what they know is of a state that is gone.
   */
  endSessions(reason: Error): void {
    this.sharedWatches.close(reason);
    this.leases.loseAll(reason.message);
  }

  /** Ends all watches, stops renewing leases, fails calls in progress with ClientClosedError, and disconnects. */
  close(): void {
    this.sharedWatches.close();
    this.leases.close();
    this.caller.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }
}

function callerOf(options: ClientOptions): Caller {
  const { username, password, endpoints = DEFAULT_ENDPOINT } = options;
  if ((username === undefined) !== (password === undefined)) {
    throw new ClientOptionsError("give username and password both, or neither");
  }
  checkPositive(options, "milliseconds", ["timeoutMs", "connectTimeoutMs", "keepAliveMs", "keepAliveTimeoutMs"]);
  checkPositive(options, "bytes", ["requestBytesMax", "pendingBytesMax", "responseBytesMax"]);
  const caller = new Caller(checkedEndpoints(typeof endpoints === "string" ? endpoints.split(",") : endpoints), {
    tls: options.tls,
    connectTimeoutMs: options.connectTimeoutMs ?? 3000,
    keepAliveMs: options.keepAliveMs ?? 10_000,
    keepAliveTimeoutMs: options.keepAliveTimeoutMs ?? 5000,
    roundRobin: options.balance === "round-robin",
    clock: options.clock ?? systemClock,
    random: options.random ?? systemRandom,
    chunks: new ChunkPool(),
    connect: options.connect,
    failFast: options.failFast ?? false,
    timeoutMs: options.timeoutMs ?? 10_000,
    requestBytesMax: options.requestBytesMax ?? REQUEST_BYTES_MAX,
    pendingBytesMax: options.pendingBytesMax ?? PENDING_BYTES_MAX,
    responseBytesMax: options.responseBytesMax ?? RESPONSE_BYTES_MAX,
  });
  if (username !== undefined && password !== undefined) caller.tokens = new Tokens(caller, username, password);
  return caller;
}

function checkPositive(options: ClientOptions, unit: string, names: readonly (keyof ClientOptions)[]): void {
  for (const name of names) {
    const value = options[name];
    if (value !== undefined && !(Number(value) > 0))
      throw new ClientOptionsError(`${name} is ${String(value)}: give ${unit} above 0`);
  }
}

function checkedEndpoints(endpoints: readonly string[]): readonly string[] {
  if (endpoints.length === 0) throw new ClientOptionsError("endpoints is empty: give at least one member");
  return [...new Set(endpoints.map((endpoint) => endpoint.trim()))];
}
