/** Short forms of requests, for the tests of server/. Keys and values are given as text. */
import {
  Compare,
  Compare_CompareResult as CompareResult,
  Compare_CompareTarget as CompareTarget,
  DeleteRangeRequest,
  PutRequest,
  RangeRequest,
  RequestOp,
  TxnRequest,
} from "../../src/proto/etcdserverpb.ts";

export const bytes = (text: string): Buffer => Buffer.from(text);
export const text = (value: Uint8Array): string => Buffer.from(value).toString();

export const range = (key: string, rangeEnd = "", fields: Partial<RangeRequest> = {}): RangeRequest =>
  RangeRequest.create({ key: bytes(key), rangeEnd: bytes(rangeEnd), ...fields });

export const put = (key: string, value = "", fields: Partial<PutRequest> = {}): PutRequest =>
  PutRequest.create({ key: bytes(key), value: bytes(value), ...fields });

export const remove = (key: string, rangeEnd = "", fields: Partial<DeleteRangeRequest> = {}): DeleteRangeRequest =>
  DeleteRangeRequest.create({ key: bytes(key), rangeEnd: bytes(rangeEnd), ...fields });

export const rangeOp = (...args: Parameters<typeof range>): RequestOp =>
  RequestOp.create({ requestRange: range(...args) });
export const putOp = (...args: Parameters<typeof put>): RequestOp => RequestOp.create({ requestPut: put(...args) });
export const removeOp = (...args: Parameters<typeof remove>): RequestOp =>
  RequestOp.create({ requestDeleteRange: remove(...args) });
export const txnOp = (request: TxnRequest): RequestOp => RequestOp.create({ requestTxn: request });

export const txn = (success: RequestOp[], failure: RequestOp[] = [], compare: Compare[] = []): TxnRequest =>
  TxnRequest.create({ compare, success, failure });

export const valueIs = (key: string, value: string, result: CompareResult = CompareResult.EQUAL): Compare =>
  Compare.create({ key: bytes(key), target: CompareTarget.VALUE, result, value: bytes(value) });

export const compare = (key: string, fields: Partial<Compare>): Compare =>
  Compare.create({ key: bytes(key), ...fields });
