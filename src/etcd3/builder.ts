/** Reads, writes and conditions that are put together call by call, and begin when they are awaited. */
import type { KVClient } from "./clients.ts";
import { CompareResult, CompareTarget, SortOrder, SortTarget } from "./enums.ts";
import type {
  ICompare,
  IDeleteRangeRequest,
  IDeleteRangeResponse,
  IKeyValue,
  IPutRequest,
  IPutResponse,
  IRangeRequest,
  IRangeResponse,
  IRequestOp,
  IResponseHeader,
  ITxnRequest,
  ITxnResponse,
} from "./messages.ts";
import type { CallOptions } from "./options.ts";
import { type Rangable, Range } from "./range.ts";
import { type NSApplicator, PromiseWrap, toBuffer, zeroKey } from "./util.ts";

/** Comparisons by their signs. */
export const comparator = {
  "==": CompareResult.Equal,
  "===": CompareResult.Equal,
  ">": CompareResult.Greater,
  "<": CompareResult.Less,
  "!=": CompareResult.NotEqual,
  "!==": CompareResult.NotEqual,
} as const;

/** The field of a comparison by what is compared. */
export const compareTarget = {
  Value: "value",
  Version: "version",
  Create: "create_revision",
  Mod: "mod_revision",
  Lease: "lease",
} as const;

/** Something that can be part of a transaction. */
export interface IOperation {
  op(): Promise<IRequestOp>;
}

export abstract class RangeBuilder<T> extends PromiseWrap<T> implements IOperation {
  protected readonly kv: KVClient;
  protected readonly namespace: NSApplicator;
  protected request: IRangeRequest = {};
  protected callOptions: CallOptions | undefined;

  constructor(kv: KVClient, namespace: NSApplicator) {
    super();
    this.kv = kv;
    this.namespace = namespace;
  }

  /** Reads at this revision. */
  revision(revision: number | string): this {
    this.request.revision = revision;
    return this;
  }

  /** Reads what the member has, which may be behind. */
  serializable(serializable: boolean): this {
    this.request.serializable = serializable;
    return this;
  }

  minModRevision(revision: number | string): this {
    this.request.min_mod_revision = revision;
    return this;
  }

  maxModRevision(revision: number | string): this {
    this.request.max_mod_revision = revision;
    return this;
  }

  minCreateRevision(revision: number | string): this {
    this.request.min_create_revision = revision;
    return this;
  }

  maxCreateRevision(revision: number | string): this {
    this.request.max_create_revision = revision;
    return this;
  }

  options(options: CallOptions | undefined): this {
    this.callOptions = options;
    return this;
  }

  async op(): Promise<IRequestOp> {
    return { request_range: this.namespace.applyToRequest(this.request) };
  }

  protected read(changes: IRangeRequest = {}): Promise<IRangeResponse> {
    return this.kv.range(this.namespace.applyToRequest({ ...this.request, ...changes }), this.callOptions);
  }
}

/** Reads one key. */
export class SingleRangeBuilder extends RangeBuilder<string | null> {
  constructor(kv: KVClient, namespace: NSApplicator, key: string | Buffer) {
    super(kv, namespace);
    this.request.key = toBuffer(key);
  }

  async json(): Promise<unknown> {
    const text = await this.string();
    return text === null ? null : JSON.parse(text);
  }

  async string(encoding: BufferEncoding = "utf8"): Promise<string | null> {
    const value = await this.buffer();
    return value === null ? null : value.toString(encoding);
  }

  async number(): Promise<number | null> {
    const text = await this.string();
    return text === null ? null : Number(text);
  }

  async buffer(): Promise<Buffer | null> {
    const { kvs } = await this.exec();
    return kvs[0]?.value ?? null;
  }

  async exists(): Promise<boolean> {
    return Number((await this.read({ count_only: true })).count) > 0;
  }

  exec(): Promise<IRangeResponse> {
    return this.read();
  }

