/**
 * The lease under which a proxy holds keys, and one watch of all leasing keys. While the lease exists for certain, and the
 * watch has seen everything, what the cache has is the present state; when either ends, the cache is empty and another begins.
 *
 * A leasing key is `<prefix><key>`. Who wants to write a key that another holds puts REVOKE into it, without changing its
 * lease, and waits for its end. Source: etcd v3.7, client/v3/leasing.
 */
import { inBackground } from "../../../base/background.ts";
import type { Timer } from "../../../base/clock.ts";
import { messageOf } from "../../../base/errors.ts";
import { Code } from "../../../base/grpc-codes.ts";
import type { Logger } from "../../../base/log.ts";
import type { Keyspace } from "../../../client/keyspace.ts";
import type { Lease, Leases } from "../../../client/leases.ts";
import { op, when } from "../../../client/operations.ts";
import { RpcError } from "../../../client/rpc-error.ts";
import type { WatchEvent } from "../../../client/watch-events.ts";
import type { UnaryCall } from "../../../rpc/contract.ts";
import { LeasingCache, nameOf } from "./cache.ts";

/** Source: etcd's concurrency package. */
const TTL_S = 60;
const RETRY_MS = 1000;
const READY_MS_MAX = 10_000;
export const REVOKE = Buffer.from("REVOKE");

export interface LeasingSessionOptions {
  readonly leases: Leases;
  /** As the proxy's clients see the keys. */
  readonly keys: Keyspace<Uint8Array, Uint8Array>;
  readonly prefix: string;
  readonly logger: Logger;
}

export class LeasingSession {
  readonly prefix: Buffer;
  readonly cache: LeasingCache;
  readonly #options: LeasingSessionOptions;
  readonly #closing = new AbortController();
  #lease: Lease | undefined;
  #problem = "it is being made";
  /** Told when there is a session. */
  #waiting = new Set<() => void>();
  readonly #deletions = new Map<string, Set<Deletion>>();

