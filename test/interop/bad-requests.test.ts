/** Requests that etcd refuses: this server refuses them with the same code and the same text. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { MethodType } from "../../src/base/protobuf.ts";
import { Permission } from "../../src/proto/authpb.ts";
import {
  AuthService,
  ClusterService,
  CompactionRequest,
  Compare,
  DeleteRangeRequest,
  HashKVRequest,
  KVService,
  LeaseGrantRequest,
  LeaseRevokeRequest,
  LeaseService,
  LeaseTimeToLiveRequest,
  MaintenanceService,
  MemberAddRequest,
  MemberPromoteRequest,
  MemberRemoveRequest,
  MemberUpdateRequest,
  MoveLeaderRequest,
  PutRequest,
  RangeRequest,
  RequestOp,
  TxnRequest,
} from "../../src/proto/etcdserverpb.ts";
import { ourEtcd, requireStockEtcd, stockEtcd } from "../harness/programs.ts";
import { type Server, startServers } from "../harness/server.ts";
import { outcome } from "./compare.ts";
import { type Difference, differencesTo, stockVersion } from "./differences.ts";
import type { Step } from "./history.ts";

const bytes = (text: string) => Buffer.from(text);
const key = bytes("k");
const step = <I, O>(method: MethodType<I, O>, request: I): Step => ({ method: method as Step["method"], request });
const put = (fields: Partial<PutRequest>) => step(KVService.Put, PutRequest.create(fields));
const range = (fields: Partial<RangeRequest>) => step(KVService.Range, RangeRequest.create(fields));
const txn = (fields: Partial<TxnRequest>) => step(KVService.Txn, TxnRequest.create(fields));
const putOp = (fields: Partial<PutRequest>) => RequestOp.create({ requestPut: PutRequest.create(fields) });
const deleteOp = (from: string, end: string) =>
  RequestOp.create({ requestDeleteRange: DeleteRangeRequest.create({ key: bytes(from), rangeEnd: bytes(end) }) });
const rangeOp = (fields: Partial<RangeRequest>) => RequestOp.create({ requestRange: RangeRequest.create(fields) });
const txnOp = (fields: Partial<TxnRequest>) => RequestOp.create({ requestTxn: TxnRequest.create(fields) });
const times = <T>(count: number, make: (i: number) => T) => Array.from({ length: count }, (_, i) => make(i));
const enumValue = (value: number) => value as 0;

/**
 * Two requests that crash stock etcd are omitted: an alarm request with an unknown action (a nil response up to 3.7.1),
 * and, below 3.6, an unknown sort target, which its `since` below excludes.
 *
 * `since` is the first version whose answer this server follows.
 */
