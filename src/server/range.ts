import { EMPTY_BYTES } from "../base/protobuf.ts";
import { FROM_KEY, type ReadView } from "../mvcc/types.ts";
import {
  type RangeRequest,
  RangeResponse,
  ResponseHeader,
  RangeRequest_SortOrder as SortOrder,
  RangeRequest_SortTarget as SortTarget,
} from "../proto/etcdserverpb.ts";
import type { KeyValue } from "../proto/mvccpb.ts";

/**
 * Range as a request means it: filters, order and limit over what the store returns.
 * Source: etcd `server/etcdserver/txn/range.go`.
 */
export function executeRange(view: ReadView, request: RangeRequest): RangeResponse {
  const plain = isPlainRange(request);
  const result = view.rangeDecoded(request.key, rangeEndOf(request.rangeEnd), {
    revision: request.revision,
    limit: plain ? request.limit : 0,
    countOnly: request.countOnly,
  });
  let kvs = result.kvs;
  let more = request.limit > 0 && plain && !request.countOnly && result.count > kvs.length;
  if (!plain) {
    kvs = sorted(filtered(kvs, request), request);
    if (request.limit > 0 && kvs.length > request.limit) {
      kvs.length = request.limit;
      more = true;
    }
  }
  if (request.keysOnly) for (const kv of kvs) kv.value = EMPTY_BYTES;
  return RangeResponse.create({
    header: ResponseHeader.create({ revision: result.revision }),
    kvs,
    more,
    count: result.count,
  });
}

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
