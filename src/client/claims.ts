/**
 * Claims: keys that queue up for something that one client can have at a time, a lock or the leadership of an election.
 *
 * A claim is a key under the name, attached to a lease of its own; the oldest key (by create revision) holds. That is the
 * recipe of etcd's own clients and of `etcdctl lock` and `etcdctl elect`, so all of them exclude each other. The create
 * revision is the fencing token: it grows from each holder to the next.
 */
import { Code } from "../base/grpc-codes.ts";
import { KVService, type TxnResponse } from "../proto/etcdserverpb.ts";
import type { Caller } from "./caller.ts";
import { bytes } from "./codec.ts";
import { type Key, Space } from "./keys.ts";
import { type Lease, LeaseLostError, type Leases } from "./leases.ts";
import { type Comparison, type Ops, op, type Txn, type TxnResult, txnRequest, txnResult, when } from "./operations.ts";
import { type CallOptions, ClientClosedError } from "./options.ts";
import { RpcError } from "./rpc-error.ts";
import type { Safety } from "./safety.ts";
import { WatchCompactedError } from "./watch-events.ts";
import type { Watches } from "./watches.ts";

/** How a lock or a leadership is waited for. */
export interface ClaimOptions {
  /** Seconds after which others get it when this client is gone; 10 when absent. */
  readonly ttl?: number;
  /** Gives up waiting, and the place in the queue. */
  readonly signal?: AbortSignal;
}

const TTL_DEFAULT = 10;
/** No limit but the lease: a claim waits for as long as it takes. */
const FOREVER: CallOptions = { timeoutMs: Number.POSITIVE_INFINITY };

type Raw = Space<Uint8Array, Uint8Array>;

/** What a claim needs of its client. */
export interface ClaimContext {
  readonly caller: Caller;
  readonly watches: Watches;
  readonly leases: Leases;
  /** The keys of the namespace. */
  readonly prefix: Uint8Array;
}

/** What a claim has become. */
export interface Held {
  readonly lease: Lease;
  readonly key: Uint8Array;
  readonly token: number;
}

/** A lock or a leadership that is held, until it is released or lost. Close it with `await using` or `release`. */
export class Claim {
  readonly lease: Lease;
  /** The key, as stored. */
  readonly key: Uint8Array;
  /** The fencing token: higher than that of every earlier holder. Let what you protect refuse lower ones. */
  readonly token: number;
  /**
   * Aborted when it is released or lost; the reason is a LeaseLostError when it is lost. That is before another client can
   * have it, unless the key was deleted by hand.
   */
  readonly signal: AbortSignal;
  readonly #context: ClaimContext;
  readonly #deleted = new AbortController();

