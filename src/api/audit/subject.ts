/**
 * What a request is about, as it stands in an audit record: keys and ranges, names of users and roles, ids. Never a value, a
 * password or a token.
 */
import { ProtobufError } from "../../base/protobuf.ts";
import {
  AuthenticateRequest,
  AuthRoleAddRequest,
  AuthRoleDeleteRequest,
  AuthRoleGetRequest,
  AuthRoleGrantPermissionRequest,
  AuthRoleRevokePermissionRequest,
  AuthService,
  AuthUserAddRequest,
  AuthUserChangePasswordRequest,
  AuthUserDeleteRequest,
  AuthUserGetRequest,
  AuthUserGrantRoleRequest,
  AuthUserRevokeRoleRequest,
  ClusterService,
  CompactionRequest,
  DeleteRangeRequest,
  KVService,
  LeaseGrantRequest,
  LeaseRevokeRequest,
  LeaseService,
  LeaseTimeToLiveRequest,
  MemberAddRequest,
  MemberPromoteRequest,
  MemberRemoveRequest,
  MemberUpdateRequest,
  PutRequest,
  RangeRequest,
  type RequestOp,
  TxnRequest,
} from "../../proto/etcdserverpb.ts";

/** The fields of a record: JSON without braces, empty or beginning with a comma; and the keys, for filters. */
export interface Subject {
  readonly fields: string;
  readonly keys: readonly Uint8Array[];
}

type Describe = (message: Uint8Array) => Subject;

const NONE: Subject = { fields: "", keys: [] };
/** Operations of one transaction that are listed. */
const OPS_MAX = 1000;
/** Bytes of a key that are shown. */
const KEY_BYTES_MAX = 4096;

export function subjectOf(path: string, message: Uint8Array): Subject {
  const describe = DESCRIBERS.get(path);
  if (describe === undefined) return NONE;
  try {
    return describe(message);
  } catch (error) {
    if (!(error instanceof ProtobufError)) throw error;
    return { fields: ',"malformed":true', keys: [] };
  }
}

export const subjectOfRange = (range: Range): Subject => ofRange(range);

const hex = (id: bigint): string => BigInt.asUintN(64, id).toString(16);
const text = (name: string, value: string): string => `,"${name}":${JSON.stringify(value)}`;
const ofName = (names: Readonly<Record<string, string>>): Subject => ({
  fields: Object.entries(names)
    .map(([name, value]) => text(name, value))
    .join(""),
  keys: [],
});

export interface Range {
  readonly key: Uint8Array;
  readonly rangeEnd: Uint8Array;
}

function ofRange({ key, rangeEnd }: Range): Subject {
  return { fields: rangeFields({ key, rangeEnd }), keys: [key] };
}

function rangeFields({ key, rangeEnd }: Range): string {
  return rangeEnd.length === 0 ? bytes("key", key) : bytes("key", key) + bytes("rangeEnd", rangeEnd);
}

/** Bytes that are not UTF-8 stand in base64, under a name that says so. */
function bytes(name: string, value: Uint8Array): string {
  const shown = value.length > KEY_BYTES_MAX ? value.subarray(0, KEY_BYTES_MAX) : value;
  const cut = shown.length < value.length ? `,"${name}Bytes":${value.length}` : "";
  const buffer = Buffer.from(shown.buffer, shown.byteOffset, shown.length);
  if (isPlain(buffer)) return `,"${name}":"${buffer.toString("latin1")}"${cut}`;
  const decoded = buffer.toString("utf8");
  if (Buffer.from(decoded).equals(buffer)) return `,"${name}":${JSON.stringify(decoded)}${cut}`;
  return `,"${name}Base64":"${buffer.toString("base64")}"${cut}`;
}

/** ASCII that JSON takes as it is. */
function isPlain(value: Uint8Array): boolean {
  for (let i = 0; i < value.length; i++) {
    const byte = value[i]!;
    if (byte < 0x20 || byte > 0x7e || byte === 0x22 || byte === 0x5c) return false;
  }
  return true;
}

/** A put's key, mostly the first field of the message, without decoding its value. */
function ofPut(message: Uint8Array): Subject {
  if (message[0] === 0x0a && message[1]! < 0x80) {
    const end = 2 + message[1]!;
    // Behind it the value, or nothing: a message may have a field twice.
    const next = message[end];
    if (end <= message.length && (next === undefined || next === 0x12) && isLastKey(message, end)) {
      const key = message.subarray(2, end);
      return { fields: bytes("key", key), keys: [key] };
    }
  }
  const { key } = PutRequest.decode(message);
  return { fields: bytes("key", key), keys: [key] };
}

/** Behind the key comes at most the value, to the end of the message. */
function isLastKey(message: Uint8Array, end: number): boolean {
  if (end === message.length) return true;
  let pos = end + 1;
  let length = 0;
  for (let shift = 0; shift < 28; shift += 7) {
    const byte = message[pos++];
    if (byte === undefined) return false;
    length |= (byte & 0x7f) << shift;
    if (byte < 0x80) return pos + length === message.length;
  }
  return false;
}