const requests: Record<string, { step: Step; since?: readonly [number, number] }> = {
  "put without a key": { step: put({ value: bytes("v") }) },
  "put with ignore_value and a value": { step: put({ key, value: bytes("v"), ignoreValue: true }) },
  "put with ignore_value of a key that does not exist": { step: put({ key: bytes("none"), ignoreValue: true }) },
  "put with ignore_lease and a lease": { step: put({ key, value: bytes("v"), lease: 5n, ignoreLease: true }) },
  "put with ignore_lease of a key that does not exist": { step: put({ key: bytes("none"), ignoreLease: true }) },
  "put with a lease that does not exist": { step: put({ key, value: bytes("v"), lease: 404n }) },
  "put with a negative lease": { step: put({ key, value: bytes("v"), lease: -1n }) },
  "put of 1.5 MiB": { step: put({ key, value: Buffer.alloc(1536 * 1024) }) },
  "put of 1.5 MiB less 600 bytes": { step: put({ key, value: Buffer.alloc(1536 * 1024 - 600) }) },
  "put beyond what gRPC takes": { step: put({ key, value: Buffer.alloc(2 * 1024 * 1024) }) },
  "range without a key": { step: range({}) },
  "range at a future revision": { step: range({ key, revision: 1000 }) },
  "range at a compacted revision": { step: range({ key, revision: 2 }) },
  "range at a negative revision": { step: range({ key, revision: -1 }) },
  "range with a negative limit": { step: range({ key, limit: -1 }) },
  "range with an unknown sort order": { step: range({ key, sortOrder: enumValue(7) }), since: [3, 6] },
  "range with an unknown sort target": { step: range({ key, sortTarget: enumValue(9) }), since: [3, 6] },
  "delete without a key": { step: step(KVService.DeleteRange, DeleteRangeRequest.create()) },
  "txn that puts a key twice": { step: txn({ success: [putOp({ key }), putOp({ key })] }) },
  "txn that puts a key in both branches": { step: txn({ success: [putOp({ key })], failure: [putOp({ key })] }) },
  "txn that puts a key that it deletes": { step: txn({ success: [deleteOp("j", "l"), putOp({ key })] }) },
  "txn that puts a key and deletes it": { step: txn({ success: [putOp({ key }), deleteOp("k", "")] }) },
  "txn that deletes a range twice": { step: txn({ success: [deleteOp("a", "c"), deleteOp("b", "d")] }) },
  "txn that puts at the end of a deleted range": { step: txn({ success: [deleteOp("a", "k"), putOp({ key })] }) },
  "txn that puts a key after those from which on it deletes": {
    step: txn({ success: [deleteOp("j", "\0"), putOp({ key })] }),
  },
  "txn that puts the key from which on it deletes": { step: txn({ success: [deleteOp("k", "\0"), putOp({ key })] }) },
  "txn that puts a key twice by nesting": {
    step: txn({ success: [putOp({ key }), txnOp({ success: [putOp({ key })] })] }),
  },
  "txn that puts a key in two nested ones": {
    step: txn({ success: [txnOp({ success: [putOp({ key })] }), txnOp({ failure: [putOp({ key })] })] }),
  },
  "txn that deletes in a nested one what it puts": {
    step: txn({ success: [txnOp({ success: [deleteOp("a", "z")] }), putOp({ key })] }),
  },
  "txn with 128 operations": { step: txn({ success: times(128, (i) => putOp({ key: bytes(`t${i}`) })) }) },
  "txn with 129 operations": { step: txn({ success: times(129, (i) => putOp({ key: bytes(`t${i}`) })) }) },
  "txn with 129 operations in the other branch": {
    step: txn({ failure: times(129, (i) => putOp({ key: bytes(`t${i}`) })) }),
  },
  "txn with 129 compares": { step: txn({ compare: times(129, () => Compare.create({ key })) }) },
  "txn with a nested one of 129 operations": {
    step: txn({ success: [txnOp({ success: times(129, (i) => putOp({ key: bytes(`t${i}`) })) })] }),
  },
  "txn with 100 and 100 nested operations": {
    step: txn({
      success: [
        ...times(100, (i) => putOp({ key: bytes(`t${i}`) })),
        txnOp({ success: times(100, (i) => putOp({ key: bytes(`u${i}`) })) }),
      ],
    }),
  },
  "txn with a compare without a key": { step: txn({ compare: [Compare.create({ version: 1 })] }) },
  "txn with a put without a key": { step: txn({ success: [putOp({})] }) },
  "txn with a range without a key": { step: txn({ success: [rangeOp({})] }) },
  "txn with a delete without a key": { step: txn({ failure: [deleteOp("", "")] }) },
  "txn with an empty operation": { step: txn({ success: [RequestOp.create()] }) },
  "txn with a put with a lease that does not exist": { step: txn({ success: [putOp({ key, lease: 404n })] }) },
  "txn with such a put in the branch not taken": { step: txn({ failure: [putOp({ key, lease: 404n })] }) },
  "txn with a range at a future revision": { step: txn({ success: [rangeOp({ key, revision: 1000 })] }) },
  "txn with a range at a compacted revision": { step: txn({ success: [rangeOp({ key, revision: 2 })] }) },
  "txn with put and ignore_value and value": {
    step: txn({ success: [putOp({ key, value: key, ignoreValue: true })] }),
  },
  "txn with put and ignore_lease and lease": { step: txn({ success: [putOp({ key, lease: 3n, ignoreLease: true })] }) },
  "txn with an unknown sort target": {
    step: txn({ success: [rangeOp({ key, sortTarget: enumValue(9) })] }),
    since: [3, 6],
  },
  "txn with an unknown compare target": { step: txn({ compare: [Compare.create({ key, target: enumValue(9) })] }) },
  "txn with an unknown compare result": { step: txn({ compare: [Compare.create({ key, result: enumValue(9) })] }) },
  "compaction of a future revision": { step: step(KVService.Compact, CompactionRequest.create({ revision: 1000 })) },
  "compaction of a compacted revision": { step: step(KVService.Compact, CompactionRequest.create({ revision: 3 })) },
  "compaction of revision 0": { step: step(KVService.Compact, CompactionRequest.create({ revision: 0 })) },
  "compaction of a negative revision": { step: step(KVService.Compact, CompactionRequest.create({ revision: -5 })) },
  "hash of a future revision": { step: step(MaintenanceService.HashKV, HashKVRequest.create({ revision: 1000 })) },
  "hash of a compacted revision": { step: step(MaintenanceService.HashKV, HashKVRequest.create({ revision: 2 })) },
  "lease of 0 seconds": { step: step(LeaseService.LeaseGrant, LeaseGrantRequest.create({ id: 77n, ttl: 0 })) },
  "lease of -1 seconds": { step: step(LeaseService.LeaseGrant, LeaseGrantRequest.create({ id: 78n, ttl: -1 })) },
  "lease of more than 9,000,000,000 seconds": {
    step: step(LeaseService.LeaseGrant, LeaseGrantRequest.create({ id: 79n, ttl: 9_000_000_001 })),
  },
  "lease that exists": { step: step(LeaseService.LeaseGrant, LeaseGrantRequest.create({ id: 7n, ttl: 100 })) },
  "revocation of no lease": { step: step(LeaseService.LeaseRevoke, LeaseRevokeRequest.create({ id: 404n })) },
  "revocation of lease 0": { step: step(LeaseService.LeaseRevoke, LeaseRevokeRequest.create()) },
  "time to live of no lease": { step: step(LeaseService.LeaseTimeToLive, LeaseTimeToLiveRequest.create({ id: 404n })) },
  "removal of a member that is not there": {
    step: step(ClusterService.MemberRemove, MemberRemoveRequest.create({ id: 404n })),
  },
  "update of a member that is not there": {
    step: step(ClusterService.MemberUpdate, MemberUpdateRequest.create({ id: 404n, peerUrls: ["http://127.0.0.1:1"] })),
  },
  "update of a member to no URL": { step: step(ClusterService.MemberUpdate, MemberUpdateRequest.create({ id: 404n })) },
  "promotion of a member that is not there": {
    step: step(ClusterService.MemberPromote, MemberPromoteRequest.create({ id: 404n })),
  },
  "member without a URL": { step: step(ClusterService.MemberAdd, MemberAddRequest.create()) },
  "member with a URL that is none": {
    step: step(ClusterService.MemberAdd, MemberAddRequest.create({ peerUrls: ["nonsense"] })),
  },
  "move of the leader to nobody": {
    step: step(MaintenanceService.MoveLeader, MoveLeaderRequest.create({ targetId: 404n })),
  },
  "enabling authentication without root": { step: step(AuthService.AuthEnable, {}) },
  "authentication while it is off": {
    step: step(AuthService.Authenticate, AuthService.Authenticate.request.create({ name: "root", password: "x" })),
  },
  "user without a name": { step: step(AuthService.UserAdd, AuthService.UserAdd.request.create({ password: "x" })) },
  "user that is not there": { step: step(AuthService.UserGet, AuthService.UserGet.request.create({ name: "nobody" })) },
  "deletion of a user that is not there": {
    step: step(AuthService.UserDelete, AuthService.UserDelete.request.create({ name: "nobody" })),
  },
  "role without a name": { step: step(AuthService.RoleAdd, AuthService.RoleAdd.request.create()) },
  "role that is not there": { step: step(AuthService.RoleGet, AuthService.RoleGet.request.create({ role: "none" })) },
  "deletion of a role that is not there": {
    step: step(AuthService.RoleDelete, AuthService.RoleDelete.request.create({ role: "none" })),
  },
  "role granted to a user that is not there": {
    step: step(AuthService.UserGrantRole, AuthService.UserGrantRole.request.create({ user: "nobody", role: "none" })),
  },
  "permission granted to a role that is not there": {
    step: step(
      AuthService.RoleGrantPermission,
      AuthService.RoleGrantPermission.request.create({ name: "none", perm: Permission.create({ key }) }),
    ),
  },
  "no permission granted to a role": {
    step: step(AuthService.RoleGrantPermission, AuthService.RoleGrantPermission.request.create({ name: "none" })),
    since: [3, 5],
  },
};

