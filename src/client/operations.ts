/**
 * Operations as data: what transactions are made of, and their way to the wire and back. The type of an operation says
 * the type of its result.
 */
import { EMPTY_BYTES } from "../base/protobuf.ts";
import {
  type Compare_CompareResult,
  type Compare_CompareTarget,
  Compare as CompareMessage,
  DeleteRangeRequest,
  type DeleteRangeResponse,
  type PutRequest,
  type PutResponse,
  RangeRequest,
  type RangeResponse,
  RequestOp,
  type ResponseHeader,
  type ResponseOp,
  TxnRequest,
  type TxnResponse,
} from "../proto/etcdserverpb.ts";
import type { Key, KeyRange, KeyValue, Space } from "./keys.ts";

/** Something with a lease's id: the id, or the lease. */
export type LeaseId = bigint | { readonly id: bigint };

/** Of which state a read is. */
export interface GetOptions {
  /** Reads the state at this revision instead of the newest. */
  readonly revision?: number;
  /** May read a member's state that is behind: faster, and possible without a leader. */
  readonly serializable?: boolean;
}

/** Which keys of a range, and what of them. */
export interface RangeOptions extends GetOptions {
  /** At most so many keys. */
  readonly limit?: number;
  readonly sort?: "key" | "version" | "create" | "mod" | "value";
  readonly descending?: boolean;
  /** Leaves out the values, which are then empty. */
  readonly keysOnly?: boolean;
  readonly minModRevision?: number;
  readonly maxModRevision?: number;
  readonly minCreateRevision?: number;
  readonly maxCreateRevision?: number;
}

/** What a write may do besides. */
export interface PutOptions {
  /** The key is deleted when the lease ends. */
  readonly lease?: LeaseId;
  /** Keeps the lease that the key has. */
  readonly keepLease?: boolean;
  /** Gives the pair that was there before. */
  readonly previous?: boolean;
}

/** What a deletion may be asked for besides. */
export interface DeleteOptions {
  /** Gives the pairs that were deleted. */
  readonly previous?: boolean;
}

/** The keys of a range. */
export interface RangeResult<V, K> {
  readonly kvs: readonly KeyValue<V, K>[];
  /** There are more than `limit`. */
  readonly more: boolean;
  /** All keys of the range, whatever the limit. */
  readonly count: number;
  /** The revision of the store when it was read. */
  readonly revision: number;
}

/** What a write did. */
export interface PutResult<V, K> {
  /** The revision of this change. */
  readonly revision: number;
  /** The pair before, when it was asked for and there was one. */
  readonly previous: KeyValue<V, K> | undefined;
}

/** What a deletion did. */
export interface DeleteResult<V, K> {
  readonly revision: number;
  readonly deleted: number;
  /** Empty unless asked for. */
  readonly previous: readonly KeyValue<V, K>[];
}

export interface GetOp {
  readonly op: "get";
  readonly key: Key;
  readonly options: GetOptions;
}
export interface RangeOp {
  readonly op: "range";
  readonly range: KeyRange;
  readonly options: RangeOptions;
}
export interface CountOp {
  readonly op: "count";
  readonly range: KeyRange;
}
export interface PutOp<V> {
  readonly op: "put";
  readonly key: Key;
  readonly value: V;
  readonly options: PutOptions;
}
export interface DeleteOp {
  readonly op: "delete";
  readonly range: KeyRange;
  readonly options: DeleteOptions;
}
export interface TxnOp<C, S, F> {
  readonly op: "txn";
  readonly txn: {
    readonly compare?: readonly Comparison<C>[];
    readonly success?: S;
    readonly failure?: F;
  };
}
/** An operation of a transaction, as `op` makes them. */
export type Op<V> = GetOp | RangeOp | CountOp | PutOp<V> | DeleteOp | TxnOp<V, Ops<V>, Ops<V>>;
/** The operations of a branch of a transaction. */
export type Ops<V> = readonly Op<V>[];