  constructor(options: LeasingSessionOptions) {
    this.#options = options;
    this.prefix = Buffer.from(options.prefix);
    const { clock } = options.leases.caller;
    this.cache = new LeasingCache(
      () => clock.nowMs(),
      ({ name, heldSince }) => this.giveUp(name, heldSince),
    );
    inBackground(this.#run(), "hold a lease for keys", options.logger);
  }

  /** The lease that keys are held with, while it exists for certain. */
  get lease(): bigint | undefined {
    return this.#lease?.isAlive ? this.#lease.id : undefined;
  }

  /** A member says that there is no such lease: another session begins. */
  lose(lease: bigint): void {
    if (this.#lease?.id === lease) this.#lease.lose("the server has no such lease");
  }

  /** Waits for a session. Rejects with RpcError, at once when the client leaves. */
  async ready(call: UnaryCall): Promise<void> {
    if (this.lease !== undefined) return;
    const reached = await this.#wait(call, this.#waiting, READY_MS_MAX);
    if (!reached) throw new RpcError(Code.UNAVAILABLE, `the proxy has no lease to hold keys with: ${this.#problem}`);
  }

  leasingKey(key: Uint8Array): Buffer {
    return Buffer.concat([this.prefix, key]);
  }

  /** Notes from now on when the leasing key of `name` ends, until it is closed. */
  expectDeletion(name: string): Deletion {
    let all = this.#deletions.get(name);
    if (all === undefined) this.#deletions.set(name, (all = new Set()));
    const deletion: Deletion = {
      revision: 0,
      waiting: new Set(),
      close: () => {
        all.delete(deletion);
        if (all.size === 0 && this.#deletions.get(name) === all) this.#deletions.delete(name);
      },
    };
    all.add(deletion);
    return deletion;
  }

  /** Waits for the end of a leasing key behind `revision`, or of this session. */
  async gone(call: UnaryCall, deletion: Deletion, revision: number): Promise<void> {
    while (deletion.revision <= revision) await this.#wait(call, deletion.waiting);
  }

  close(): void {
    this.#closing.abort(new Error("the proxy is stopping"));
  }

  async #run(): Promise<void> {
    const { leases, logger } = this.#options;
    const { clock } = leases.caller;
    const { signal } = this.#closing;
    while (!signal.aborted) {
      let lease: Lease | undefined;
      try {
        lease = await leases.grant(TTL_S);
        await this.#follow(lease);
      } catch (error) {
        if (signal.aborted) break;
        this.#problem = messageOf(error);
        logger.warn("no lease to hold keys with, trying again", { error: this.#problem });
      } finally {
        this.#lost();
        // What this proxy held must not stay in the way of others for a minute.
        if (lease !== undefined) await lease.revoke().catch(() => {});
      }
      if (!signal.aborted) await new Promise<void>((resolve) => clock.after(RETRY_MS, resolve));
    }
  }

  /** Until the lease or the watch is lost, or the proxy stops. */
  async #follow(lease: Lease): Promise<void> {
    const { keys } = this.#options;
    const signal = AbortSignal.any([lease.signal, this.#closing.signal]);
    const watch = keys.watch({ prefix: this.prefix }, { signal });
    try {
      await watch.ready;
      this.#lease = lease;
      for (const tell of [...this.#waiting]) tell();
      for await (const event of watch) this.#seen(event, lease.id);
    } finally {
      watch.close();
    }
  }

  #lost(): void {
    this.#lease = undefined;
    this.cache.clear();
    for (const all of this.#deletions.values()) for (const deletion of all) ended(deletion, Number.POSITIVE_INFINITY);
  }

  #seen(event: WatchEvent<Uint8Array, Uint8Array>, lease: bigint): void {
    const { revision } = event;
    const key = event.key.subarray(this.prefix.length);
    const name = nameOf(key);
    if (event.type === "delete") {
      this.cache.lost(name, revision);
      for (const deletion of this.#deletions.get(name) ?? []) ended(deletion, revision);
    } else if (event.kv.lease === lease && REVOKE.equals(event.kv.value)) {
      this.cache.giveUp(name, revision);
      this.#delete(key, revision);
    }
  }

  /** Gives up a key that the cluster knows as held by this session, for want of room or of its present state. */
  giveUp(name: string, heldSince: number): void {
    this.cache.giveUp(name, heldSince);
    this.#delete(Buffer.from(name, "latin1"), heldSince + 1);
  }

  /** Deletes a leasing key that was created before a revision: one that is held again stays. */
  #delete(key: Uint8Array, before: number): void {
    const { keys, logger } = this.#options;
    const leasingKey = this.leasingKey(key);
    const lease = this.#lease;
    const work = async (): Promise<void> => {
      while (lease?.isAlive) {
        try {
          await keys.txn({ compare: [when.createRevision(leasingKey, "<", before)], success: [op.delete(leasingKey)] });
          return;
        } catch (error) {
          logger.warn("failed to give up a key, trying again", { error: messageOf(error) });
          await new Promise<void>((resolve) => this.#options.leases.caller.clock.after(RETRY_MS, resolve));
        }
      }
    };
    inBackground(work(), "give up a key", logger);
  }

  /** Until it is told, false after a time. Rejects when the client leaves. */
  #wait(call: UnaryCall, who: Set<() => void>, timeoutMs?: number): Promise<boolean> {
    return new Promise((resolve, reject) => {
      let timer: Timer | undefined;
      const end = (): void => {
        who.delete(tell);
        timer?.cancel();
        call.onCancel = null;
      };
      const tell = (): void => {
        end();
        resolve(true);
      };
      who.add(tell);
      if (timeoutMs !== undefined) {
        timer = this.#options.leases.caller.clock.after(timeoutMs, () => {
          end();
          resolve(false);
        });
      }
      const left = (): void => {
        end();
        reject(new RpcError(Code.CANCELED, "the client has left"));
      };
      if (call.cancelled) left();
      else call.onCancel = left;
    });
  }
}

/** Whether, and when, a leasing key has ended since somebody began to watch for that. */
export interface Deletion {
  revision: number;
  readonly waiting: Set<() => void>;
  close(): void;
}

function ended(deletion: Deletion, revision: number): void {
  deletion.revision = Math.max(deletion.revision, revision);
  for (const tell of [...deletion.waiting]) tell();
}
