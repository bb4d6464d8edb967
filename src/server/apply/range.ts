import { EMPTY_BYTES } from "../../base/protobuf.ts";
import {
  type DecodedRangeResult,
  FROM_KEY,
  keyCopy,
  type RangeOptions,
  type ReadView,
} from "../../mvcc/model/types.ts";
import {
  type RangeRequest,
  RangeResponse,
  ResponseHeader,
  RangeRequest_SortOrder as SortOrder,
  RangeRequest_SortTarget as SortTarget,
} from "../../proto/etcdserverpb.ts";
import { KeyValue } from "../../proto/mvccpb.ts";

/**
 * Executes a Range request: filters, order and limit over the store's rows. Source: etcd
 * `server/etcdserver/txn/range.go`.
 */
export function executeRange(view: ReadView, request: RangeRequest): RangeResponse {
  const options = {
    revision: request.revision,
    // One more than requested shows whether there are more.
    limit: limitedBeforeSort(request) && request.limit > 0 ? request.limit + 1 : 0,
    countOnly: request.countOnly,
  };
  const result = takesFewOfMany(request)
    ? readFirst(view, request, options)
    : readAll(view, request, fromIndexAlone(request) ? readKeys : readKeyValues, options);
  const { kvs } = result;
  const more = request.limit > 0 && kvs.length > request.limit;
  if (more) kvs.length = request.limit;
  if (request.keysOnly) for (const kv of kvs) kv.value = EMPTY_BYTES;
  return RangeResponse.create({
    header: ResponseHeader.create({ revision: result.revision }),
    kvs,
    more,
    count: result.count,
  });
}

/** Without an order the limit selects the first keys, and a sort target orders only those. */
function limitedBeforeSort(request: RangeRequest): boolean {
  return (request.sortOrder === SortOrder.NONE || isDefaultOrder(request)) && !hasRevisionFilters(request);
}

function readAll(view: ReadView, request: RangeRequest, read: Read, options: RangeOptions): RowsRead {
  const { kvs, count, revision } = read(view, request.key, rangeEndOf(request.rangeEnd), options);
  return { kvs: sorted(filtered(kvs, request), request), count, revision };
}

/** Limits up to this, with an order that the index knows, such as the oldest key under a prefix, which locks use. */
const FEW_ROWS = 8;

function takesFewOfMany(request: RangeRequest): boolean {
  const { sortTarget, limit } = request;
  if (request.countOnly || limit <= 0 || limit > FEW_ROWS || limitedBeforeSort(request)) return false;
  return sortTarget === SortTarget.CREATE || sortTarget === SortTarget.MOD || sortTarget === SortTarget.VERSION;
}

/** Finds the first rows of an order in the index, and reads only those and one more. */
function readFirst(view: ReadView, request: RangeRequest, options: RangeOptions): RowsRead {
  const { sortTarget, sortOrder, limit } = request;
  const sign = sortOrder === SortOrder.DESCEND ? -1 : 1;
  const first: { readonly key: Uint8Array; readonly by: number }[] = [];
  const end = rangeEndOf(request.rangeEnd);
  const { count, revision } = view.rangeKeys(request.key, end, options, (key, mod, created, version) => {
    if (!passesFilters(request, mod, created)) return;
    const by = sign * (sortTarget === SortTarget.CREATE ? created : sortTarget === SortTarget.MOD ? mod : version);
    if (first.length > limit && by >= first.at(-1)!.by) return;
    let at = first.length;
    while (at > 0 && first[at - 1]!.by > by) at--;
    first.splice(at, 0, { key: keyCopy(key), by });
    if (first.length > limit + 1) first.pop();
  });
  const read = fromIndexAlone(request) ? readKeys : readKeyValues;
  return { kvs: first.flatMap(({ key }) => read(view, key, null, options).kvs), count, revision };
}

/** The index has everything about a key except its value and its lease; etcd omits the lease then. */
function fromIndexAlone(request: RangeRequest): boolean {
  return request.keysOnly && request.sortTarget !== SortTarget.VALUE;
}

type RowsRead = Pick<DecodedRangeResult, "kvs" | "count" | "revision">;

type Read = (view: ReadView, key: Uint8Array, rangeEnd: Uint8Array | null, options: RangeOptions) => RowsRead;

const readKeyValues: Read = (view, key, rangeEnd, options) => view.rangeDecoded(key, rangeEnd, options);

const readKeys: Read = (view, key, rangeEnd, options) => {
  const kvs: KeyValue[] = [];
  const { count, revision } = view.rangeKeys(key, rangeEnd, options, (key, modRevision, createRevision, version) => {
    kvs.push(KeyValue.create({ key: keyCopy(key), modRevision, createRevision, version }));
  });
  return { kvs, count, revision };
};

/** True when the store's own order and limit satisfy the request. */
export function isPlainRange(request: RangeRequest): boolean {
  return isDefaultOrder(request) && !hasRevisionFilters(request);
}

export function isDefaultOrder(request: RangeRequest): boolean {
  return (
    request.sortTarget === SortTarget.KEY &&
    (request.sortOrder === SortOrder.NONE || request.sortOrder === SortOrder.ASCEND)
  );
}

export function hasRevisionFilters(request: RangeRequest): boolean {
  return (
    request.minModRevision !== 0 ||
    request.maxModRevision !== 0 ||
    request.minCreateRevision !== 0 ||
    request.maxCreateRevision !== 0
  );
}

/** Converts the wire's range end for mvcc/: null for a single key, FROM_KEY for everything from the key on. */
export function rangeEndOf(end: Uint8Array): Uint8Array | null {
  if (end.length === 0) return null;
  return end.length === 1 && end[0] === 0 ? FROM_KEY : end;
}

function filtered(kvs: KeyValue[], request: RangeRequest): KeyValue[] {
  if (!hasRevisionFilters(request)) return kvs;
  return kvs.filter((kv) => passesFilters(request, kv.modRevision, kv.createRevision));
}

/** True when a key with these revisions passes the range's filters. */
export function passesFilters(r: RangeRequest, modRevision: number, createRevision: number): boolean {
  return (
    (r.maxModRevision === 0 || modRevision <= r.maxModRevision) &&
    (r.minModRevision === 0 || modRevision >= r.minModRevision) &&
    (r.maxCreateRevision === 0 || createRevision <= r.maxCreateRevision) &&
    (r.minCreateRevision === 0 || createRevision >= r.minCreateRevision)
  );
}

const comparators: Record<SortTarget, (a: KeyValue, b: KeyValue) => number> = {
  [SortTarget.KEY]: (a, b) => Buffer.compare(a.key, b.key),
  [SortTarget.VERSION]: (a, b) => a.version - b.version,
  [SortTarget.CREATE]: (a, b) => a.createRevision - b.createRevision,
  [SortTarget.MOD]: (a, b) => a.modRevision - b.modRevision,
  [SortTarget.VALUE]: (a, b) => Buffer.compare(a.value, b.value),
};

/** Without an order, a target other than the key sorts ascending. */
function sorted(kvs: KeyValue[], r: RangeRequest): KeyValue[] {
  const order = r.sortTarget !== SortTarget.KEY && r.sortOrder === SortOrder.NONE ? SortOrder.ASCEND : r.sortOrder;
  if (order === SortOrder.NONE || (r.sortTarget === SortTarget.KEY && order === SortOrder.ASCEND)) return kvs;
  const compare = comparators[r.sortTarget];
  return kvs.sort(order === SortOrder.ASCEND ? compare : (a, b) => compare(b, a));
}
