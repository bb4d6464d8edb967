/** Requests and responses of keys, watches and leases, in the form of the module `etcd3`: names of the .proto files, 64-bit numbers as texts. */
import type { CompareResult, CompareTarget, EventType, FilterType, SortOrder, SortTarget } from "./enums.ts";

export interface IRangeRequest {
  key?: Buffer;
  range_end?: Buffer;
  limit?: string | number;
  revision?: string | number;
  sort_order?: SortOrder | keyof typeof SortOrder;
  sort_target?: SortTarget | keyof typeof SortTarget;
  serializable?: boolean;
  keys_only?: boolean;
  count_only?: boolean;
  min_mod_revision?: string | number;
  max_mod_revision?: string | number;
  min_create_revision?: string | number;
  max_create_revision?: string | number;
}

export interface IRangeResponse {
  header: IResponseHeader;
  kvs: IKeyValue[];
  more: boolean;
  count: string;
}

export interface IResponseHeader {
  cluster_id: string;
  member_id: string;
  revision: string;
  raft_term: string;
}

export interface IKeyValue {
  key: Buffer;
  create_revision: string;
  mod_revision: string;
  version: string;
  value: Buffer;
  lease: string;
}

export interface IPutRequest {
  key?: Buffer;
  value?: Buffer;
  lease?: string | number;
  prev_kv?: boolean;
  ignore_value?: boolean;
  ignore_lease?: boolean;
}

export interface IPutResponse {
  header: IResponseHeader;
  prev_kv: IKeyValue;
}

export interface IDeleteRangeRequest {
  key?: Buffer;
  range_end?: Buffer;
  prev_kv?: boolean;
}

export interface IDeleteRangeResponse {
  header: IResponseHeader;
  deleted: string;
  prev_kvs: IKeyValue[];
}

export interface ITxnRequest {
  compare?: ICompare[];
  success?: IRequestOp[];
  failure?: IRequestOp[];
}

export interface ICompare {
  version?: string | number;
  create_revision?: string | number;
  mod_revision?: string | number;
  value?: Buffer;
  lease?: string | number;
  result?: CompareResult | keyof typeof CompareResult;
  target?: CompareTarget | keyof typeof CompareTarget;
  key?: Buffer;
  range_end?: Buffer;
}

export interface IRequestOp {
  request_range?: IRangeRequest;
  request_put?: IPutRequest;
  request_delete_range?: IDeleteRangeRequest;
  request_txn?: ITxnRequest;
}

export interface ITxnResponse {
  header: IResponseHeader;
  succeeded: boolean;
  responses: IResponseOp[];
}

export interface IResponseOp {
  response_range: IRangeResponse;
  response_put: IPutResponse;
  response_delete_range: IDeleteRangeResponse;
  response_txn: ITxnResponse;
}

export interface ICompactionRequest {
  revision?: string | number;
  physical?: boolean;
}

export interface ICompactionResponse {
  header: IResponseHeader;
}

export interface IWatchRequest {
  create_request?: IWatchCreateRequest;
  cancel_request?: IWatchCancelRequest;
  progress_request?: IWatchProgressRequest;
}

export interface IWatchCreateRequest {
  key?: Buffer;
  range_end?: Buffer;
  start_revision?: string | number;
  progress_notify?: boolean;
  filters?: (FilterType | keyof typeof FilterType)[];
  prev_kv?: boolean;
  watch_id?: string | number;
  fragment?: boolean;
}

export interface IWatchCancelRequest {
  watch_id?: string | number;
}

export interface IWatchResponse {
  header: IResponseHeader;
  watch_id: string;
  created: boolean;
  canceled: boolean;
  compact_revision: string;
  cancel_reason: string;
  fragment: boolean;
  events: IEvent[];
}

export interface IEvent {
  type: keyof typeof EventType;
  kv: IKeyValue;
  prev_kv: IKeyValue;
}

export interface ILeaseGrantRequest {
  TTL?: string | number;
  ID?: string | number;
}

export interface ILeaseGrantResponse {
  header: IResponseHeader;
  ID: string;
  TTL: string;
  error: string;
}

export interface ILeaseRevokeRequest {
  ID?: string | number;
}

export interface ILeaseRevokeResponse {
  header: IResponseHeader;
}

export interface ILeaseKeepAliveRequest {
  ID?: string | number;
}

export interface ILeaseKeepAliveResponse {
  header: IResponseHeader;
  ID: string;
  TTL: string;
}

export interface ILeaseTimeToLiveRequest {
  ID?: string | number;
  keys?: boolean;
}

export interface ILeaseTimeToLiveResponse {
  header: IResponseHeader;
  ID: string;
  TTL: string;
  grantedTTL: string;
  keys: Buffer[];
}

export interface ILeaseLeasesResponse {
  header: IResponseHeader;
  leases: ILeaseStatus[];
}

export interface ILeaseStatus {
  ID: string;
}

export type IWatchProgressRequest = Record<string, never>;

export type ILeaseLeasesRequest = Record<string, never>;
