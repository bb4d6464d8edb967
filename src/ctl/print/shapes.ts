/** The messages that `-w json` prints, by their names in proto/etcdserverpb/rpc.proto. */
import type { Shape } from "./go-json.ts";

export const HEADER = { cluster_id: true, member_id: true, revision: true, raft_term: true } satisfies Shape;
const header = ["header", HEADER] as const;
export const HEADER_ONLY = { header } satisfies Shape;

const KEY_VALUE: Shape = {
  key: true,
  create_revision: true,
  mod_revision: true,
  version: true,
  value: true,
  lease: true,
};
export const EVENT: Shape = { type: true, kv: ["kv", KEY_VALUE], prev_kv: ["prevKv", KEY_VALUE] };
export const RANGE: Shape = { header, kvs: ["kvs", KEY_VALUE], more: true, count: true };
export const PUT: Shape = { header, prev_kv: ["prevKv", KEY_VALUE] };
export const DELETE_RANGE: Shape = { header, deleted: true, prev_kvs: ["prevKvs", KEY_VALUE] };

const MEMBER: Shape = { ID: "id", name: true, peerURLs: "peerUrls", clientURLs: "clientUrls", isLearner: true };
export const MEMBERS: Shape = { header, members: ["members", MEMBER] };
export const MEMBER_ADD: Shape = { header, member: ["member", MEMBER], members: ["members", MEMBER] };

export const STATUS: Shape = {
  header,
  version: true,
  dbSize: true,
  leader: true,
  raftIndex: true,
  raftTerm: true,
  raftAppliedIndex: true,
  errors: true,
  dbSizeInUse: true,
  isLearner: true,
  storageVersion: true,
  dbSizeQuota: true,
  downgradeInfo: ["downgradeInfo", { enabled: true, targetVersion: true }],
};
export const HASH_KV: Shape = { header, hash: true, compact_revision: true, hash_revision: true };
export const DOWNGRADE: Shape = { header, version: true };
export const ALARM: Shape = { header, alarms: ["alarms", { memberID: "memberId", alarm: true }] };

export const ROLE_GET: Shape = { header, perm: ["perm", { permType: true, key: true, range_end: true }] };
export const ROLE_LIST: Shape = { header, roles: true };
export const USER_GET: Shape = { header, roles: true };
export const USER_LIST: Shape = { header, users: true };
export const AUTH_STATUS: Shape = { header, enabled: true, authRevision: true };