/** A transaction: if all comparisons hold, `success` is carried out, otherwise `failure`. */
export interface Txn<V, S extends Ops<V>, F extends Ops<V>> {
  readonly compare?: readonly Comparison<V>[];
  readonly success?: S;
  readonly failure?: F;
}

/** The result of an operation. */
export type OpResult<O, V, K> = O extends GetOp
  ? KeyValue<V, K> | undefined
  : O extends RangeOp
    ? RangeResult<V, K>
    : O extends CountOp
      ? number
      : O extends { readonly op: "put" }
        ? PutResult<V, K>
        : O extends DeleteOp
          ? DeleteResult<V, K>
          : O extends TxnOp<infer _, infer S, infer F>
            ? TxnResult<S, F, V, K>
            : never;
/** The results of operations, in their order. */
export type OpResults<T, V, K> = { readonly [I in keyof T]: OpResult<T[I], V, K> };
/** `succeeded` says which of the two lists of results it is. */
export type TxnResult<S, F, V, K> =
  | { readonly succeeded: true; readonly results: OpResults<S, V, K>; readonly revision: number }
  | { readonly succeeded: false; readonly results: OpResults<F, V, K>; readonly revision: number };

/**
 * The operations of transactions.
 *
 * @example
 * const { results } = await client.txn({ success: [op.put("a", "1"), op.get("b")] });
 */
export const op = {
  get: (key: Key, options: GetOptions = {}): GetOp => ({ op: "get", key, options }),
  range: (range: KeyRange, options: RangeOptions = {}): RangeOp => ({ op: "range", range, options }),
  count: (range: KeyRange): CountOp => ({ op: "count", range }),
  put: <V>(key: Key, value: V, options: PutOptions = {}): PutOp<V> => ({ op: "put", key, value, options }),
  delete: (range: KeyRange, options: DeleteOptions = {}): DeleteOp => ({ op: "delete", range, options }),
  txn: <C = never, const S extends Ops<unknown> = readonly [], const F extends Ops<unknown> = readonly []>(
    txn: TxnOp<C, S, F>["txn"],
  ): TxnOp<C, S, F> => ({ op: "txn", txn }),
} as const;

/** How a comparison compares: what is stored, then this, then the operand. */
export type Relation = "=" | "!=" | "<" | ">";

/** What a transaction depends on. */
export interface Comparison<V> {
  readonly target: "version" | "create" | "mod" | "value" | "lease";
  readonly range: KeyRange;
  readonly relation: Relation;
  readonly operand: number | bigint | { readonly value: V };
}

/**
 * The conditions of transactions. With a range, all of its keys must meet them.
 *
 * @example
 * await client.txn({ compare: [when.missing("lock")], success: [op.put("lock", "mine")] });
 */
export const when = {
  /** The key exists. */
  exists: (key: Key): Comparison<never> => ({ target: "version", range: key, relation: ">", operand: 0 }),
  /** The key does not exist. */
  missing: (key: Key): Comparison<never> => ({ target: "version", range: key, relation: "=", operand: 0 }),
  version: (range: KeyRange, relation: Relation, version: number): Comparison<never> => ({
    target: "version",
    range,
    relation,
    operand: version,
  }),
  createRevision: (range: KeyRange, relation: Relation, revision: number): Comparison<never> => ({
    target: "create",
    range,
    relation,
    operand: revision,
  }),
  modRevision: (range: KeyRange, relation: Relation, revision: number): Comparison<never> => ({
    target: "mod",
    range,
    relation,
    operand: revision,
  }),
  /** The key has this value; `<` and `>` compare bytes. A key that does not exist meets no condition on its value. */
  value: <V>(range: KeyRange, relation: Relation, value: V): Comparison<V> => ({
    target: "value",
    range,
    relation,
    operand: { value },
  }),
  lease: (range: KeyRange, relation: Relation, lease: LeaseId): Comparison<never> => ({
    target: "lease",
    range,
    relation,
    operand: leaseId(lease),
  }),
} as const;