  protected createPromise(): Promise<string | null> {
    return this.string();
  }
}

/** Reads a range; all keys of the namespace unless it is told which. */
export class MultiRangeBuilder extends RangeBuilder<Record<string, string>> {
  constructor(kv: KVClient, namespace: NSApplicator) {
    super(kv, namespace);
    this.all();
  }

  prefix(value: string | Buffer): this {
    return this.inRange(Range.prefix(value));
  }

  inRange(range: Rangable): this {
    const { start, end } = Range.from(range);
    this.request.key = start;
    this.request.range_end = end;
    return this;
  }

  all(): this {
    this.request.key = zeroKey;
    this.request.range_end = zeroKey;
    return this;
  }

  limit(count: number): this {
    this.request.limit = Number.isFinite(count) ? count : 0;
    return this;
  }

  sort(target: keyof typeof SortTarget, order: keyof typeof SortOrder): this {
    this.request.sort_target = SortTarget[target];
    this.request.sort_order = SortOrder[order];
    return this;
  }

  async count(): Promise<number> {
    return Number((await this.read({ count_only: true })).count);
  }

  async keys(encoding: BufferEncoding = "utf8"): Promise<string[]> {
    return (await this.keyBuffers()).map((key) => key.toString(encoding));
  }

  async keyBuffers(): Promise<Buffer[]> {
    const { kvs } = await this.read({ keys_only: true });
    return kvs.map(({ key }) => this.namespace.unprefix(key));
  }

  json(): Promise<Record<string, unknown>> {
    return this.#values((value): unknown => JSON.parse(value.toString()));
  }

  strings(encoding: BufferEncoding = "utf8"): Promise<Record<string, string>> {
    return this.#values((value) => value.toString(encoding));
  }

  numbers(): Promise<Record<string, number>> {
    return this.#values((value) => Number(value.toString()));
  }

  buffers(): Promise<Record<string, Buffer>> {
    return this.#values((value) => value);
  }

  exec(): Promise<IRangeResponse> {
    return this.read();
  }

  protected createPromise(): Promise<Record<string, string>> {
    return this.strings();
  }

  async #values<T>(convert: (value: Buffer) => T): Promise<Record<string, T>> {
    const { kvs } = await this.exec();
    return Object.fromEntries(kvs.map(({ key, value }) => [this.namespace.unprefix(key).toString(), convert(value)]));
  }
}

/** Deletes a key or a range. */
export class DeleteBuilder extends PromiseWrap<IDeleteRangeResponse> implements IOperation {
  readonly #kv: KVClient;
  readonly #namespace: NSApplicator;
  #request: IDeleteRangeRequest = {};
  #callOptions: CallOptions | undefined;

  constructor(kv: KVClient, namespace: NSApplicator) {
    super();
    this.#kv = kv;
    this.#namespace = namespace;
  }

  key(value: string | Buffer): this {
    this.#request.key = toBuffer(value);
    delete this.#request.range_end;
    return this;
  }

  prefix(value: string | Buffer): this {
    return this.range(Range.prefix(value));
  }

  range(range: Range): this {
    this.#request.key = range.start;
    this.#request.range_end = range.end;
    return this;
  }

  all(): this {
    return this.range(new Range(zeroKey, zeroKey));
  }

  inRange(range: Rangable): this {
    return this.range(Range.from(range));
  }

  async getPrevious(): Promise<IKeyValue[]> {
    this.#request.prev_kv = true;
    return (await this.exec()).prev_kvs;
  }

  options(options: CallOptions | undefined): this {
    this.#callOptions = options;
    return this;
  }

  exec(): Promise<IDeleteRangeResponse> {
    return this.#kv.deleteRange(this.#namespace.applyToRequest(this.#request), this.#callOptions);
  }

