/** Reads and writes of keys, within a prefix and with codecs; its views share the connections of their client. */
import { KVService, type RangeRequest } from "../proto/etcdserverpb.ts";
import type { Caller } from "./caller.ts";
import { Claim, type ClaimContext, type ClaimOptions, claim } from "./claims.ts";
import type { Codec } from "./codec.ts";
import { bytes, json } from "./codec.ts";
import { Election } from "./election.ts";
import { type Key, type KeyRange, type KeyValue, keyAfter, Space } from "./keys.ts";
import type { Leases } from "./leases.ts";
import {
  countRequest,
  type DeleteOptions,
  type DeleteResult,
  deleteRequest,
  deleteResult,
  type GetOptions,
  getRequest,
  getResult,
  type Ops,
  type PutOptions,
  type PutResult,
  putRequest,
  putResult,
  type RangeOptions,
  type RangeResult,
  rangeRequest,
  rangeResult,
  type Txn,
  type TxnResult,
  txnRequest,
  txnResult,
} from "./operations.ts";
import type { CallOptions } from "./options.ts";
import { streamedRange } from "./range-stream.ts";
import { type Transaction, type TransactionResult, transact } from "./transaction.ts";
import type { Watcher, WatchOptions } from "./watcher.ts";
import type { Watches } from "./watches.ts";

/** What is listed, and in pages of how many. */
export interface ListOptions extends Omit<RangeOptions, "limit" | "sort" | "descending">, CallOptions {
  /** Keys of one request; 1,000 when absent. */
  readonly pageSize?: number;
}

const PAGE_SIZE = 1000;

/** What can be done with keys: of a client, and of its views. */
export class Keyspace<V, K> {
  /** @internal */
  readonly caller: Caller;
  /** @internal */
  readonly space: Space<V, K>;
  /** @internal */
  readonly sharedWatches: Watches;
  /** @internal */
  readonly sharedLeases: Leases;

  /** @internal */
  constructor(caller: Caller, space: Space<V, K>, watches: Watches, leases: Leases) {
    this.caller = caller;
    this.space = space;
    this.sharedWatches = watches;
    this.sharedLeases = leases;
  }

