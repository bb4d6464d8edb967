/** The spans of etcd's server inside of a call: their names and attributes. Source: etcd v3.7, server/etcdserver/v3_server.go. */
import { ProtobufError } from "../../base/protobuf.ts";
import {
  CompactionRequest,
  DeleteRangeRequest,
  KVService,
  LeaseGrantRequest,
  LeaseRevokeRequest,
  LeaseService,
  PutRequest,
  RangeRequest,
  type RequestOp,
  TxnRequest,
} from "../../proto/etcdserverpb.ts";
import type { AttributeValue } from "./span.ts";

export interface Operation {
  readonly name: string;
  readonly attributes: Readonly<Record<string, AttributeValue>>;
}

/** Undefined for methods without one, and for requests that cannot be read. */
export function operationOf(path: string, message: Uint8Array | undefined): Operation | undefined {
  const read = OPERATIONS.get(path);
  if (read === undefined || message === undefined) return undefined;
  try {
    return read(message);
  } catch (error) {
    if (!(error instanceof ProtobufError)) throw error;
    return undefined;
  }
}

const TEXT_BYTES_MAX = 1024;

/** Attributes are UTF-8: other bytes are replaced. */
const text = (bytes: Uint8Array | undefined): string =>
  Buffer.from((bytes ?? NO_BYTES).subarray(0, TEXT_BYTES_MAX)).toString("utf8");
const id = (value: bigint): number => Number(BigInt.asIntN(64, value));

const OPERATIONS: ReadonlyMap<string, (message: Uint8Array) => Operation> = new Map<
  string,
  (message: Uint8Array) => Operation
>([
  [
    KVService.Range.path,
    (message: Uint8Array) => {
      const { key, rangeEnd, revision, limit, countOnly, keysOnly } = RangeRequest.decode(message);
      return {
        name: "range",
        attributes: {
          range_begin: text(key),
          range_end: text(rangeEnd),
          rev: revision,
          limit,
          count_only: countOnly,
          keys_only: keysOnly,
        },
      };
    },
  ],
  [
    KVService.Put.path,
    (message: Uint8Array) => ({ name: "put", attributes: { key: text(PutRequest.decode(message).key) } }),
  ],
  [
    KVService.DeleteRange.path,
    (message: Uint8Array) => {
      const { key, rangeEnd } = DeleteRangeRequest.decode(message);
      return { name: "delete_range", attributes: { range_begin: text(key), range_end: text(rangeEnd) } };
    },
  ],
  [
    KVService.Txn.path,
    (message: Uint8Array) => {
      const { compare, success, failure } = TxnRequest.decode(message);
      const [type, key, lease] = firstOf(success[0]);
      return {
        name: "txn",
        attributes: {
          compare_first_key: text(compare[0]?.key),
          success_first_key: text(key),
          success_first_type: type,
          success_first_lease: id(lease),
          compare_len: compare.length,
          success_len: success.length,
          failure_len: failure.length,
          read_only: [...success, ...failure].every(isRead),
        },
      };
    },
  ],
  [
    KVService.Compact.path,
    (message: Uint8Array) => {
      const { revision, physical } = CompactionRequest.decode(message);
      return { name: "compact", attributes: { is_physical: physical, rev: revision } };
    },
  ],
  [
    LeaseService.LeaseGrant.path,
    (message: Uint8Array) => {
      const request = LeaseGrantRequest.decode(message);
      return { name: "lease_grant", attributes: { id: id(request.id), ttl: request.ttl } };
    },
  ],
  [
    LeaseService.LeaseRevoke.path,
    (message: Uint8Array) => ({
      name: "lease_revoke",
      attributes: { id: id(LeaseRevokeRequest.decode(message).id) },
    }),
  ],
]);

function firstOf(op: RequestOp | undefined): readonly [string, Uint8Array | undefined, bigint] {
  if (op?.requestRange !== undefined) return ["range", op.requestRange.key, 0n];
  if (op?.requestPut !== undefined) return ["put", op.requestPut.key, op.requestPut.lease];
  if (op?.requestDeleteRange !== undefined) return ["delete_range", op.requestDeleteRange.key, 0n];
  return [op?.requestTxn === undefined ? "" : "txn", undefined, 0n];
}

const isRead = ({ requestRange, requestTxn }: RequestOp): boolean =>
  requestRange !== undefined ||
  (requestTxn !== undefined && [...requestTxn.success, ...requestTxn.failure].every(isRead));

const NO_BYTES = new Uint8Array();