const RELATIONS: Readonly<Record<Relation, Compare_CompareResult>> = { "=": 0, ">": 1, "<": 2, "!=": 3 };
const TARGETS = { version: 0, create: 1, mod: 2, value: 3, lease: 4 } as const satisfies Record<
  string,
  Compare_CompareTarget
>;
const SORT_TARGETS = { key: 0, version: 1, create: 2, mod: 3, value: 4 } as const;

export function leaseId(lease: LeaseId): bigint {
  return typeof lease === "bigint" ? lease : lease.id;
}

function revisionOf(header: ResponseHeader | undefined): number {
  return header?.revision ?? 0;
}

// ---- to the wire

export function getRequest<V, K>(space: Space<V, K>, key: Key, options: GetOptions | undefined): RangeRequest {
  return RangeRequest.create({
    key: space.key(key),
    revision: options?.revision ?? 0,
    serializable: options?.serializable ?? false,
  });
}

export function rangeRequest<V, K>(space: Space<V, K>, range: KeyRange, options: RangeOptions = {}): RangeRequest {
  const isSorted = options.sort !== undefined || options.descending !== undefined;
  return RangeRequest.create({
    ...space.span(range),
    limit: options.limit ?? 0,
    revision: options.revision ?? 0,
    serializable: options.serializable ?? false,
    sortTarget: SORT_TARGETS[options.sort ?? "key"],
    sortOrder: isSorted ? (options.descending ? 2 : 1) : 0,
    keysOnly: options.keysOnly ?? false,
    minModRevision: options.minModRevision ?? 0,
    maxModRevision: options.maxModRevision ?? 0,
    minCreateRevision: options.minCreateRevision ?? 0,
    maxCreateRevision: options.maxCreateRevision ?? 0,
  });
}

export function countRequest<V, K>(space: Space<V, K>, range: KeyRange, options?: GetOptions): RangeRequest {
  return RangeRequest.create({
    ...space.span(range),
    countOnly: true,
    revision: options?.revision ?? 0,
    serializable: options?.serializable ?? false,
  });
}

export function putRequest<V, K>(space: Space<V, K>, key: Key, value: V, options: PutOptions | undefined): PutRequest {
  return {
    key: space.key(key),
    value: space.values.encode(value),
    lease: options?.lease === undefined ? 0n : leaseId(options.lease),
    prevKv: options?.previous ?? false,
    ignoreValue: false,
    ignoreLease: options?.keepLease ?? false,
  };
}

export function deleteRequest<V, K>(
  space: Space<V, K>,
  range: KeyRange,
  options: DeleteOptions | undefined,
): DeleteRangeRequest {
  return DeleteRangeRequest.create({ ...space.span(range), prevKv: options?.previous ?? false });
}

export function txnRequest<V, K>(space: Space<V, K>, txn: Txn<V, Ops<V>, Ops<V>>): TxnRequest {
  return TxnRequest.create({
    compare: (txn.compare ?? []).map((each) => compareMessage(space, each)),
    success: (txn.success ?? []).map((each) => requestOp(space, each)),
    failure: (txn.failure ?? []).map((each) => requestOp(space, each)),
  });
}

function requestOp<V, K>(space: Space<V, K>, each: Op<V>): RequestOp {
  switch (each.op) {
    case "get":
      return RequestOp.create({ requestRange: getRequest(space, each.key, each.options) });
    case "range":
      return RequestOp.create({ requestRange: rangeRequest(space, each.range, each.options) });
    case "count":
      return RequestOp.create({ requestRange: countRequest(space, each.range) });
    case "put":
      return RequestOp.create({ requestPut: putRequest(space, each.key, each.value, each.options) });
    case "delete":
      return RequestOp.create({ requestDeleteRange: deleteRequest(space, each.range, each.options) });
    case "txn":
      return RequestOp.create({ requestTxn: txnRequest(space, each.txn) });
  }
}