  #view<W, L>(space: Space<W, L>): Keyspace<W, L> {
    return new Keyspace(this.caller, space, this.sharedWatches, this.sharedLeases);
  }

  // ---- views

  /**
   * The keys under a prefix, as if there were no others: it is added to all that is asked, and taken off all answers.
   *
   * @example
   * const app = client.namespace("app/");
   * await app.put("a", "1"); // app/a
   */
  namespace(prefix: Key): Keyspace<V, K> {
    const { space } = this;
    return this.#view(new Space(space.key(prefix), space.keys, space.values));
  }

  /**
   * The same keys with another type of values.
   *
   * @example
   * const scores = client.values(json<number>());
   */
  values<T>(codec: Codec<T>): Keyspace<T, K> {
    return this.#view(new Space(this.space.prefix, this.space.keys, codec));
  }

  /** The same values with another type of keys in answers. */
  keys<T>(codec: Codec<T>): Keyspace<V, T> {
    return this.#view(new Space(this.space.prefix, codec, this.space.values));
  }

  /** Keys and values as bytes. */
  get bytes(): Keyspace<Uint8Array, Uint8Array> {
    return this.#view(new Space(this.space.prefix, bytes, bytes));
  }

  /** Values as JSON. */
  json<T>(): Keyspace<T, K> {
    return this.values(json<T>());
  }

  // ---- reads: repeated on another member when one fails

  /**
   * The pair of a key, or undefined.
   *
   * @example
   * const value = (await client.get("greeting"))?.value;
   */
  get(key: Key, options?: GetOptions & CallOptions): Promise<KeyValue<V, K> | undefined> {
    const request = getRequest(this.space, key, options);
    return this.caller.unary(KVService.Range, request, "read", options, (answer) => getResult(this.space, answer));
  }

  /**
   * The pairs of a range in one answer; for many of them use `list`.
   *
   * @example
   * const { kvs, count } = await client.range({ prefix: "jobs/" }, { limit: 10, sort: "mod", descending: true });
   */
  range(range: KeyRange, options?: RangeOptions & CallOptions): Promise<RangeResult<V, K>> {
    const request = rangeRequest(this.space, range, options);
    return this.caller.unary(KVService.Range, request, "read", options, (answer) =>
      rangeResult(this.space, answer, options?.keysOnly),
    );
  }

  /**
   * All pairs of a range in the order of their keys, page by page, all of one revision. Rejects with RpcError OUT_OF_RANGE
   * if that revision is compacted meanwhile. The next page is asked for when the one before is used up.
   *
   * @example
   * for await (const { key, value } of client.list({ prefix: "jobs/" })) console.log(key, value);
   */
  async *list(range: KeyRange, options: ListOptions = {}): AsyncGenerator<KeyValue<V, K>, void, undefined> {
    for await (const page of this.pages(range, options)) yield* page.kvs;
  }

  /** The same, page by page. */
  pages(range: KeyRange, options: ListOptions = {}): AsyncGenerator<RangeResult<V, K>, void, undefined> {
    const request = rangeRequest(this.space, range, { ...options, limit: options.pageSize ?? PAGE_SIZE });
    return this.#pagesFrom(request, options);
  }

  async *#pagesFrom(request: RangeRequest, options: ListOptions): AsyncGenerator<RangeResult<V, K>, void, undefined> {
    for (;;) {
      let last: Uint8Array | undefined;
      const page = await this.caller.unary(KVService.Range, { ...request }, "read", options, (answer) => {
        const stored = answer.kvs.at(-1);
        if (stored !== undefined) last = Buffer.from(stored.key);
        return rangeResult(this.space, answer, options.keysOnly);
      });
      yield page;
      if (!page.more || last === undefined) return;
      request.key = keyAfter(last);
      if (request.revision === 0) request.revision = page.revision;
    }
  }

  /**
   * The pairs of a range, all of one revision, in the order of their keys, as the server reads them: one request and a
   * stream of answers (`RangeStream`, from etcd 3.7 on), which waits for the loop. With members that have none, and after
   * an interruption, it goes on page by page. Rejects as `list` does.
   *
   * @example
   * for await (const { key, value } of client.stream({ all: true })) console.log(key, value.length);
   */
  async *stream(range: KeyRange, options: ListOptions = {}): AsyncGenerator<KeyValue<V, K>, void, undefined> {
    const at = await this.#revisionOf(range, options);
    const last: { key: Uint8Array | undefined } = { key: undefined };
    const request = rangeRequest(this.space, range, { ...options, revision: at });
    const isWhole = yield* streamedRange(this.caller, this.space, request, last, options);
    if (isWhole) return;
    const from = last.key === undefined ? request.key : keyAfter(last.key);
    for await (const page of this.#pagesFrom(
      { ...request, key: from, limit: options.pageSize ?? PAGE_SIZE },
      options,
    )) {
      yield* page.kvs;
    }
  }

  /** The revision that is asked for, or the newest. */
  async #revisionOf(range: KeyRange, options: ListOptions): Promise<number> {
    if (options.revision !== undefined && options.revision > 0) return options.revision;
    const request = { ...rangeRequest(this.space, range, options), limit: 1, keysOnly: true };
    return this.caller.unary(KVService.Range, request, "read", options, ({ header }) => header?.revision ?? 0);
  }

  /** How many keys there are. */
  count(range: KeyRange, options?: GetOptions & CallOptions): Promise<number> {
    const request = countRequest(this.space, range, options);
    return this.caller.unary(KVService.Range, request, "read", options, (answer) => answer.count);
  }

  // ---- writes: never sent twice when the first may have been carried out

  /**
   * Writes a key.
   *
   * @example
   * await client.put("greeting", "hello");
   * const { previous } = await client.put("greeting", "hi", { previous: true });
   */
  put(key: Key, value: V, options?: PutOptions & CallOptions): Promise<PutResult<V, K>> {
    const request = putRequest(this.space, key, value, options);
    return this.caller.unary(KVService.Put, request, "write", options, (answer) => putResult(this.space, answer));
  }

  /** Deletes a key or a range: its keys are gone at one revision. */
  delete(range: KeyRange, options?: DeleteOptions & CallOptions): Promise<DeleteResult<V, K>> {
    const request = deleteRequest(this.space, range, options);
    return this.caller.unary(KVService.DeleteRange, request, "write", options, (answer) =>
      deleteResult(this.space, answer),
    );
  }

  /**
   * Carries out one of two lists of operations, all of it at one revision. The types of the results follow from the
   * operations.
   *
   * @example
   * const answer = await client.txn({
   *   compare: [when.missing("door")],
   *   success: [op.put("door", "mine")],
   *   failure: [op.get("door")],
   * });
   * if (!answer.succeeded) console.log("taken by", answer.results[0]?.value);
   */
  txn<const S extends Ops<V> = readonly [], const F extends Ops<V> = readonly []>(
    txn: Txn<V, S, F>,
    options?: CallOptions,
  ): Promise<TxnResult<S, F, V, K>> {
    const request = txnRequest(this.space, txn);
    return this.caller.unary(KVService.Txn, request, isReadOnly(txn) ? "read" : "write", options, (answer) =>
      txnResult(this.space, txn, answer),
    );
  }

  // ---- watches

  /**
   * What happens to the keys of a range, from now on or from a revision on. It goes on over reconnects and other members
   * until it is closed, and neither loses nor repeats an event. Throws, from the loop, WatchCompactedError when the past
   * it asks for is gone, and RpcError when the server refuses it.
   *
   * @example
   * const watcher = client.watch({ prefix: "jobs/" });
   * await watcher.ready; // what happens from here on is seen
   * for await (const event of watcher) console.log(event.type, event.key);
   */
  watch(range: KeyRange, options: WatchOptions = {}): Watcher<V, K> {
    return this.sharedWatches.watch(this.space, range, options);
  }

  // ---- coordination

  /**
   * Waits for a lock. It is lost when this client cannot renew its lease: then `lock.signal` fires, before another client
   * can have it. Let what it protects check `lock.token`, which grows from holder to holder.
   *
   * @example
   * await using lock = await client.lock("migration", { ttl: 15 });
   * await migrate({ signal: lock.signal, fencingToken: lock.token });
   */
  async lock(name: Key, options: ClaimOptions = {}): Promise<Claim> {
    return new Claim(this.#claims, await claim(this.#claims, name, new Uint8Array(), options));
  }

  /** An election by name; its values are those of this view. */
  election(name: Key): Election<V> {
    return new Election(this.#claims, name, this.space.values);
  }

  get #claims(): ClaimContext {
    return {
      caller: this.caller,
      watches: this.sharedWatches,
      leases: this.sharedLeases,
      prefix: this.space.prefix,
    };
  }

  /**
   * Calls a function that reads and writes keys, and carries its writes out at once if nothing it has read has changed;
   * calls it again otherwise, until the deadline. Only `transaction` may have effects in it.
   *
   * @example
   * await client.transaction(async (transaction) => {
   *   const seats = Number(await transaction.get("seats"));
   *   if (seats > 0) transaction.put("seats", String(seats - 1));
   * });
   */
  transaction<T>(
    body: (transaction: Transaction<V, K>) => T | Promise<T>,
    options?: CallOptions,
  ): Promise<TransactionResult<T>> {
    return transact(this.caller, this.space, body, options);
  }
}

/** Whether a transaction changes nothing, so that it may be repeated. */
function isReadOnly<V>({ success = [], failure = [] }: Txn<V, Ops<V>, Ops<V>>): boolean {
  return [...success, ...failure].every((each) => {
    if (each.op === "txn") return isReadOnly(each.txn);
    return each.op !== "put" && each.op !== "delete";
  });
}
