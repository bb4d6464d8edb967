/**
 * etcd's key-value model, written from its documentation, not from our server: the state at every revision, and the
 * effect of a request on it. The checkers replay histories on it.
 *
 * Keys and values are strings with one character per byte. Everything is kept: the model has no compaction.
 */
import {
  type Compare,
  Compare_CompareResult as CompareResult,
  Compare_CompareTarget as CompareTarget,
  type DeleteRangeRequest,
  type DeleteRangeResponse,
  type PutRequest,
  type RangeRequest,
  type RangeResponse,
  type RequestOp,
  type ResponseOp,
  RangeRequest_SortOrder as SortOrder,
  RangeRequest_SortTarget as SortTarget,
  type TxnRequest,
  type TxnResponse,
} from "../../../src/proto/etcdserverpb.ts";
import type { KeyValue } from "../../../src/proto/mvccpb.ts";

export interface Kv {
  readonly key: string;
  readonly value: string;
  readonly create: number;
  readonly mod: number;
  readonly version: number;
  readonly lease: bigint;
}

/** One change of a key: its new value, or its deletion. */
export interface ModelEvent {
  readonly key: string;
  readonly kv: Kv | undefined;
}

/** The answer to a request, without headers; comparable with `isDeepStrictEqual`. */
export type Answer =
  | { readonly kind: "put"; readonly prev: Kv | undefined }
  | { readonly kind: "delete"; readonly deleted: number; readonly prevs: readonly Kv[] }
  | { readonly kind: "range"; readonly kvs: readonly Kv[]; readonly count: number; readonly more: boolean }
  | { readonly kind: "txn"; readonly succeeded: boolean; readonly answers: readonly Answer[] };

export type KvRequest =
  | { readonly kind: "put"; readonly request: PutRequest }
  | { readonly kind: "delete"; readonly request: DeleteRangeRequest }
  | { readonly kind: "range"; readonly request: RangeRequest }
  | { readonly kind: "txn"; readonly request: TxnRequest };

export interface Execution {
  /** The changes, in the order of their sub-revisions. */
  readonly events: readonly ModelEvent[];
  readonly answer: Answer;
}

/** The request needs a key that does not exist. */
export class ModelRefusal extends Error {}

/** All keys at all revisions. The first write makes revision 2. */
export class KeySpace {
  readonly #versions = new Map<string, { readonly mod: number; readonly kv: Kv | undefined }[]>();
  #sorted: string[] = [];
  #revision = 1;

  get revision(): number {
    return this.#revision;
  }

  /** The key as of `revision`. */
  at(key: string, revision: number): Kv | undefined {
    const versions = this.#versions.get(key);
    if (versions === undefined) return undefined;
    let low = 0;
    let high = versions.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (versions[middle]!.mod <= revision) low = middle + 1;
      else high = middle;
    }
    return low === 0 ? undefined : versions[low - 1]!.kv;
  }

  /** Every key that ever existed, ascending. */
  keys(): readonly string[] {
    return this.#sorted;
  }

  /** Adds the next revision. */
  append(events: readonly ModelEvent[]): void {
    const revision = ++this.#revision;
    for (const { key, kv } of events) {
      let versions = this.#versions.get(key);
      if (versions === undefined) {
        this.#versions.set(key, (versions = []));
        this.#sorted = [...this.#sorted, key].sort(compareText);
      }
      versions.push({ mod: revision, kv });
    }
  }

  /** The effect of `request` as revision `revision + 1`, and its answer. Throws ModelRefusal. */
  execute(request: KvRequest, revision: number): Execution {
    const view = new View(this, revision);
    const answer = executeOn(view, request);
    return { events: view.events, answer };
  }
}

/** A state and the changes of one transaction so far. */
class View {
  readonly events: ModelEvent[] = [];
  readonly revision: number;
  readonly #space: KeySpace;
  readonly #changed = new Map<string, Kv | undefined>();

  constructor(space: KeySpace, revision: number) {
    this.#space = space;
    this.revision = revision;
  }

  get(key: string): Kv | undefined {
    return this.#changed.has(key) ? this.#changed.get(key) : this.#space.at(key, this.revision);
  }