function ofTxn(message: Uint8Array): Subject {
  const request = TxnRequest.decode(message);
  const keys: Uint8Array[] = [];
  const left = { ops: OPS_MAX };
  const compare = request.compare.slice(0, OPS_MAX).map((each) => `{${rangeFields(each).slice(1)}}`);
  for (const each of request.compare) keys.push(each.key);
  const success = ofOps(request.success, keys, left);
  const failure = ofOps(request.failure, keys, left);
  return { fields: `,"compare":[${compare.join()}],"success":[${success}],"failure":[${failure}]`, keys };
}

function ofOps(ops: readonly RequestOp[], keys: Uint8Array[], left: { ops: number }): string {
  const shown: string[] = [];
  for (const { requestRange, requestPut, requestDeleteRange, requestTxn } of ops) {
    const range = requestRange ?? requestDeleteRange ?? requestPut;
    if (range !== undefined) keys.push(range.key);
    if (left.ops-- <= 0) {
      if (left.ops === -1) shown.push('{"op":"more"}');
      if (requestTxn !== undefined) ofOps([...requestTxn.success, ...requestTxn.failure], keys, left);
    } else if (requestRange !== undefined) shown.push(`{"op":"range"${rangeFields(requestRange)}}`);
    else if (requestPut !== undefined) shown.push(`{"op":"put"${bytes("key", requestPut.key)}}`);
    else if (requestDeleteRange !== undefined) shown.push(`{"op":"delete"${rangeFields(requestDeleteRange)}}`);
    else if (requestTxn !== undefined) {
      const [success, failure] = [ofOps(requestTxn.success, keys, left), ofOps(requestTxn.failure, keys, left)];
      shown.push(`{"op":"txn","success":[${success}],"failure":[${failure}]}`);
    }
  }
  return shown.join();
}

const member = (id: bigint): Subject => ofName({ member: hex(id) });

const DESCRIBERS: ReadonlyMap<string, Describe> = new Map<string, Describe>([
  [KVService.Put.path, ofPut],
  [KVService.Range.path, (message) => ofRange(RangeRequest.decode(message))],
  [KVService.RangeStream.path, (message) => ofRange(RangeRequest.decode(message))],
  [KVService.DeleteRange.path, (message) => ofRange(DeleteRangeRequest.decode(message))],
  [KVService.Txn.path, ofTxn],
  [
    KVService.Compact.path,
    (message) => ({ fields: `,"compactRevision":${CompactionRequest.decode(message).revision}`, keys: [] }),
  ],
  [LeaseService.LeaseGrant.path, (message) => ofName({ lease: hex(LeaseGrantRequest.decode(message).id) })],
  [LeaseService.LeaseRevoke.path, (message) => ofName({ lease: hex(LeaseRevokeRequest.decode(message).id) })],
  [LeaseService.LeaseTimeToLive.path, (message) => ofName({ lease: hex(LeaseTimeToLiveRequest.decode(message).id) })],
  [AuthService.Authenticate.path, (message) => ofName({ name: AuthenticateRequest.decode(message).name })],
  [AuthService.UserAdd.path, (message) => ofName({ name: AuthUserAddRequest.decode(message).name })],
  [AuthService.UserGet.path, (message) => ofName({ name: AuthUserGetRequest.decode(message).name })],
  [AuthService.UserDelete.path, (message) => ofName({ name: AuthUserDeleteRequest.decode(message).name })],
  [
    AuthService.UserChangePassword.path,
    (message) => ofName({ name: AuthUserChangePasswordRequest.decode(message).name }),
  ],
  [
    AuthService.UserGrantRole.path,
    (message) => {
      const { user, role } = AuthUserGrantRoleRequest.decode(message);
      return ofName({ name: user, role });
    },
  ],
  [
    AuthService.UserRevokeRole.path,
    (message) => {
      const { name, role } = AuthUserRevokeRoleRequest.decode(message);
      return ofName({ name, role });
    },
  ],
  [AuthService.RoleAdd.path, (message) => ofName({ role: AuthRoleAddRequest.decode(message).name })],
  [AuthService.RoleGet.path, (message) => ofName({ role: AuthRoleGetRequest.decode(message).role })],
  [AuthService.RoleDelete.path, (message) => ofName({ role: AuthRoleDeleteRequest.decode(message).role })],
  [
    AuthService.RoleGrantPermission.path,
    (message) => {
      const { name, perm } = AuthRoleGrantPermissionRequest.decode(message);
      const range = perm === undefined ? NONE : ofRange(perm);
      return { fields: text("role", name) + range.fields, keys: range.keys };
    },
  ],
  [
    AuthService.RoleRevokePermission.path,
    (message) => {
      const { role, key, rangeEnd } = AuthRoleRevokePermissionRequest.decode(message);
      const range = ofRange({ key, rangeEnd });
      return { fields: text("role", role) + range.fields, keys: range.keys };
    },
  ],
  [
    ClusterService.MemberAdd.path,
    (message) => ({ fields: `,"peerURLs":${JSON.stringify(MemberAddRequest.decode(message).peerUrls)}`, keys: [] }),
  ],
  [ClusterService.MemberRemove.path, (message) => member(MemberRemoveRequest.decode(message).id)],
  [ClusterService.MemberUpdate.path, (message) => member(MemberUpdateRequest.decode(message).id)],
  [ClusterService.MemberPromote.path, (message) => member(MemberPromoteRequest.decode(message).id)],
]);
