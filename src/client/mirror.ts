/**
 * A range of keys in memory, kept up to date by a watch: always the whole state of one revision, never half of one.
 *
 * When the history that it needs is compacted it lists all keys again and reports the differences. Reads cost no request,
 * and see the past by some milliseconds; `sync` waits until they see everything that was written before it was called.
 */
import type { Timer } from "../base/clock.ts";
import { Code } from "../base/grpc-codes.ts";
import { KVService } from "../proto/etcdserverpb.ts";
import type { KeyRange, KeyValue } from "./keys.ts";
import type { Keyspace } from "./keyspace.ts";
import { countRequest } from "./operations.ts";
import { type CallOptions, ClientClosedError } from "./options.ts";
import { RpcError } from "./rpc-error.ts";
import { WatchCompactedError, type WatchEvent } from "./watch-events.ts";
import type { Watcher } from "./watcher.ts";

/** A key of a mirror has changed. */
export type MirrorChange<V, K> =
  | { readonly type: "set"; readonly kv: KeyValue<V, K>; readonly previous: KeyValue<V, K> | undefined }
  | { readonly type: "delete"; readonly key: K; readonly previous: KeyValue<V, K> };

/** Who is told, and when a mirror ends. */
export interface MirrorOptions<V, K> {
  /** Called for each change after the first listing, once the state that it belongs to can be read. */
  readonly onChange?: (change: MirrorChange<V, K>) => void;
  readonly signal?: AbortSignal;
}

interface Waiter {
  readonly revision: number;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

const RETRY_MS = 200;
/** How often the server is asked how far it is, while somebody waits. */
const ASK_MS = 100;
/** After these errors the listing may succeed later. */
const PASSING: readonly number[] = [Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELED, Code.OUT_OF_RANGE];

/**
 * Ends with `close`, `await using` or its signal.
 *
 * @example
 * await using config = new Mirror(client.namespace("config/"), { all: true });
 * await config.ready;
 * console.log(config.get("colour")?.value);
 */
export class Mirror<V, K> {
  readonly #keyspace: Keyspace<V, K>;
  readonly #range: KeyRange;
  readonly #options: MirrorOptions<V, K>;
  readonly #abort = new AbortController();
  #pairs = new Map<string, KeyValue<V, K>>();
  #revision = 0;
  #watcher: Watcher<V, K> | undefined;
  #waiters: Waiter[] = [];
  #asking: Timer | undefined;
  #failure: { readonly error: unknown } | undefined;
  readonly #ready: Promise<void>;