  range(key: string, end: string, atRevision = 0): Kv[] {
    const found: Kv[] = [];
    const take = (each: string): void => {
      const kv = atRevision > 0 ? this.#space.at(each, atRevision) : this.get(each);
      if (kv !== undefined) found.push(kv);
    };
    if (end === "") take(key);
    else {
      const keys =
        this.#changed.size === 0
          ? this.#space.keys()
          : [...new Set([...this.#space.keys(), ...this.#changed.keys()])].sort(compareText);
      for (const each of keys) if (inRange(each, key, end)) take(each);
    }
    return found;
  }

  set(key: string, kv: Kv | undefined): void {
    this.#changed.set(key, kv);
    this.events.push({ key, kv });
  }
}

/** Whether a key is in (key, range end) as on the wire. */
export function inRange(each: string, key: string, end: string): boolean {
  if (end === "") return each === key;
  return each >= key && (end === "\0" || each < end);
}

function executeOn(view: View, request: KvRequest): Answer {
  switch (request.kind) {
    case "put":
      return put(view, request.request);
    case "delete":
      return deleteRange(view, request.request);
    case "range":
      return range(view, request.request);
    case "txn": {
      const branches: boolean[] = [];
      decide(view, request.request, branches);
      return txn(view, request.request, branches);
    }
  }
}

function put(view: View, request: PutRequest): Answer {
  const key = text(request.key);
  const old = view.get(key);
  if ((request.ignoreValue || request.ignoreLease) && old === undefined) throw new ModelRefusal("key not found");
  const mod = view.revision + 1;
  view.set(key, {
    key,
    value: request.ignoreValue ? old!.value : text(request.value),
    create: old?.create ?? mod,
    mod,
    version: (old?.version ?? 0) + 1,
    lease: request.ignoreLease ? old!.lease : request.lease,
  });
  return { kind: "put", prev: request.prevKv ? old : undefined };
}

function deleteRange(view: View, request: DeleteRangeRequest): Answer {
  const gone = view.range(text(request.key), text(request.rangeEnd));
  for (const { key } of gone) view.set(key, undefined);
  return { kind: "delete", deleted: gone.length, prevs: request.prevKv ? gone : [] };
}

function range(view: View, request: RangeRequest): Answer {
  const all = view.range(text(request.key), text(request.rangeEnd), request.revision);
  const count = all.length;
  if (request.countOnly) return { kind: "range", kvs: [], count, more: false };
  const filtered =
    request.minModRevision > 0 ||
    request.maxModRevision > 0 ||
    request.minCreateRevision > 0 ||
    request.maxCreateRevision > 0;
  // Without an order and without filters, the limit bounds the rows read: one more shows that there are more.
  const looksAtAll = request.limit === 0 || request.sortOrder !== SortOrder.NONE || filtered;
  let kvs = (looksAtAll ? all : all.slice(0, request.limit + 1)).filter(
    (kv) =>
      (request.minModRevision === 0 || kv.mod >= request.minModRevision) &&
      (request.maxModRevision === 0 || kv.mod <= request.maxModRevision) &&
      (request.minCreateRevision === 0 || kv.create >= request.minCreateRevision) &&
      (request.maxCreateRevision === 0 || kv.create <= request.maxCreateRevision),
  );
  if (request.sortTarget !== SortTarget.KEY || request.sortOrder !== SortOrder.NONE) {
    const compare = comparators[request.sortTarget];
    kvs = kvs.sort(request.sortOrder === SortOrder.DESCEND ? (a, b) => compare(b, a) : compare);
  }
  const more = request.limit > 0 && kvs.length > request.limit;
  if (more) kvs.length = request.limit;
  // Keys alone come from the index, which has no leases; an order by value reads the rest too.
  if (request.keysOnly) {
    kvs = kvs.map((kv) => ({ ...kv, value: "", lease: request.sortTarget === SortTarget.VALUE ? kv.lease : 0n }));
  }
  return { kind: "range", kvs, count, more };
}

const comparators: Record<SortTarget, (a: Kv, b: Kv) => number> = {
  [SortTarget.KEY]: (a, b) => compareText(a.key, b.key),
  [SortTarget.VERSION]: (a, b) => a.version - b.version,
  [SortTarget.CREATE]: (a, b) => a.create - b.create,
  [SortTarget.MOD]: (a, b) => a.mod - b.mod,
  [SortTarget.VALUE]: (a, b) => compareText(a.value, b.value),
};

/** All comparisons use the state before the transaction, including those of nested transactions. */
function decide(view: View, request: TxnRequest, branches: boolean[]): void {
  const succeeded = request.compare.every((compare) => holds(view, compare));
  branches.push(succeeded);
  for (const op of succeeded ? request.success : request.failure) {
    if (op.requestTxn !== undefined) decide(view, op.requestTxn, branches);
  }
}

function holds(view: View, compare: Compare): boolean {
  const kvs = view.range(text(compare.key), text(compare.rangeEnd));
  if (kvs.length > 0) return kvs.every((kv) => orderHolds(compare.result, orderOf(kv, compare)));
  if (compare.target === CompareTarget.VALUE) return false;
  const nothing = { key: "", value: "", create: 0, mod: 0, version: 0, lease: 0n };
  return orderHolds(compare.result, orderOf(nothing, compare));
}

function orderOf(kv: Kv, compare: Compare): number {
  switch (compare.target) {
    case CompareTarget.VALUE:
      return compareText(kv.value, text(compare.value ?? new Uint8Array()));
    case CompareTarget.CREATE:
      return kv.create - (compare.createRevision ?? 0);
    case CompareTarget.MOD:
      return kv.mod - (compare.modRevision ?? 0);
    case CompareTarget.VERSION:
      return kv.version - (compare.version ?? 0);
    case CompareTarget.LEASE: {
      const other = compare.lease ?? 0n;
      return kv.lease < other ? -1 : kv.lease > other ? 1 : 0;
    }
  }
}

function orderHolds(result: CompareResult, order: number): boolean {
  switch (result) {
    case CompareResult.EQUAL:
      return order === 0;
    case CompareResult.NOT_EQUAL:
      return order !== 0;
    case CompareResult.GREATER:
      return order > 0;
    case CompareResult.LESS:
      return order < 0;
  }
}

function txn(view: View, request: TxnRequest, branches: boolean[]): Answer {
  const succeeded = branches.shift()!;
  const answers = (succeeded ? request.success : request.failure).map((op) => {
    const inner = requestOf(op);
    return inner.kind === "txn" ? txn(view, inner.request, branches) : executeOn(view, inner);
  });
  return { kind: "txn", succeeded, answers };
}

function requestOf(op: RequestOp): KvRequest {
  if (op.requestPut !== undefined) return { kind: "put", request: op.requestPut };
  if (op.requestDeleteRange !== undefined) return { kind: "delete", request: op.requestDeleteRange };
  if (op.requestRange !== undefined) return { kind: "range", request: op.requestRange };
  if (op.requestTxn !== undefined) return { kind: "txn", request: op.requestTxn };
  throw new Error("an operation of a transaction is empty");
}

/** Converts a response to the model's answer. */
export function answerOfResponse(response: ResponseOp): Answer {
  if (response.responsePut !== undefined) return { kind: "put", prev: kvOf(response.responsePut.prevKv) };
  if (response.responseRange !== undefined) return rangeAnswer(response.responseRange);
  if (response.responseDeleteRange !== undefined) return deleteAnswer(response.responseDeleteRange);
  if (response.responseTxn !== undefined) return txnAnswer(response.responseTxn);
  throw new Error("a response in a transaction is empty");
}

export function rangeAnswer(response: RangeResponse): Answer {
  return { kind: "range", kvs: response.kvs.map((kv) => kvOf(kv)!), count: response.count, more: response.more };
}

export function deleteAnswer(response: DeleteRangeResponse): Answer {
  return { kind: "delete", deleted: response.deleted, prevs: response.prevKvs.map((kv) => kvOf(kv)!) };
}

export function txnAnswer(response: TxnResponse): Answer {
  return { kind: "txn", succeeded: response.succeeded, answers: response.responses.map(answerOfResponse) };
}

export function kvOf(kv: KeyValue | undefined): Kv | undefined {
  if (kv === undefined) return undefined;
  return {
    key: text(kv.key),
    value: text(kv.value),
    create: kv.createRevision,
    mod: kv.modRevision,
    version: kv.version,
    lease: kv.lease,
  };
}

/** True when the answer reports a change, which then has its own revision. */
export function answerWrote(answer: Answer): boolean {
  switch (answer.kind) {
    case "put":
      return true;
    case "delete":
      return answer.deleted > 0;
    case "range":
      return false;
    case "txn":
      return answer.answers.some(answerWrote);
  }
}

/** True when the request could change something. */
export function mayWrite(request: KvRequest): boolean {
  switch (request.kind) {
    case "put":
    case "delete":
      return true;
    case "range":
      return false;
    case "txn":
      return [...request.request.success, ...request.request.failure].some((op) => mayWrite(requestOf(op)));
  }
}

/** Values that the request could put. */
export function valuesOf(request: KvRequest): string[] {
  switch (request.kind) {
    case "put":
      return [text(request.request.value)];
    case "delete":
    case "range":
      return [];
    case "txn":
      return [...request.request.success, ...request.request.failure].flatMap((op) => valuesOf(requestOf(op)));
  }
}

export const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1");

export const compareText = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
