/** A transaction that only reads keys that the proxy holds, answered without the cluster. */
import {
  type Compare,
  Compare_CompareResult,
  Compare_CompareTarget,
  type ResponseHeader,
  ResponseOp,
  type TxnRequest,
  type TxnResponse,
} from "../../../proto/etcdserverpb.ts";
import { type Held, type LeasingCache, nameOf } from "./cache.ts";

/** Undefined when the cluster has to be asked. */
export function answerLocally(cache: LeasingCache, request: TxnRequest): TxnResponse | undefined {
  if (request.compare.length === 0 && request.success.length === 0) return undefined;
  let newest: ResponseHeader | undefined;
  const seen = (held: Held): void => {
    if (newest === undefined || held.header.revision > newest.revision) newest = held.header;
  };
  let succeeded = true;
  for (const compare of request.compare) {
    const held = presentOf(cache, compare.key, compare.rangeEnd);
    if (held === undefined) return undefined;
    seen(held);
    succeeded &&= holds(held, compare);
  }
  const responses: ResponseOp[] = [];
  for (const { requestRange } of succeeded ? request.success : request.failure) {
    if (requestRange === undefined || requestRange.revision > 0) return undefined;
    const held = presentOf(cache, requestRange.key, requestRange.rangeEnd);
    const responseRange = held && cache.read(held.name, requestRange);
    if (responseRange === undefined) return undefined;
    seen(held!);
    responses.push(ResponseOp.create({ responseRange }));
  }
  return newest === undefined ? undefined : { header: newest, succeeded, responses };
}

function presentOf(cache: LeasingCache, key: Uint8Array, rangeEnd: Uint8Array): Held | undefined {
  const held = rangeEnd.length > 0 ? undefined : cache.get(nameOf(key));
  return held === undefined || held.writers > 0 ? undefined : held;
}

/** A key that does not exist has revisions and version 0, and no value that could be compared. */
function holds({ pair }: Held, compare: Compare): boolean {
  const { target } = compare;
  if (target === Compare_CompareTarget.VALUE) {
    return pair !== undefined && agrees(compare, Buffer.compare(pair.value, compare.value ?? NO_BYTES));
  }
  if (target === Compare_CompareTarget.LEASE) {
    const lease = compare.lease ?? 0n;
    return agrees(compare, lease === 0n ? 0 : lease > 0n ? -1 : 1);
  }
  if (target === Compare_CompareTarget.CREATE) {
    return agrees(compare, (pair?.createRevision ?? 0) - (compare.createRevision ?? 0));
  }
  if (target === Compare_CompareTarget.MOD) {
    return agrees(compare, (pair?.modRevision ?? 0) - (compare.modRevision ?? 0));
  }
  return agrees(compare, (pair?.version ?? 0) - (compare.version ?? 0));
}

function agrees({ result }: Compare, order: number): boolean {
  if (result === Compare_CompareResult.EQUAL) return order === 0;
  if (result === Compare_CompareResult.NOT_EQUAL) return order !== 0;
  return result === Compare_CompareResult.GREATER ? order > 0 : order < 0;
}

const NO_BYTES = new Uint8Array();