  constructor(keyspace: Keyspace<V, K>, range: KeyRange, options: MirrorOptions<V, K> = {}) {
    this.#keyspace = keyspace;
    this.#range = range;
    this.#options = options;
    this.#ready = this.#waiterFor(1).promise;
    options.signal?.addEventListener("abort", () => this.#end(options.signal?.reason), { once: true });
    void this.#run();
  }

  /** Resolves when the first state is there. */
  get ready(): Promise<void> {
    return this.#ready;
  }

  /** The state is that of this revision; 0 before the first. */
  get revision(): number {
    return this.#revision;
  }

  get size(): number {
    return this.#state.size;
  }

  /** The pair of a key, given as in answers. Throws when the mirror has ended: it would be out of date. */
  get(key: K): KeyValue<V, K> | undefined {
    return this.#state.get(this.#nameOf(key));
  }

  has(key: K): boolean {
    return this.#state.has(this.#nameOf(key));
  }

  /** All pairs, in the order of their keys. */
  values(): readonly KeyValue<V, K>[] {
    return [...this.#state].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, kv]) => kv);
  }

  /**
   * Waits until the mirror has reached a revision, such as that of a write.
   *
   * @example
   * const { revision } = await client.put("config/a", "1");
   * await mirror.waitFor(revision);
   */
  async waitFor(revision: number, options: CallOptions = {}): Promise<void> {
    const { caller } = this.#keyspace;
    const timeoutMs = options.timeoutMs ?? caller.timeoutMs;
    let timer: Timer | undefined;
    const waiter = this.#waiterFor(revision);
    const late = new Promise<never>((_, reject) => {
      const text = `the mirror has not reached revision ${revision} within ${timeoutMs} ms`;
      if (timeoutMs !== Number.POSITIVE_INFINITY)
        timer = caller.clock.after(timeoutMs, () => reject(new RpcError(Code.DEADLINE_EXCEEDED, text)));
      options.signal?.addEventListener("abort", () => reject(options.signal?.reason), { once: true });
    });
    try {
      options.signal?.throwIfAborted();
      await Promise.race([waiter.promise, late]);
    } finally {
      timer?.cancel();
      waiter.forget();
    }
  }

  /**
   * Waits until the mirror shows everything that was written anywhere before this call. Needs members from etcd 3.4.25 or
   * 3.5.8 on, or kvorum.
   */
  async sync(options?: CallOptions): Promise<void> {
    const { caller, space } = this.#keyspace;
    const request = countRequest(space, this.#range);
    const revision = await caller.unary(
      KVService.Range,
      request,
      "read",
      options,
      ({ header }) => header?.revision ?? 0,
    );
    await this.waitFor(revision, options);
  }

  /** Ends it. */
  close(): void {
    this.#end(new ClientClosedError("the mirror"));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }

  get #state(): Map<string, KeyValue<V, K>> {
    if (this.#failure !== undefined) throw this.#failure.error;
    return this.#pairs;
  }

  #nameOf(key: K): string {
    return Buffer.from(this.#keyspace.space.keys.encode(key)).toString("latin1");
  }

  async #run(): Promise<void> {
    const { caller } = this.#keyspace;
    while (this.#failure === undefined) {
      try {
        await this.#list();
        await this.#follow();
      } catch (error) {
        if (error instanceof WatchCompactedError) continue;
        if (this.#failure !== undefined) return;
        if (!(error instanceof RpcError) || !PASSING.includes(error.code) || caller.closed) return this.#end(error);
        await new Promise<void>((resolve) => void caller.clock.after(RETRY_MS, resolve));
      }
    }
  }

  async #list(): Promise<void> {
    const pairs = new Map<string, KeyValue<V, K>>();
    let revision = 0;
    for await (const page of this.#keyspace.pages(this.#range, { signal: this.#abort.signal })) {
      // All pages are of the first one's revision.
      if (revision === 0) revision = page.revision;
      for (const kv of page.kvs) pairs.set(this.#nameOf(kv.key), kv);
    }
    const before = this.#pairs;
    const isFirst = this.#revision === 0;
    this.#pairs = pairs;
    this.#revision = revision;
    if (!isFirst) this.#reportDifferences(before, pairs);
    this.#reached();
  }

  #reportDifferences(before: Map<string, KeyValue<V, K>>, after: Map<string, KeyValue<V, K>>): void {
    for (const [name, kv] of after) {
      const previous = before.get(name);
      if (previous?.modRevision !== kv.modRevision) this.#options.onChange?.({ type: "set", kv, previous });
    }
    for (const [name, previous] of before) {
      if (!after.has(name)) this.#options.onChange?.({ type: "delete", key: previous.key, previous });
    }
  }

  async #follow(): Promise<void> {
    const options = { revision: this.#revision + 1, signal: this.#abort.signal };
    const watcher = this.#keyspace.watch(this.#range, options);
    this.#watcher = watcher;
    for await (const { events, revision } of watcher.batches()) {
      const changes = events.map((event) => this.#apply(event));
      this.#revision = Math.max(this.#revision, revision);
      for (const change of changes) if (change !== undefined) this.#options.onChange?.(change);
      this.#reached();
    }
  }

  #apply(event: WatchEvent<V, K>): MirrorChange<V, K> | undefined {
    const name = this.#nameOf(event.key);
    const previous = this.#pairs.get(name);
    if (event.type === "put") {
      this.#pairs.set(name, event.kv);
      return { type: "set", kv: event.kv, previous };
    }
    this.#pairs.delete(name);
    return previous === undefined ? undefined : { type: "delete", key: event.key, previous };
  }

  #waiterFor(revision: number): { readonly promise: Promise<void>; forget(): void } {
    let waiter: Waiter | undefined;
    const promise = new Promise<void>((resolve, reject) => {
      if (this.#failure !== undefined) return reject(this.#failure.error);
      if (this.#revision >= revision) return resolve();
      waiter = { revision, resolve, reject };
      this.#waiters.push(waiter);
      this.#watcher?.requestProgress();
      this.#asking ??= this.#keyspace.caller.clock.every(ASK_MS, () => this.#watcher?.requestProgress());
    });
    // Who does not wait for it any more need not know.
    promise.catch(() => {});
    const forget = () => {
      this.#waiters = this.#waiters.filter((each) => each !== waiter);
      if (this.#waiters.length === 0) this.#stopAsking();
    };
    return { promise, forget };
  }

  #reached(): void {
    if (this.#waiters.length === 0) return;
    const done = this.#waiters.filter(({ revision }) => revision <= this.#revision);
    const waiting = this.#waiters.filter(({ revision }) => revision > this.#revision);
    this.#waiters = waiting;
    if (waiting.length === 0) this.#stopAsking();
    for (const { resolve } of done) resolve();
  }

  #stopAsking(): void {
    this.#asking?.cancel();
    this.#asking = undefined;
  }

  #end(error: unknown): void {
    if (this.#failure !== undefined) return;
    this.#failure = { error };
    this.#stopAsking();
    this.#abort.abort(error);
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const { reject } of waiters) reject(error);
  }
}
