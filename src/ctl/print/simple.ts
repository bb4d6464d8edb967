/**
 * `-w simple`, the default: keys and values as they are, results as sentences. `--hex` prints keys and values as `\x61`.
 * Source: etcd v3.7, etcdctl/ctlv3/command/printer_simple.go.
 */
import { decodeLossless } from "../../base/lossless-text.ts";
import { type Permission, Permission_Type } from "../../proto/authpb.ts";
import { AlarmType, type ResponseOp } from "../../proto/etcdserverpb.ts";
import type { KeyValue } from "../../proto/mvccpb.ts";
import { prefixEnd } from "../ranges.ts";
import { nameOf } from "./fields.ts";
import { leaseIdText } from "./lease-id.ts";
import { hashRows, memberRows, statusRows } from "./rows.ts";
import { type Forms, type Printer, printWith, type Shown } from "./shown.ts";

const NEWLINE = Buffer.from("\n");
const spaced = (id: bigint) => id.toString(16).padStart(16, " ");
const lines = (texts: readonly string[]) => texts.map((text) => `${text}\n`).join("");
const cells = (rows: readonly (readonly string[])[]) => lines(rows.map((row) => row.join(", ")));
const clusterOf = (response: { header: { clusterId: bigint } | undefined }) => spaced(response.header?.clusterId ?? 0n);

export interface SimpleOptions {
  readonly hex: boolean;
  /** Prints values without their keys. */
  readonly valueOnly: boolean;
}

export function simplePrinter({ hex, valueOnly }: SimpleOptions): Printer {
  const text = (bytes: Uint8Array): Uint8Array => (hex ? escaped(bytes) : bytes);
  const keyValue = (kv: KeyValue | undefined): Uint8Array[] => {
    if (kv === undefined) return [NEWLINE, NEWLINE];
    const value = [text(kv.value), NEWLINE];
    return valueOnly ? value : [text(kv.key), NEWLINE, ...value];
  };

  function* keyValues(kvs: readonly KeyValue[]) {
    for (const kv of kvs) yield* keyValue(kv);
  }
  const get = (response: Shown["get"]) => keyValues(response.kvs);
  function* put(response: Shown["put"]) {
    yield "OK\n";
    if (response.prevKv) yield* keyValue(response.prevKv);
  }
  function* del(response: Shown["del"]) {
    yield `${response.deleted}\n`;
    yield* keyValues(response.prevKvs);
  }
  function result(op: ResponseOp): Iterable<string | Uint8Array> {
    if (op.responseRange) return get(op.responseRange);
    if (op.responsePut) return put(op.responsePut);
    return op.responseDeleteRange ? del(op.responseDeleteRange) : ["unexpected response\n"];
  }

  const forms: Forms = {
    get,
    put,
    del,
    *txn(response) {
      yield response.succeeded ? "SUCCESS\n" : "FAILURE\n";
      for (const op of response.responses) {
        yield NEWLINE;
        yield* result(op);
      }
    },
    *watch(response) {
      for (const { type, kv, prevKv } of response.events) {
        yield type === 0 ? "PUT\n" : "DELETE\n";
        if (prevKv) yield* keyValue(prevKv);
        yield* keyValue(kv);
      }
    },
    grant: ({ id, ttl }) => `lease ${leaseIdText(id)} granted with TTL(${ttl}s)\n`,
    revoke: ({ id }) => `lease ${leaseIdText(id)} revoked\n`,
    keepAlive: ({ id, ttl }) => `lease ${leaseIdText(id)} keepalived with TTL(${ttl})\n`,
    timeToLive: ({ keys, response: { id, ttl, grantedTtl, keys: attached } }) => {
      if (grantedTtl === 0 && ttl === -1) return `lease ${leaseIdText(id)} already expired\n`;
      const list = keys ? `, attached keys([${attached.map(decodeLossless).join(" ")}])` : "";
      return `lease ${leaseIdText(id)} granted with TTL(${grantedTtl}s), remaining(${ttl}s)${list}\n`;
    },
    leases: ({ leases }) => `found ${leases.length} leases\n${lines(leases.map(({ id }) => leaseIdText(id)))}`,
    memberAdd: (response) => {
      const learner = response.member?.isLearner ? " as learner " : " ";
      return `Member ${spaced(response.member?.id ?? 0n)} added${learner}to cluster ${clusterOf(response)}\n`;
    },
    memberRemove: ({ id, response }) => `Member ${spaced(id)} removed from cluster ${clusterOf(response)}\n`,
    memberUpdate: ({ id, response }) => `Member ${spaced(id)} updated in cluster ${clusterOf(response)}\n`,
    memberPromote: ({ id, response }) => `Member ${spaced(id)} promoted in cluster ${clusterOf(response)}\n`,
    memberList: (response) => cells(memberRows(response)),
    health: (list) =>
      lines(
        list
          .filter(({ error }) => error === "")
          .map(({ endpoint, took }) => `${endpoint} is healthy: successfully committed proposal: took = ${took}`),
      ),
    status: (list) => cells(statusRows(list)),
    hashKv: (list) => cells(hashRows(list)),
    moveLeader: ({ from, to }) => `Leadership transferred from ${from.toString(16)} to ${to.toString(16)}\n`,
    downgradeValidate: ({ version }) => `Downgrade validate success, cluster version ${version}\n`,
    downgradeEnable: ({ version }) => `Downgrade enable success, cluster version ${version}\n`,
    downgradeCancel: ({ version }) => `Downgrade cancel success, cluster version ${version}\n`,
    alarm: ({ alarms }) =>
      lines(alarms.map(({ memberId, alarm }) => `memberID:${memberId} alarm:${nameOf(AlarmType, alarm)}`)),
    roleAdd: ({ role }) => `Role ${role} created\n`,
    roleGet: ({ role, response }) => roleText(role, response.perm),
    roleDelete: ({ role }) => `Role ${role} deleted\n`,
    roleList: ({ roles }) => lines(roles),
    roleGrantPermission: ({ role }) => `Role ${role} updated\n`,
    roleRevokePermission: ({ role, key, end }) => {
      if (end === "") return `Permission of key ${key} is revoked from role ${role}\n`;
      return `Permission of range [${key}, ${end === "\0" ? "<open ended>" : `${end})`} is revoked from role ${role}\n`;
    },
    userAdd: ({ user }) => `User ${user} created\n`,
    userGet: ({ user, response }) => `User: ${user}\nRoles:${response.roles.map((role) => ` ${role}`).join("")}\n`,
    userList: ({ users }) => lines(users),
    userChangePassword: () => "Password updated\n",
    userGrantRole: ({ user, role }) => `Role ${role} is granted to user ${user}\n`,
    userRevokeRole: ({ user, role }) => `Role ${role} is revoked from user ${user}\n`,
    userDelete: ({ user }) => `User ${user} deleted\n`,
    authStatus: ({ enabled, authRevision }) => `Authentication Status: ${enabled}\nAuthRevision: ${authRevision}\n`,
  };

  return {
    format: "simple",
    print: (kind, value) => printWith(forms, kind, value),
    complaints: (kind, value) => (kind === "health" ? unhealthy(value as Shown["health"]) : ""),
  };
}