  /** @internal */
  constructor(context: ClaimContext, { lease, key, token }: Held) {
    this.#context = context;
    this.lease = lease;
    this.key = key;
    this.token = token;
    this.signal = AbortSignal.any([lease.signal, this.#deleted.signal]);
    void this.#guard();
  }

  /** Whether it is held for certain. */
  get isHeld(): boolean {
    return !this.signal.aborted && this.lease.isAlive;
  }

  /** A condition for transactions that must happen only while it is held; for a client without namespace. */
  get condition(): Comparison<never> {
    return when.createRevision(this.key, "=", this.token);
  }

  /** Gives it to the next. */
  async release(options?: CallOptions): Promise<void> {
    if (this.#deleted.signal.aborted) return;
    this.#deleted.abort(new ClientClosedError("the claim"));
    await this.lease.revoke(options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release();
  }

  /** Somebody may delete the key by hand. */
  async #guard(): Promise<void> {
    const { caller, watches } = this.#context;
    for (let revision = this.token + 1; ; ) {
      try {
        const watcher = watches.watch(RAW, this.key, { revision, without: "put", signal: this.signal });
        for await (const _ of watcher) break;
        return this.#lose(new LeaseLostError(this.lease.id, "its key was deleted"));
      } catch (error) {
        if (this.signal.aborted) return;
        if (!(error instanceof WatchCompactedError)) return this.#lose(error);
      }
      // The history is gone: only the present tells.
      try {
        const answer = await rawTxn(caller, { compare: [this.condition] }, "read", { signal: this.signal });
        if (!answer.succeeded) return this.#lose(new LeaseLostError(this.lease.id, "its key was deleted"));
        revision = answer.revision + 1;
      } catch (error) {
        return this.#lose(error);
      }
    }
  }

  #lose(cause: unknown): void {
    if (this.signal.aborted) return;
    const lost =
      cause instanceof LeaseLostError
        ? cause
        : new LeaseLostError(this.lease.id, "its key cannot be watched", { cause });
    this.#deleted.abort(lost);
  }
}

const RAW: Raw = new Space(new Uint8Array(), bytes, bytes);

/**
 * Waits until the claim holds. Rejects with the signal's reason, with LeaseLostError when the lease was lost meanwhile, or
 * as its requests do. Leaves nothing behind then.
 */
export async function claim(context: ClaimContext, name: Key, value: Uint8Array, options: ClaimOptions): Promise<Held> {
  const { caller, leases } = context;
  const { signal, ttl = TTL_DEFAULT } = options;
  signal?.throwIfAborted();
  const lease = await leases.grant(ttl, signal === undefined ? {} : { signal });
  const either = signal === undefined ? lease.signal : AbortSignal.any([signal, lease.signal]);
  try {
    const key = claimKey(context.prefix, name, lease.id);
    const token = await enqueue(caller, key, value, lease, either);
    await waitForTurn(context, folderOf(context.prefix, name), key, token, lease, either);
    return { lease, key, token };
  } catch (error) {
    // Without a member to tell, it ends by itself after its time.
    await lease.revoke().catch(() => lease.abandon());
    throw error;
  }
}

export function folderOf(prefix: Uint8Array, name: Key): Uint8Array {
  return Buffer.concat([prefix, Buffer.from(name), SLASH]);
}

const SLASH = Buffer.from("/");

/** Source: etcd's client/v3/concurrency. */
function claimKey(prefix: Uint8Array, name: Key, lease: bigint): Uint8Array {
  return Buffer.concat([folderOf(prefix, name), Buffer.from(BigInt.asUintN(64, lease).toString(16))]);
}

async function enqueue(
  caller: Caller,
  key: Uint8Array,
  value: Uint8Array,
  lease: Lease,
  signal: AbortSignal,
): Promise<number> {
  const txn = {
    compare: [when.missing(key)],
    success: [op.put(key, value, { lease })],
    failure: [op.get(key)],
  } as const;
  // Late, it would find the lease ended.
  const answer = await rawTxn(caller, txn, "read", { ...FOREVER, signal });
  if (answer.succeeded) return answer.revision;
  const [kv] = answer.results;
  if (kv === undefined) throw new RpcError(Code.INTERNAL, "the key of a claim is neither there nor missing");
  return kv.createRevision;
}

async function waitForTurn(
  { caller, watches }: ClaimContext,
  folder: Uint8Array,
  key: Uint8Array,
  token: number,
  lease: Lease,
  signal: AbortSignal,
): Promise<void> {
  for (;;) {
    const before = { sort: "create", descending: true, limit: 1, maxCreateRevision: token - 1 } as const;
    const txn = {
      compare: [when.createRevision(key, "=", token)],
      success: token === 1 ? [] : [op.range({ prefix: folder }, before)],
    } as const;
    const answer = await rawTxn(caller, txn, "read", { ...FOREVER, signal });
    if (!answer.succeeded) throw new LeaseLostError(lease.id, "its key was deleted while it waited");
    const [earlier] = answer.results;
    const predecessor = earlier?.kvs[0];
    if (predecessor === undefined) return;
    try {
      const options = { revision: answer.revision + 1, without: "put", signal } as const;
      for await (const _ of watches.watch(RAW, predecessor.key, options)) break;
    } catch (error) {
      if (!(error instanceof WatchCompactedError)) throw error;
    }
  }
}

/** A transaction on keys as stored. `read`: it does no harm when it is carried out twice, even much later. */
export function rawTxn<const S extends Ops<Uint8Array> = readonly [], const F extends Ops<Uint8Array> = readonly []>(
  caller: Caller,
  txn: Txn<Uint8Array, S, F>,
  safety: Safety,
  options: CallOptions | undefined,
): Promise<TxnResult<S, F, Uint8Array, Uint8Array>> {
  return caller.unary(KVService.Txn, txnRequest(RAW, txn), safety, options, (answer: TxnResponse) =>
    txnResult(RAW, txn, answer),
  );
}
