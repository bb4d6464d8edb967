/**
 * Software transactions: a function reads and writes, its writes wait in memory, and all of them happen at once if what it
 * read is still so; otherwise it is called again.
 */
import { DeleteBuilder, PutBuilder, SingleRangeBuilder } from "./builder.ts";
import { KVClient } from "./clients.ts";
import { CompareResult, CompareTarget } from "./enums.ts";
import { STMConflictError } from "./errors.ts";
import type {
  ICompare,
  IDeleteRangeRequest,
  IKeyValue,
  IPutRequest,
  IRangeRequest,
  IRangeResponse,
  IRequestOp,
} from "./messages.ts";
import type { CallOptions } from "./options.ts";
import type { ICallable } from "./pool.ts";
import { Range } from "./range.ts";
import { emptyKey, type NSApplicator } from "./util.ts";

export const Isolation = {
  /** All reads are of one moment, and nothing that is written has changed since. */
  SerializableSnapshot: 0,
  /** All reads are of one moment, and hold at the end. */
  Serializable: 1,
  /** What was read still holds at the end. */
  RepeatableReads: 2,
  /** Nothing is checked. */
  ReadCommitted: 3,
} as const;
export type Isolation = (typeof Isolation)[keyof typeof Isolation];

export interface ISTMOptions {
  /** Further attempts after a conflict. */
  readonly retries: number;
  /** Keys that are read at the beginning. */
  readonly prefetch: readonly string[];
  readonly isolation: Isolation;
  readonly callOptions?: CallOptions;
}

export class SoftwareTransaction {
  readonly #options: ISTMOptions;
  readonly #namespace: NSApplicator;
  readonly #rawKv: KVClient;
  #attempt: Attempt;
  readonly #kv: KVClient;

  constructor(options: ISTMOptions, namespace: NSApplicator, rawKv: KVClient) {
    this.#options = options;
    this.#namespace = namespace;
    this.#rawKv = rawKv;
    this.#attempt = new Attempt(options, rawKv);
    this.#kv = new KVClient({ exec: (...call) => this.#attempt.exec(...call) });
  }

