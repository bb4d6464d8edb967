/** Parts of transactions. */
import {
  Compare,
  Compare_CompareResult,
  Compare_CompareTarget,
  type DeleteRangeRequest,
  type PutRequest,
  type RangeRequest,
  RequestOp,
  type TxnRequest,
} from "../../../proto/etcdserverpb.ts";

export const compareCreated = (key: Uint8Array, how: "<" | "=", createRevision: number): Compare =>
  Compare.create({
    key,
    target: Compare_CompareTarget.CREATE,
    result: how === "<" ? Compare_CompareResult.LESS : Compare_CompareResult.EQUAL,
    createRevision,
  });

export const compareLease = (key: Uint8Array, lease: bigint): Compare =>
  Compare.create({ key, target: Compare_CompareTarget.LEASE, result: Compare_CompareResult.EQUAL, lease });

export const getOp = (requestRange: RangeRequest): RequestOp => RequestOp.create({ requestRange });
export const putOp = (requestPut: PutRequest): RequestOp => RequestOp.create({ requestPut });
export const deleteOp = (requestDeleteRange: DeleteRangeRequest): RequestOp => RequestOp.create({ requestDeleteRange });
export const txnOp = (requestTxn: TxnRequest): RequestOp => RequestOp.create({ requestTxn });