function compareMessage<V, K>(space: Space<V, K>, { target, range, relation, operand }: Comparison<V>): CompareMessage {
  const { key, rangeEnd } = space.span(range);
  const message = CompareMessage.create({ key, rangeEnd, target: TARGETS[target], result: RELATIONS[relation] });
  if (typeof operand === "bigint") message.lease = operand;
  else if (typeof operand === "object") message.value = space.values.encode(operand.value);
  else if (target === "version") message.version = operand;
  else if (target === "create") message.createRevision = operand;
  else message.modRevision = operand;
  return message;
}

// ---- from the wire

export function getResult<V, K>(space: Space<V, K>, response: RangeResponse): KeyValue<V, K> | undefined {
  const kv = response.kvs[0];
  return kv === undefined ? undefined : space.keyValue(kv);
}

export function rangeResult<V, K>(
  space: Space<V, K>,
  response: RangeResponse,
  keysOnly: boolean | undefined,
): RangeResult<V, K> {
  const toKeyValue = keysOnly ? keyOnly(space) : space.keyValue.bind(space);
  const { more, count } = response;
  return { kvs: response.kvs.map((kv) => toKeyValue(kv)), more, count, revision: revisionOf(response.header) };
}

/** An empty value need not be one that the codec can read. */
function keyOnly<V, K>(space: Space<V, K>): Space<V, K>["keyValue"] {
  let empty!: V;
  try {
    empty = space.values.decode(EMPTY_BYTES);
  } catch {
    // It stays undefined.
  }
  return ({ key, version, createRevision, modRevision, lease }) => ({
    key: space.keyOf(key),
    value: empty,
    version,
    createRevision,
    modRevision,
    lease,
  });
}

export function putResult<V, K>(space: Space<V, K>, response: PutResponse): PutResult<V, K> {
  const { header, prevKv } = response;
  return { revision: revisionOf(header), previous: prevKv === undefined ? undefined : space.keyValue(prevKv) };
}

export function deleteResult<V, K>(space: Space<V, K>, response: DeleteRangeResponse): DeleteResult<V, K> {
  const { header, deleted, prevKvs } = response;
  return { revision: revisionOf(header), deleted, previous: prevKvs.map((kv) => space.keyValue(kv)) };
}

export function txnResult<V, K, S extends Ops<V>, F extends Ops<V>>(
  space: Space<V, K>,
  txn: Txn<V, S, F>,
  response: TxnResponse,
  revision?: number,
): TxnResult<S, F, V, K>;
/** The order of the answers is that of the operations, which the compiler cannot see. */
export function txnResult<V, K>(
  space: Space<V, K>,
  txn: Txn<V, Ops<V>, Ops<V>>,
  { header, succeeded, responses }: TxnResponse,
  // What is inside has the revision of the whole.
  revision = revisionOf(header),
): unknown {
  const ops: Ops<V> = (succeeded ? txn.success : txn.failure) ?? [];
  const results = ops.map((each, i) => opResult(space, each, responses[i]!, revision));
  return { succeeded, results, revision };
}

function opResult<V, K>(space: Space<V, K>, each: Op<V>, response: ResponseOp, revision: number): unknown {
  const { responseRange, responsePut, responseDeleteRange, responseTxn } = response;
  switch (each.op) {
    case "get":
      return getResult(space, responseRange!);
    case "range":
      return { ...rangeResult(space, responseRange!, each.options.keysOnly), revision };
    case "count":
      return responseRange!.count;
    case "put":
      return { ...putResult(space, responsePut!), revision };
    case "delete":
      return { ...deleteResult(space, responseDeleteRange!), revision };
    case "txn":
      return txnResult(space, each.txn, responseTxn!, revision);
  }
}