  async op(): Promise<IRequestOp> {
    return { request_delete_range: this.#namespace.applyToRequest(this.#request) };
  }

  protected createPromise(): Promise<IDeleteRangeResponse> {
    return this.exec();
  }
}

/** Writes a key. */
export class PutBuilder extends PromiseWrap<IPutResponse> implements IOperation {
  readonly #kv: KVClient;
  readonly #namespace: NSApplicator;
  #request: IPutRequest;
  #lease: number | string | Promise<number | string> | undefined;
  #callOptions: CallOptions | undefined;

  constructor(kv: KVClient, namespace: NSApplicator, key: string | Buffer) {
    super();
    this.#kv = kv;
    this.#namespace = namespace;
    this.#request = { key: toBuffer(key) };
  }

  value(value: string | Buffer | number): this {
    this.#request.value = toBuffer(value);
    return this;
  }

  lease(lease: number | string | Promise<number | string>): this {
    this.#lease = lease;
    return this;
  }

  ignoreLease(): this {
    this.#request.ignore_lease = true;
    return this;
  }

  options(options: CallOptions | undefined): this {
    this.#callOptions = options;
    return this;
  }

  async getPrevious(): Promise<IKeyValue & { header: IResponseHeader }> {
    this.#request.prev_kv = true;
    const { prev_kv, header } = await this.exec();
    return { ...prev_kv, header };
  }

  /** Gives the key a new revision with the value that it has. */
  touch(): Promise<IPutResponse> {
    delete this.#request.value;
    this.#request.ignore_value = true;
    return this.exec();
  }

  async exec(): Promise<IPutResponse> {
    return await this.#kv.put(await this.#made(), this.#callOptions);
  }

  async op(): Promise<IRequestOp> {
    return { request_put: await this.#made() };
  }

  protected createPromise(): Promise<IPutResponse> {
    return this.exec();
  }

  async #made(): Promise<IPutRequest> {
    const request = this.#namespace.applyToRequest(this.#request);
    return this.#lease === undefined ? request : { ...request, lease: await this.#lease };
  }
}

/** A transaction: conditions, and what is done when they hold and when not. */
export class ComparatorBuilder {
  readonly #kv: KVClient;
  readonly #namespace: NSApplicator;
  readonly #compare: ICompare[] = [];
  #success: Promise<IRequestOp[]> = Promise.resolve([]);
  #failure: Promise<IRequestOp[]> = Promise.resolve([]);
  #callOptions: CallOptions | undefined;

  constructor(kv: KVClient, namespace: NSApplicator) {
    this.#kv = kv;
    this.#namespace = namespace;
  }

  options(options: CallOptions | undefined): this {
    this.#callOptions = options;
    return this;
  }

  and(
    key: string | Buffer,
    column: keyof typeof CompareTarget,
    cmp: keyof typeof comparator,
    value: string | Buffer | number,
  ): this {
    this.#compare.push({
      key: this.#namespace.applyKey(toBuffer(key)),
      result: comparator[cmp],
      target: CompareTarget[column],
      [compareTarget[column]]: column === "Value" ? toBuffer(value) : value,
    });
    return this;
  }

  // biome-ignore lint/suspicious/noThenProperty: the module's name for what follows an if
  then(...clauses: (IRequestOp | IOperation)[]): this {
    this.#success = Promise.all(this.mapOperations(clauses));
    return this;
  }

  else(...clauses: (IRequestOp | IOperation)[]): this {
    this.#failure = Promise.all(this.mapOperations(clauses));
    return this;
  }

  async commit(): Promise<ITxnResponse> {
    const [success, failure] = await Promise.all([this.#success, this.#failure]);
    const request: ITxnRequest = { compare: this.#compare, success, failure };
    return await this.#kv.txn(request, this.#callOptions);
  }

  mapOperations(operations: readonly (IRequestOp | IOperation)[]): Promise<IRequestOp>[] {
    return operations.map(async (each) => ("op" in each ? await each.op() : each));
  }
}