  /** Runs the function until its transaction succeeds. Rejects with STMConflictError after the last attempt. */
  async transact<T>(run: (transaction: this) => T | PromiseLike<T>): Promise<T> {
    for (let left = this.#options.retries; left >= 0; left--) {
      this.#attempt = new Attempt(this.#options, this.#rawKv);
      for (const key of this.#options.prefetch) await this.get(key).exec();
      const result = await run(this);
      if (await this.#attempt.commit()) return result;
    }
    throw new STMConflictError();
  }

  get(key: string): SingleRangeBuilder {
    return new SingleRangeBuilder(this.#kv, this.#namespace, key);
  }

  put(key: string | Buffer): PutBuilder {
    return new PutBuilder(this.#kv, this.#namespace, key);
  }

  delete(): DeleteBuilder {
    return new DeleteBuilder(this.#kv, this.#namespace);
  }
}

type Write =
  | { readonly kind: "put"; readonly request: IPutRequest }
  | { readonly kind: "delete"; readonly range: Range; readonly request: IDeleteRangeRequest };

/** One call of the function. */
class Attempt implements ICallable {
  readonly #options: ISTMOptions;
  readonly #kv: KVClient;
  readonly #reads = new Map<string, IRangeResponse>();
  #writes: Write[] = [];
  /** Of the first read. */
  #revision: string | undefined;

  constructor(options: ISTMOptions, kv: KVClient) {
    this.#options = options;
    this.#kv = kv;
  }

  async exec<T>(_service: string, method: string, params: unknown, options?: CallOptions): Promise<T>;
  async exec(_service: string, method: string, params: object, options?: CallOptions): Promise<unknown> {
    if (method === "range") return await this.#read(params, options);
    if (method === "put") return this.#put(params);
    if (method === "deleteRange") return this.#delete(params);
    throw new Error(`a transaction has no ${method}`);
  }

  async #read(request: IRangeRequest, options: CallOptions | undefined): Promise<IRangeResponse> {
    const key = request.key ?? emptyKey;
    const written = this.#writes.findLast((write) =>
      write.kind === "put" ? write.request.key?.equals(key) : write.range.includes(key),
    );
    if (written !== undefined) return answer(written.kind === "put" ? pairOf(written.request) : undefined);
    const { isolation } = this.#options;
    if (isolation === Isolation.ReadCommitted) return await this.#kv.range(request, options);
    const name = key.toString("latin1");
    const known = this.#reads.get(name);
    if (known !== undefined) return known;
    const isOfOneMoment = isolation === Isolation.Serializable || isolation === Isolation.SerializableSnapshot;
    const at = isOfOneMoment && this.#revision !== undefined ? { revision: this.#revision } : {};
    // Always the pair itself: how it is wanted may differ from read to read.
    const found = await this.#kv.range({ key, ...at }, options ?? this.#options.callOptions);
    this.#revision ??= found.header.revision;
    this.#reads.set(name, found);
    return found;
  }

  #put(request: IPutRequest): object {
    const { key = emptyKey } = request;
    this.#writes = this.#writes.filter((write) => !isOfKey(write, key));
    this.#writes.push({ kind: "put", request });
    return answer(undefined);
  }

  #delete(request: IDeleteRangeRequest): object {
    const range = new Range(request.key ?? emptyKey, request.range_end ?? emptyKey);
    if (range.end.length > 0 && this.#reads.size > 0 && this.#options.isolation === Isolation.SerializableSnapshot) {
      throw new Error("You cannot delete ranges in a SerializableSnapshot transaction that has read keys");
    }
    this.#writes = this.#writes.filter(
      (write) =>
        !(write.kind === "put" && range.includes(write.request.key ?? emptyKey)) && !isOfKey(write, range.start),
    );
    this.#writes.push({ kind: "delete", range, request });
    return { ...answer(undefined), deleted: "0", prev_kvs: [] };
  }

  /** False when something has changed that must not. */
  async commit(): Promise<boolean> {
    const compare = this.#conditions();
    if (this.#writes.length === 0 && compare.length === 0) return true;
    const success = this.#writes.map(
      (write): IRequestOp =>
        write.kind === "put" ? { request_put: write.request } : { request_delete_range: write.request },
    );
    return (await this.#kv.txn({ compare, success, failure: [] }, this.#options.callOptions)).succeeded;
  }

  #conditions(): ICompare[] {
    const conditions: ICompare[] = [...this.#reads].map(([name, { kvs }]) => ({
      key: Buffer.from(name, "latin1"),
      target: CompareTarget.Mod,
      result: CompareResult.Equal,
      mod_revision: kvs[0]?.mod_revision ?? "0",
    }));
    const revision = this.#revision;
    if (this.#options.isolation !== Isolation.SerializableSnapshot || revision === undefined) return conditions;
    for (const { request } of this.#writes) {
      conditions.push({
        key: request.key ?? emptyKey,
        target: CompareTarget.Mod,
        result: CompareResult.Less,
        mod_revision: Number(revision) + 1,
      });
    }
    return conditions;
  }
}

const isOfKey = (write: Write, key: Buffer): boolean =>
  write.kind === "put"
    ? write.request.key?.equals(key) === true
    : write.range.end.length === 0 && write.range.start.equals(key);

function pairOf(request: IPutRequest): IKeyValue {
  const { key = emptyKey, value = emptyKey, lease = 0 } = request;
  return { key, value, lease: `${lease}`, create_revision: "0", mod_revision: "0", version: "1" };
}

function answer(kv: IKeyValue | undefined): IRangeResponse {
  const header = { cluster_id: "0", member_id: "0", revision: "0", raft_term: "0" };
  return { header, kvs: kv === undefined ? [] : [kv], more: false, count: kv === undefined ? "0" : "1" };
}
