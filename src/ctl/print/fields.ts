/**
 * `-w fields`: one `"Name" : value` per line. `--hex` makes ids hexadecimal. Source: etcd v3.7,
 * etcdctl/ctlv3/command/printer_fields.go.
 */
import { quote } from "../../base/quote.ts";
import { Permission_Type } from "../../proto/authpb.ts";
import { AlarmType, type ResponseHeader } from "../../proto/etcdserverpb.ts";
import type { KeyValue } from "../../proto/mvccpb.ts";
import { leaseIdText } from "./lease-id.ts";
import { type Forms, type Printer, printWith, type Shown } from "./shown.ts";

const field = (name: string, value: unknown) => `"${name}" : ${value}\n`;

export function nameOf(values: Readonly<Record<string, number>>, value: number): string {
  return Object.keys(values).find((name) => values[name] === value) ?? String(value);
}

export function fieldsPrinter(hex: boolean): Printer {
  const id = (value: bigint) => (hex ? value.toString(16) : String(value));
  const leaseId = (value: bigint) => (hex ? leaseIdText(value) : String(value));

  function header(message: ResponseHeader | undefined): string {
    const revision = message?.revision ?? 0;
    return (
      field("ClusterID", id(message?.clusterId ?? 0n)) +
      field("MemberID", id(message?.memberId ?? 0n)) +
      (revision > 0 ? field("Revision", revision) : "") +
      field("RaftTerm", message?.raftTerm ?? 0)
    );
  }
  const headerOf = ({ response }: { readonly response: { header: ResponseHeader | undefined } }) =>
    header(response.header);

  const keyValue = (prefix: string, kv: KeyValue | undefined) =>
    field(`${prefix}Key`, quote(kv?.key ?? "")) +
    field(`${prefix}CreateRevision`, kv?.createRevision ?? 0) +
    field(`${prefix}ModRevision`, kv?.modRevision ?? 0) +
    field(`${prefix}Version`, kv?.version ?? 0) +
    field(`${prefix}Value`, quote(kv?.value ?? "")) +
    field(`${prefix}Lease`, leaseId(kv?.lease ?? 0n));

  function* get(response: Shown["get"]) {
    yield header(response.header);
    for (const kv of response.kvs) yield keyValue("", kv);
    yield field("More", response.more) + field("Count", response.count);
  }
  function* put(response: Shown["put"]) {
    yield header(response.header) + (response.prevKv ? keyValue("Prev", response.prevKv) : "");
  }
  function* del(response: Shown["del"]) {
    yield header(response.header) + field("Deleted", response.deleted);
    for (const kv of response.prevKvs) yield keyValue("Prev", kv);
  }

  const forms: Forms = {
    get,
    put,
    del,
    *txn(response) {
      yield header(response.header) + field("Succeeded", response.succeeded);
      for (const { responseRange, responsePut, responseDeleteRange } of response.responses) {
        if (responseRange) yield* get(responseRange);
        else if (responsePut) yield* put(responsePut);
        else if (responseDeleteRange) yield* del(responseDeleteRange);
        else yield field("Unknown", '"nested transaction"');
      }
    },
    *watch(response) {
      yield header(response.header);
      for (const event of response.events) {
        const before = event.prevKv ? keyValue("Prev", event.prevKv) : "";
        yield field("Type", event.type === 0 ? "PUT" : "DELETE") + before + keyValue("", event.kv);
      }
    },
    grant: (response) => header(response.header) + field("ID", leaseId(response.id)) + field("TTL", response.ttl),
    revoke: headerOf,
    keepAlive: (response) => header(response.header) + field("ID", leaseId(response.id)) + field("TTL", response.ttl),
    timeToLive: ({ response }) =>
      header(response.header) +
      field("ID", leaseId(response.id)) +
      field("TTL", response.ttl) +
      field("GrantedTTL", response.grantedTtl) +
      response.keys.map((key) => field("Key", quote(key))).join(""),
    leases: (response) =>
      header(response.header) + response.leases.map((lease) => field("ID", leaseId(lease.id))).join(""),
    memberList: (response) =>
      header(response.header) +
      response.members
        .map(
          (member) =>
            `${field("ID", id(member.id))}${field("Name", quote(member.name))}` +
            member.peerUrls.map((url) => field("PeerURL", quote(url))).join("") +
            member.clientUrls.map((url) => field("ClientURL", quote(url))).join("") +
            `${field("IsLearner", member.isLearner)}\n`,
        )
        .join(""),
    health: (list) =>
      list
        .map(
          ({ endpoint, health, took, error }) =>
            field("Endpoint", quote(endpoint)) +
            field("Health", health) +
            field("Took", took) +
            `${field("Error", error)}\n`,
        )
        .join(""),
    status: (list) => list.map(status).join(""),
    hashKv: (list) =>
      list
        .map(
          ({ endpoint, response }) =>
            header(response.header) +
            field("Endpoint", quote(endpoint)) +
            field("Hash", response.hash) +
            `${field("HashRevision", response.hashRevision)}\n`,
        )
        .join(""),
    alarm: (response) =>
      header(response.header) +
      response.alarms
        .map(
          (alarm) => `${field("MemberID", id(alarm.memberId))}${field("AlarmType", nameOf(AlarmType, alarm.alarm))}\n`,
        )
        .join(""),
    roleAdd: headerOf,
    roleGet: ({ response }) =>
      header(response.header) +
      response.perm
        .map(
          (permission) =>
            `"PermType" :  ${nameOf(Permission_Type, permission.permType)}\n` +
            field("Key", quote(permission.key)) +
            field("RangeEnd", quote(permission.rangeEnd)),
        )
        .join(""),
    roleDelete: headerOf,
    roleList: (response) =>
      `${header(response.header)}"Roles" :${response.roles.map((role) => ` ${quote(role)}`).join("")}\n`,
    roleGrantPermission: headerOf,
    roleRevokePermission: headerOf,
    userAdd: headerOf,
    userChangePassword: (response) => header(response.header),
    userGrantRole: headerOf,
    userRevokeRole: headerOf,
    userDelete: headerOf,
  };

  function status({ endpoint, response }: Shown["status"][number]): string {
    return (
      header(response.header) +
      field("Version", quote(response.version)) +
      field("StorageVersion", quote(response.storageVersion)) +
      field("DBSize", response.dbSize) +
      field("DBSizeInUse", response.dbSizeInUse) +
      field("DBSizeQuota", response.dbSizeQuota) +
      field("Leader", response.leader) +
      field("IsLearner", response.isLearner) +
      field("RaftIndex", response.raftIndex) +
      field("RaftTerm", response.raftTerm) +
      field("RaftAppliedIndex", response.raftAppliedIndex) +
      field("Errors", `[${response.errors.join(" ")}]`) +
      field("Endpoint", quote(endpoint)) +
      field("DowngradeTargetVersion", quote(response.downgradeInfo?.targetVersion ?? "")) +
      `${field("DowngradeEnabled", response.downgradeInfo?.enabled ?? false)}\n`
    );
  }

  return { format: "fields", print: (kind, value) => printWith(forms, kind, value) };
}
