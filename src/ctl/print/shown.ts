/** The results that commands print: one name for each kind, and its value. */
import { encodeLossless } from "../../base/lossless-text.ts";
import type * as pb from "../../proto/etcdserverpb.ts";

export interface Shown {
  get: pb.RangeResponse;
  put: pb.PutResponse;
  del: pb.DeleteRangeResponse;
  txn: pb.TxnResponse;
  watch: pb.WatchResponse;
  grant: pb.LeaseGrantResponse;
  revoke: { readonly id: bigint; readonly response: pb.LeaseRevokeResponse };
  keepAlive: pb.LeaseKeepAliveResponse;
  timeToLive: { readonly keys: boolean; readonly response: pb.LeaseTimeToLiveResponse };
  leases: pb.LeaseLeasesResponse;
  memberAdd: pb.MemberAddResponse;
  memberRemove: { readonly id: bigint; readonly response: pb.MemberRemoveResponse };
  memberUpdate: { readonly id: bigint; readonly response: pb.MemberUpdateResponse };
  memberPromote: { readonly id: bigint; readonly response: pb.MemberPromoteResponse };
  memberList: pb.MemberListResponse;
  health: readonly EndpointHealth[];
  status: readonly EndpointStatus[];
  hashKv: readonly EndpointHashKv[];
  moveLeader: { readonly from: bigint; readonly to: bigint; readonly response: pb.MoveLeaderResponse };
  downgradeValidate: pb.DowngradeResponse;
  downgradeEnable: pb.DowngradeResponse;
  downgradeCancel: pb.DowngradeResponse;
  alarm: pb.AlarmResponse;
  roleAdd: { readonly role: string; readonly response: pb.AuthRoleAddResponse };
  roleGet: { readonly role: string; readonly response: pb.AuthRoleGetResponse };
  roleDelete: { readonly role: string; readonly response: pb.AuthRoleDeleteResponse };
  roleList: pb.AuthRoleListResponse;
  roleGrantPermission: { readonly role: string; readonly response: pb.AuthRoleGrantPermissionResponse };
  roleRevokePermission: {
    readonly role: string;
    readonly key: string;
    readonly end: string;
    readonly response: pb.AuthRoleRevokePermissionResponse;
  };
  userAdd: { readonly user: string; readonly response: pb.AuthUserAddResponse };
  userGet: { readonly user: string; readonly response: pb.AuthUserGetResponse };
  userList: pb.AuthUserListResponse;
  userChangePassword: pb.AuthUserChangePasswordResponse;
  userGrantRole: { readonly user: string; readonly role: string; readonly response: pb.AuthUserGrantRoleResponse };
  userRevokeRole: { readonly user: string; readonly role: string; readonly response: pb.AuthUserRevokeRoleResponse };
  userDelete: { readonly user: string; readonly response: pb.AuthUserDeleteResponse };
  authStatus: pb.AuthStatusResponse;
}

export type Kind = keyof Shown;

export interface EndpointHealth {
  readonly endpoint: string;
  readonly health: boolean;
  /** As Go prints a duration; empty without a connection. */
  readonly took: string;
  /** Empty for none. */
  readonly error: string;
}

export interface EndpointStatus {
  readonly endpoint: string;
  readonly response: pb.StatusResponse;
}

export interface EndpointHashKv {
  readonly endpoint: string;
  readonly response: pb.HashKVResponse;
}

/** The output, in pieces: a whole range may exceed the limits of a string or a buffer. */
export type Output = string | Uint8Array | Iterable<string | Uint8Array>;

/** One output format. */
export interface Printer {
  readonly format: string;
  /** Undefined when the format cannot print this kind. */
  print<K extends Kind>(kind: K, value: Shown[K]): Output | undefined;
  /** As `print`, for standard error. */
  complaints?<K extends Kind>(kind: K, value: Shown[K]): string;
}

/** One function for each kind that a format can print. */
export type Forms = { readonly [K in Kind]?: (value: Shown[K]) => Output };

export function printWith<K extends Kind>(forms: Forms, kind: K, value: Shown[K]): Output | undefined {
  const form = forms[kind] as ((value: Shown[K]) => Output) | undefined;
  return form?.(value);
}

/** Pieces large enough for a write: small ones are joined, large ones stay as they are. */
export function* gathered(output: Output): Generator<Uint8Array, void, void> {
  if (typeof output === "string" || output instanceof Uint8Array) {
    if (output.length > 0) yield bytesOf(output);
    return;
  }
  let small: Uint8Array[] = [];
  let bytes = 0;
  for (const piece of output) {
    const data = bytesOf(piece);
    if (data.length < WRITE_BYTES) {
      small.push(data);
      bytes += data.length;
      if (bytes < WRITE_BYTES) continue;
    }
    if (small.length > 0) yield Buffer.concat(small);
    if (data.length >= WRITE_BYTES) yield data;
    small = [];
    bytes = 0;
  }
  if (bytes > 0) yield Buffer.concat(small);
}

const WRITE_BYTES = 64 * 1024;

const bytesOf = (data: string | Uint8Array) => (typeof data === "string" ? encodeLossless(data) : data);
