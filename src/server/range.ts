import { EMPTY_BYTES } from "../base/protobuf.ts";
import { type DecodedRangeResult, FROM_KEY, fromByteString, type RangeOptions, type ReadView } from "../mvcc/types.ts";
import {
  type RangeRequest,
  RangeResponse,
  ResponseHeader,
  RangeRequest_SortOrder as SortOrder,
  RangeRequest_SortTarget as SortTarget,
} from "../proto/etcdserverpb.ts";
import { KeyValue } from "../proto/mvccpb.ts";

/**
 * Range as a request means it: filters, order and limit over what the store returns.
 * Source: etcd `server/etcdserver/txn/range.go`.
 */
export function executeRange(view: ReadView, request: RangeRequest): RangeResponse {
  const options = {
    revision: request.revision,
    // One more than wanted tells whether there is more.
    limit: limitedBeforeSort(request) && request.limit > 0 ? request.limit + 1 : 0,
    countOnly: request.countOnly,
  };
  const read = fromIndexAlone(request) ? readKeys : readKeyValues;
  const result = read(view, request.key, rangeEndOf(request.rangeEnd), options);
  const kvs = sorted(filtered(result.kvs, request), request);
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

/** Without an order the limit takes the first keys, and a sort target orders only those. */
function limitedBeforeSort(request: RangeRequest): boolean {
  return (request.sortOrder === SortOrder.NONE || isDefaultOrder(request)) && !hasRevisionFilters(request);
}

/** The index has all of a key but its value and its lease; etcd leaves out the lease then. */
function fromIndexAlone(request: RangeRequest): boolean {
  return request.keysOnly && request.sortTarget !== SortTarget.VALUE;
}

type Read = (
  view: ReadView,
  key: Uint8Array,
  rangeEnd: Uint8Array | null,
  options: RangeOptions,
) => Pick<DecodedRangeResult, "kvs" | "count" | "revision">;

const readKeyValues: Read = (view, key, rangeEnd, options) => view.rangeDecoded(key, rangeEnd, options);

const readKeys: Read = (view, key, rangeEnd, options) => {
  const kvs: KeyValue[] = [];
  const { count, revision } = view.rangeKeys(key, rangeEnd, options, (name, modRevision, createRevision, version) => {
    kvs.push(KeyValue.create({ key: fromByteString(name), modRevision, createRevision, version }));
  });
  return { kvs, count, revision };
};

/** True when the store's own order and limit are all that the request asks for. */
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

/** The wire's range end as mvcc/ wants it: null for a single key, FROM_KEY for everything from the key on. */
export function rangeEndOf(end: Uint8Array): Uint8Array | null {
  if (end.length === 0) return null;
  return end.length === 1 && end[0] === 0 ? FROM_KEY : end;
}

function filtered(kvs: KeyValue[], r: RangeRequest): KeyValue[] {
  if (!hasRevisionFilters(r)) return kvs;
  return kvs.filter(
    (kv) =>
      (r.maxModRevision === 0 || kv.modRevision <= r.maxModRevision) &&
      (r.minModRevision === 0 || kv.modRevision >= r.minModRevision) &&
      (r.maxCreateRevision === 0 || kv.createRevision <= r.maxCreateRevision) &&
      (r.minCreateRevision === 0 || kv.createRevision >= r.minCreateRevision),
  );
}

const comparators: Record<SortTarget, (a: KeyValue, b: KeyValue) => number> = {
  [SortTarget.KEY]: (a, b) => Buffer.compare(a.key, b.key),
  [SortTarget.VERSION]: (a, b) => a.version - b.version,
  [SortTarget.CREATE]: (a, b) => a.createRevision - b.createRevision,
  [SortTarget.MOD]: (a, b) => a.modRevision - b.modRevision,
  [SortTarget.VALUE]: (a, b) => Buffer.compare(a.value, b.value),
};

/** A target other than the key is ascending when no order is given. */
function sorted(kvs: KeyValue[], r: RangeRequest): KeyValue[] {
  const order = r.sortTarget !== SortTarget.KEY && r.sortOrder === SortOrder.NONE ? SortOrder.ASCEND : r.sortOrder;
  if (order === SortOrder.NONE || (r.sortTarget === SortTarget.KEY && order === SortOrder.ASCEND)) return kvs;
  const compare = comparators[r.sortTarget];
  return kvs.sort(order === SortOrder.ASCEND ? compare : (a, b) => compare(b, a));
}
