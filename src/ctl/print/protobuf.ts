/** `-w protobuf`: the response message itself, as bytes. */
import type { Codec } from "../../base/protobuf.ts";
import * as pb from "../../proto/etcdserverpb.ts";
import { EXIT, ExitError } from "../exit.ts";
import { type Forms, type Printer, printWith } from "./shown.ts";

const of =
  <T>(codec: Codec<T>) =>
  (message: T): Uint8Array =>
    codec.encode(message);
const inner =
  <T>(codec: Codec<T>) =>
  ({ response }: { readonly response: T }): Uint8Array =>
    codec.encode(response);

/** The client's lease structs count as their embedded header, so etcdctl prints only that. */
const headerOnly = ({ header }: { readonly header: pb.ResponseHeader | undefined }): Uint8Array =>
  pb.ResponseHeader.encode(header ?? pb.ResponseHeader.create());

const FORMS: Forms = {
  get: of(pb.RangeResponse),
  put: of(pb.PutResponse),
  del: of(pb.DeleteRangeResponse),
  txn: of(pb.TxnResponse),
  watch: (response) => pb.WatchResponse.encode({ ...response, watchId: 0, cancelReason: "", fragment: false }),
  grant: headerOnly,
  revoke() {
    throw new ExitError(EXIT.badFeature, "marshal unsupported for type *clientv3.LeaseRevokeResponse");
  },
  keepAlive: headerOnly,
  timeToLive: ({ response }) => headerOnly(response),
  leases: headerOnly,
  memberAdd: of(pb.MemberAddResponse),
  memberRemove: inner(pb.MemberRemoveResponse),
  memberUpdate: inner(pb.MemberUpdateResponse),
  memberPromote: inner(pb.MemberPromoteResponse),
  memberList: of(pb.MemberListResponse),
  moveLeader: inner(pb.MoveLeaderResponse),
  downgradeValidate: of(pb.DowngradeResponse),
  downgradeEnable: of(pb.DowngradeResponse),
  downgradeCancel: of(pb.DowngradeResponse),
  alarm: of(pb.AlarmResponse),
  roleAdd: inner(pb.AuthRoleAddResponse),
  roleGet: inner(pb.AuthRoleGetResponse),
  roleDelete: inner(pb.AuthRoleDeleteResponse),
  roleList: of(pb.AuthRoleListResponse),
  roleGrantPermission: inner(pb.AuthRoleGrantPermissionResponse),
  roleRevokePermission: inner(pb.AuthRoleRevokePermissionResponse),
  userAdd: inner(pb.AuthUserAddResponse),
  userGet: inner(pb.AuthUserGetResponse),
  userList: of(pb.AuthUserListResponse),
  userChangePassword: of(pb.AuthUserChangePasswordResponse),
  userGrantRole: inner(pb.AuthUserGrantRoleResponse),
  userRevokeRole: inner(pb.AuthUserRevokeRoleResponse),
  userDelete: inner(pb.AuthUserDeleteResponse),
  authStatus: of(pb.AuthStatusResponse),
};

export const protobufPrinter: Printer = { format: "protobuf", print: (kind, value) => printWith(FORMS, kind, value) };
