/** Leases, renewed three times within their life; `lost` is emitted when one is gone, or must be taken for gone. */
import { EventEmitter } from "node:events";
import { systemClock, type Timer } from "../base/clock.ts";
import { RpcError } from "../client/rpc-error.ts";
import type { StreamCall } from "../client/stream-call.ts";
import { type LeaseKeepAliveRequest, type LeaseKeepAliveResponse, LeaseService } from "../proto/etcdserverpb.ts";
import type { PutBuilder } from "./builder.ts";
import { PutBuilder as LeasePut } from "./builder.ts";
import { KVClient, LeaseClient } from "./clients.ts";
import { castGrpcError, EtcdError, EtcdLeaseInvalidError } from "./errors.ts";
import type { ILeaseKeepAliveResponse } from "./messages.ts";
import type { CallOptions } from "./options.ts";
import type { ConnectionPool, ICallable } from "./pool.ts";
import type { NSApplicator } from "./util.ts";

export const LeaseState = { Pending: 0, Alive: 1, Revoked: 2 } as const;
export type LeaseState = (typeof LeaseState)[keyof typeof LeaseState];

export interface ILeaseOptions extends CallOptions {
  /** Renews it until it is revoked or released; true when absent. */
  readonly autoKeepAlive?: boolean;
}

export interface LeaseEvents {
  lost: [error: Error];
  keepaliveFired: [];
  keepaliveSucceeded: [response: ILeaseKeepAliveResponse];
  keepaliveFailed: [error: Error];
  keepaliveEstablished: [];
}

const RENEWALS = 3;
const RECONNECT_MS = 100;

type Stream = StreamCall<LeaseKeepAliveRequest, LeaseKeepAliveResponse>;

/** The rest of a header is not kept by this client. */
function renewal(id: string, ttl: number): ILeaseKeepAliveResponse {
  return { header: { cluster_id: "0", member_id: "0", revision: "0", raft_term: "0" }, ID: id, TTL: `${ttl}` };
}

export class Lease extends EventEmitter<LeaseEvents> {
  readonly #pool: ConnectionPool;
  readonly #namespace: NSApplicator;
  readonly #ttl: number;
  readonly #client: LeaseClient;
  readonly #options: CallOptions;
  readonly #id: Promise<string>;
  #state: LeaseState = LeaseState.Pending;
  #loss: Error | undefined;
  #renewedMs = systemClock.wallMs();
  #sentMs = 0;
  #timer: Timer | undefined;
  #retry: Timer | undefined;
  #stream: Stream | undefined;

  /** Throws for less than a second. */
  constructor(pool: ConnectionPool, namespace: NSApplicator, ttl: number, options: ILeaseOptions = {}) {
    super();
    if (!ttl || ttl < 1) throw new Error(`The TTL in an etcd lease must be at least 1 second. Got: ${ttl}`);
    const { autoKeepAlive = true, ...others } = options;
    this.#pool = pool;
    this.#namespace = namespace;
    this.#ttl = ttl;
    this.#options = others;
    this.#client = new LeaseClient(pool);
    this.#id = this.#grant(autoKeepAlive);
    // A failure is emitted, and given to those who ask.
    this.#id.catch(() => {});
  }

  get state(): LeaseState {
    return this.#state;
  }

  /** The id, once it is granted. */
  grant(): Promise<string> {
    return this.#id;
  }

  async revoke(options: CallOptions | undefined = this.#options): Promise<void> {
    this.#end(LeaseState.Revoked);
    if (this.#loss !== undefined) return;
    await this.#client.leaseRevoke({ ID: await this.#id }, options);
  }

  /** Stops renewing it, so that it ends by itself. */
  release(): void {
    this.#end(LeaseState.Revoked);
  }

  /** A write of a key that ends with the lease. */
  put(key: string | Buffer): PutBuilder {
    return new LeasePut(new KVClient(this.#watched()), this.#namespace, key).lease(this.#id);
  }

  /** Renews it now. Rejects with what `lost` emits when it is gone. */
  async keepaliveOnce(_options?: CallOptions): Promise<ILeaseKeepAliveResponse> {
    const id = await this.#id;
    const { client } = this.#pool;
    try {
      const sentMs = systemClock.wallMs();
      const ttl = await client.leases.keepAliveOnce(BigInt.asUintN(64, BigInt(id)));
      if (ttl === undefined) throw this.#lose(new EtcdLeaseInvalidError(id));
      this.#renewedMs = sentMs;
      return renewal(id, ttl);
    } catch (error) {
      throw error instanceof RpcError ? castGrpcError(error) : error;
    }
  }

  revoked(): boolean {
    return this.#state === LeaseState.Revoked;
  }

  async #grant(autoKeepAlive: boolean): Promise<string> {
    try {
      const { ID } = await this.#client.leaseGrant({ TTL: this.#ttl }, this.#options);
      this.#renewedMs = systemClock.wallMs();
      if (this.#state === LeaseState.Pending) {
        this.#state = LeaseState.Alive;
        if (autoKeepAlive) this.#renew(ID);
      }
      return ID;
    } catch (error) {
      throw this.#lose(error instanceof Error ? error : castGrpcError(error));
    }
  }

  #renew(id: string): void {
    this.#timer = systemClock.every((this.#ttl * 1000) / RENEWALS, () => this.#fire(id));
    this.emit("keepaliveEstablished");
    this.#open(id);
  }

  #fire(id: string): void {
    this.emit("keepaliveFired");
    if (this.#hasExpired(id)) return;
    this.#sentMs = systemClock.wallMs();
    this.#open(id).send({ id: BigInt.asUintN(64, BigInt(id)) });
  }

  /** Kept open between renewals: its end says that the member is gone. */
  #open(id: string): Stream {
    this.#stream ??= this.#pool.client.caller.stream(LeaseService.LeaseKeepAlive, {
      onMessage: ({ ttl }) => {
        if (ttl <= 0) return void this.#lose(new EtcdLeaseInvalidError(id));
        this.#renewedMs = this.#sentMs;
        this.emit("keepaliveSucceeded", renewal(id, ttl));
      },
      onEnd: (error) => this.#interrupted(id, error),
    });
    return this.#stream;
  }

  #interrupted(id: string, error: unknown): void {
    this.#stream = undefined;
    if (this.revoked()) return;
    this.emit("keepaliveFailed", castGrpcError(error ?? new EtcdError("the server ended the stream of renewals")));
    this.#retry = systemClock.after(RECONNECT_MS, () => this.#fire(id));
  }

  #hasExpired(id: string): boolean {
    if (systemClock.wallMs() - this.#renewedMs <= this.#ttl * 1000) return false;
    this.#lose(new EtcdLeaseInvalidError(`${id} (our lease has expired)`));
    return true;
  }

  #lose(error: Error): Error {
    if (this.#loss !== undefined) return this.#loss;
    this.#loss = error;
    this.#end(LeaseState.Revoked);
    this.emit("lost", error);
    return error;
  }

  #end(state: LeaseState): void {
    this.#state = state;
    this.#timer?.cancel();
    this.#retry?.cancel();
    this.#stream?.cancel();
    this.#stream = undefined;
  }

  /** Calls that notice when the server has no such lease. */
  #watched(): ICallable {
    return {
      exec: async (service, method, params, options) => {
        try {
          return await this.#pool.exec(service, method, params, options);
        } catch (error) {
          throw error instanceof EtcdLeaseInvalidError ? this.#lose(error) : error;
        }
      },
    };
  }
}
