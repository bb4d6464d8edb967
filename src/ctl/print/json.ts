/**
 * `-w json`: one value per line. `--hex` prints the ids of membership responses as hexadecimal strings. Source: etcd
 * v3.7, etcdctl/ctlv3/command/printer_json.go, and the structs of client/v3 for leases and watches.
 */
import type * as pb from "../../proto/etcdserverpb.ts";
import * as go from "./go-json.ts";
import * as shapes from "./shapes.ts";
import { type Forms, type Printer, printWith } from "./shown.ts";

const line = (json: go.Json) => `${json}\n`;
const of = (shape: go.Shape) => (message: object) => linePieces(go.pieces(message, shape));
function* linePieces(pieces: Iterable<go.Json>): Generator<string, void, void> {
  yield* pieces;
  yield "\n";
}
const inner =
  (shape: go.Shape) =>
  ({ response }: { readonly response: object }) =>
    line(go.object(response, shape));
const headerOnly = inner(shapes.HEADER_ONLY);

/** The client's lease structs embed the header's fields. */
function lease(header: pb.ResponseHeader | undefined, fields: go.Json): string {
  const first = header === undefined ? "" : go.members(header, shapes.HEADER);
  return line(`{${[first, fields].filter(Boolean).join(",")}}`);
}

function* txn(response: pb.TxnResponse): Generator<go.Json, void, void> {
  const parts: go.Json[] = [];
  if (response.header) parts.push(`"header":${go.object(response.header, shapes.HEADER)}`);
  if (response.succeeded) parts.push('"succeeded":true');
  if (response.responses.length === 0) return yield `{${parts.join(",")}}`;
  yield `{${[...parts, '"responses":'].join(",")}`;
  for (const [i, op] of response.responses.entries()) {
    yield `${i === 0 ? "[" : ","}{"Response":{`;
    yield* responseOp(op);
    yield "}}";
  }
  yield "]}";
}

function* responseOp(op: pb.ResponseOp): Generator<go.Json, void, void> {
  if (op.responseRange) {
    yield '"response_range":';
    yield* go.pieces(op.responseRange, shapes.RANGE);
  } else if (op.responsePut) yield `"response_put":${go.object(op.responsePut, shapes.PUT)}`;
  else if (op.responseDeleteRange) {
    yield '"response_delete_range":';
    yield* go.pieces(op.responseDeleteRange, shapes.DELETE_RANGE);
  } else if (op.responseTxn) {
    yield '"response_txn":';
    yield* txn(op.responseTxn);
  }
}

function* watch(response: pb.WatchResponse): Generator<string, void, void> {
  yield `{"Header":${go.object(response.header, shapes.HEADER)},"Events":`;
  if (response.events.length === 0) yield "null";
  else yield* go.listPieces(response.events, (event) => go.object(event, shapes.EVENT));
  yield `,"CompactRevision":${response.compactRevision},"Canceled":${response.canceled},` +
    `"Created":${response.created},"CancelReason":${go.string(response.cancelReason)}}\n`;
}

const FORMS: Forms = {
  get: of(shapes.RANGE),
  put: of(shapes.PUT),
  del: of(shapes.DELETE_RANGE),
  txn: (response) => linePieces(txn(response)),
  watch,
  grant: ({ header, id, ttl, error }) => lease(header, `"ID":${id},"TTL":${ttl},"Error":${go.string(error)}`),
  revoke: headerOnly,
  keepAlive: ({ header, id, ttl }) => lease(header, `"ID":${id},"TTL":${ttl}`),
  timeToLive: ({ response: { header, id, ttl, grantedTtl, keys } }) => {
    const list = keys.length === 0 ? "null" : go.array(keys, go.bytes);
    return lease(header, `"id":${id},"ttl":${ttl},"granted-ttl":${grantedTtl},"keys":${list}`);
  },
  leases: ({ header, leases }) => lease(header, `"leases":${go.array(leases, ({ id }) => `{"id":${id}}`)}`),
  memberAdd: of(shapes.MEMBER_ADD),
  memberRemove: inner(shapes.MEMBERS),
  memberUpdate: inner(shapes.MEMBERS),
  memberPromote: inner(shapes.MEMBERS),
  memberList: of(shapes.MEMBERS),
  health: (list) => {
    const json = go.array(list, ({ endpoint, health, took, error }) => {
      const reason = error === "" ? "" : `,"error":${go.string(error)}`;
      return `{"endpoint":${go.string(endpoint)},"health":${health},"took":${go.string(took)}${reason}}`;
    });
    return line(list.length === 0 ? "null" : json);
  },
  status: (list) => line(endpoints(list, "Status", shapes.STATUS)),
  hashKv: (list) => line(endpoints(list, "HashKV", shapes.HASH_KV)),
  moveLeader: headerOnly,
  downgradeValidate: of(shapes.DOWNGRADE),
  downgradeEnable: of(shapes.DOWNGRADE),
  downgradeCancel: of(shapes.DOWNGRADE),
  alarm: of(shapes.ALARM),
  roleAdd: headerOnly,
  roleGet: inner(shapes.ROLE_GET),
  roleDelete: headerOnly,
  roleList: of(shapes.ROLE_LIST),
  roleGrantPermission: headerOnly,
  roleRevokePermission: headerOnly,
  userAdd: headerOnly,
  userGet: inner(shapes.USER_GET),
  userList: of(shapes.USER_LIST),
  userChangePassword: of(shapes.HEADER_ONLY),
  userGrantRole: headerOnly,
  userRevokeRole: headerOnly,
  userDelete: headerOnly,
  authStatus: of(shapes.AUTH_STATUS),
};

function endpoints(
  list: readonly { readonly endpoint: string; readonly response: object }[],
  name: string,
  shape: go.Shape,
): go.Json {
  if (list.length === 0) return "null";
  return go.array(list, ({ endpoint, response }) => {
    return `{"Endpoint":${go.string(endpoint)},"${name}":${go.object(response, shape)}}`;
  });
}

const HEX_FORMS: Forms = {
  ...FORMS,
  memberAdd: ({ header, member, members }) =>
    line(`{"header":${hexHeader(header)},"member":${hexMember(member)},"members":${go.array(members, hexMember)}}`),
  memberRemove: ({ response }) => hexMembers(response),
  memberUpdate: ({ response }) => hexMembers(response),
  memberPromote: ({ response }) => hexMembers(response),
  memberList: hexMembers,
};

function hexMembers(response: { header: pb.ResponseHeader | undefined; members: pb.Member[] }): string {
  return line(`{"header":${hexHeader(response.header)},"members":${go.array(response.members, hexMember)}}`);
}

function hexHeader(header: pb.ResponseHeader | undefined): go.Json {
  if (header === undefined) return "null";
  const rest = go.members(header, { revision: true, raft_term: true });
  const ids = `"cluster_id":"${header.clusterId.toString(16)}","member_id":"${header.memberId.toString(16)}"`;
  return `{${[ids, rest].filter(Boolean).join(",")}}`;
}

function hexMember(member: pb.Member | undefined): go.Json {
  if (member === undefined) return "null";
  const rest = go.members(member, { name: true, peerURLs: "peerUrls", clientURLs: "clientUrls", isLearner: true });
  return `{${[`"ID":"${member.id.toString(16)}"`, rest].filter(Boolean).join(",")}}`;
}

export function jsonPrinter(hex: boolean): Printer {
  const forms = hex ? HEX_FORMS : FORMS;
  return { format: "json", print: (kind, value) => printWith(forms, kind, value) };
}