const setUp: readonly Step[] = [
  step(LeaseService.LeaseGrant, LeaseGrantRequest.create({ id: 7n, ttl: 1000 })),
  ...times(6, (i) => put({ key, value: bytes(`v${i}`), lease: 7n })),
  step(KVService.Compact, CompactionRequest.create({ revision: 4, physical: true })),
];

describe("a bad request", { skip: requireStockEtcd() }, () => {
  let ours: Server;
  let stock: Server;
  let version: readonly [number, number];
  let differences: readonly Difference[];
  before(async () => {
    [ours, stock] = (await startServers([ourEtcd(), stockEtcd()])) as [Server, Server];
    version = await stockVersion(stock);
    differences = await differencesTo(stock);
    for (const each of setUp) for (const server of [ours, stock]) await outcome(server.client, each);
  });
  after(() => Promise.all([ours?.close(), stock?.close()]));

  for (const [name, { step: bad, since = [3, 4] }] of Object.entries(requests)) {
    test(name, async (t) => {
      if (version[0] * 100 + version[1] < since[0] * 100 + since[1]) {
        t.skip(`stock etcd ${version.join(".")} answered otherwise before ${since.join(".")}`);
        return;
      }
      const a = await outcome(ours.client, bad, differences);
      const b = await outcome(stock.client, bad, differences);
      assert.equal(a.text, b.text, "ours (actual) and stock (expected) differ");
    });
  }
});
