/**
 * Software transactional memory: a function reads and writes keys as if it were alone; its writes are carried out only
 * when nothing that it has read has changed, and it is called again otherwise.
 */
import { KVService } from "../proto/etcdserverpb.ts";
import type { Caller } from "./caller.ts";
import type { Key, KeyValue, Space } from "./keys.ts";
import { type Comparison, getRequest, getResult, type Op, op, txnRequest, when } from "./operations.ts";
import type { CallOptions } from "./options.ts";

/** What the function of a transaction works with. */
export interface Transaction<V, K> {
  /** The value: of the transaction's own write, or as it was at the revision of its first read. */
  get(key: Key): Promise<V | undefined>;
  /** The stored pair, without what the transaction has written. */
  stored(key: Key): Promise<KeyValue<V, K> | undefined>;
  put(key: Key, value: V): void;
  delete(key: Key): void;
}

/** What became of a transaction. */
export interface TransactionResult<T> {
  /** What the function has returned. */
  readonly value: T;
  /** The revision of its writes; of its reads when it wrote nothing. */
  readonly revision: number;
  /** How often the function was called. */
  readonly tries: number;
}

const PAUSE_FIRST_MS = 2;
const PAUSE_MAX_MS = 200;

export async function transact<V, K, T>(
  caller: Caller,
  space: Space<V, K>,
  body: (transaction: Transaction<V, K>) => T | Promise<T>,
  options: CallOptions | undefined,
): Promise<TransactionResult<T>> {
  const untilMs = caller.deadlineOf(options, caller.timeoutMs);
  for (let tries = 1; ; tries++) {
    const left = { ...options, timeoutMs: Math.max(1, untilMs - caller.clock.nowMs()) };
    const attempt = new Attempt(caller, space, left);
    const value = await body(attempt);
    const revision = await attempt.commit();
    if (revision !== undefined) return { value, revision, tries };
    const pauseMs = caller.random.below(Math.min(PAUSE_MAX_MS, PAUSE_FIRST_MS * 2 ** Math.min(tries, 10)));
    await new Promise<void>((resolve) => void caller.clock.after(pauseMs, resolve));
    options?.signal?.throwIfAborted();
  }
}

class Attempt<V, K> implements Transaction<V, K> {
  readonly #caller: Caller;
  readonly #space: Space<V, K>;
  readonly #options: CallOptions;
  /** Of the first read: all others read the same. */
  #revision = 0;
  readonly #reads = new Map<string, { readonly key: Key; readonly kv: KeyValue<V, K> | undefined }>();
  readonly #writes = new Map<string, Op<V> & { readonly op: "put" | "delete" }>();

  constructor(caller: Caller, space: Space<V, K>, options: CallOptions) {
    this.#caller = caller;
    this.#space = space;
    this.#options = options;
  }

  async get(key: Key): Promise<V | undefined> {
    const written = this.#writes.get(nameOf(key));
    if (written !== undefined) return written.op === "put" ? written.value : undefined;
    return (await this.stored(key))?.value;
  }

  async stored(key: Key): Promise<KeyValue<V, K> | undefined> {
    const known = this.#reads.get(nameOf(key));
    if (known !== undefined) return known.kv;
    const request = getRequest(this.#space, key, { revision: this.#revision });
    const kv = await this.#caller.unary(KVService.Range, request, "read", this.#options, (answer) => {
      if (this.#revision === 0) this.#revision = answer.header?.revision ?? 0;
      return getResult(this.#space, answer);
    });
    this.#reads.set(nameOf(key), { key, kv });
    return kv;
  }

  put(key: Key, value: V): void {
    this.#writes.set(nameOf(key), op.put(key, value));
  }

  delete(key: Key): void {
    this.#writes.set(nameOf(key), op.delete(key));
  }

  /** The revision, or undefined when something had changed. */
  async commit(): Promise<number | undefined> {
    // All reads are of one revision, so what only reads has a consistent view already.
    if (this.#writes.size === 0) return this.#revision;
    const compare: Comparison<V>[] = [...this.#reads.values()].map(({ key, kv }) =>
      when.modRevision(key, "=", kv?.modRevision ?? 0),
    );
    const request = txnRequest(this.#space, { compare, success: [...this.#writes.values()] });
    return this.#caller.unary(KVService.Txn, request, "write", this.#options, ({ succeeded, header }) =>
      succeeded ? (header?.revision ?? 0) : undefined,
    );
  }
}

function nameOf(key: Key): string {
  return Buffer.from(key).toString("latin1");
}