const HEX_DIGITS = Buffer.from("0123456789abcdef");

/** `\\x61` for each byte. */
function escaped(bytes: Uint8Array): Uint8Array {
  const text = Buffer.alloc(bytes.length * 4, "\\x  ");
  for (let i = 0; i < bytes.length; i++) {
    text[i * 4 + 2] = HEX_DIGITS[bytes[i]! >> 4]!;
    text[i * 4 + 3] = HEX_DIGITS[bytes[i]! & 15]!;
  }
  return text;
}

const unhealthy = (list: Shown["health"]) =>
  lines(
    list
      .filter(({ error }) => error !== "")
      .map(({ endpoint, error }) => `${endpoint} is unhealthy: failed to commit proposal: ${error}`),
  );

function roleText(role: string, permissions: readonly Permission[]): string {
  const everything = role === "root" && permissions.length === 0;
  const section = (type: number) =>
    everything
      ? "\t[, <open ended>\n"
      : lines(
          permissions
            .filter(({ permType }) => permType === type || permType === Permission_Type.READWRITE)
            .map(permissionText),
        );
  return `Role ${role}\nKV Read:\n${section(Permission_Type.READ)}KV Write:\n${section(Permission_Type.WRITE)}`;
}

function permissionText({ key, rangeEnd }: Permission): string {
  const start = decodeLossless(key);
  if (rangeEnd.length === 0) return `\t${start}`;
  const end = decodeLossless(rangeEnd);
  const range = end === "\0" ? `\t[${start}, <open ended>` : `\t[${start}, ${end})`;
  const isPrefix = key.length > 0 && prefixEnd(key).equals(rangeEnd);
  return isPrefix ? `${range} (prefix ${start})` : range;
}
