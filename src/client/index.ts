/** What `import … from "kvorum/client"` gives. */
export type { Access, Auth, Permission } from "./auth.ts";
export type { Claim, ClaimOptions } from "./claims.ts";
export { Client } from "./client.ts";
export type { Cluster, Member } from "./cluster.ts";
export { bytes, type Codec, CodecError, json, utf8 } from "./codec.ts";
export type { CallDiagnostics, ConnectionDiagnostics } from "./diagnostics.ts";
export type { Election, Leader, Leadership } from "./election.ts";
export { EndpointError } from "./endpoint.ts";
export { endpointsFromDns, optionsFromEnvironment } from "./environment.ts";
export type { Key, KeyRange, KeyValue } from "./keys.ts";
export type { Keyspace, ListOptions } from "./keyspace.ts";
export { type GrantOptions, type Lease, LeaseLostError, type Leases, type TimeToLive } from "./leases.ts";
export { type Alarm, type Maintenance, SnapshotError, type Status } from "./maintenance.ts";
export { Mirror, type MirrorChange, type MirrorOptions } from "./mirror.ts";
export {
  type Comparison,
  type DeleteOptions,
  type DeleteResult,
  type GetOptions,
  type LeaseId,
  type Op,
  type OpResult,
  type OpResults,
  type Ops,
  op,
  type PutOptions,
  type PutResult,
  type RangeOptions,
  type RangeResult,
  type Relation,
  type Txn,
  type TxnResult,
  when,
} from "./operations.ts";
export {
  type CallOptions,
  ClientClosedError,
  type ClientOptions,
  ClientOptionsError,
  type ClientTls,
} from "./options.ts";
export { RpcError } from "./rpc-error.ts";
export { SrvError } from "./srv.ts";
export type { Transaction, TransactionResult } from "./transaction.ts";
export type { EndpointStatus } from "./transport/links.ts";
export {
  type DeleteEvent,
  type PutEvent,
  type WatchBatch,
  WatchCompactedError,
  type WatchEvent,
} from "./watch-events.ts";
export type { Watcher, WatchOptions } from "./watcher.ts";
