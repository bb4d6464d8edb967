import assert from "node:assert/strict";
import { test } from "node:test";
import { AuthStore } from "../../src/auth/store.ts";
import { createTokenProvider } from "../../src/auth/tokens.ts";
import { systemDisk } from "../../src/base/disk.ts";
import { Lessor } from "../../src/lease/lessor.ts";
import { Cluster } from "../../src/membership/cluster.ts";
import { MvccStore } from "../../src/mvcc/store/store.ts";
import {
  AuthEnableRequest,
  AuthRoleAddRequest,
  AuthUserAddRequest,
  AuthUserGrantRoleRequest,
  InternalRaftRequest,
} from "../../src/proto/etcdserverpb.ts";
import { AlarmStore } from "../../src/server/apply/alarms.ts";
import { Applier } from "../../src/server/apply/apply.ts";
import { BackendQuota } from "../../src/server/apply/quota.ts";
import { ServerMetrics } from "../../src/server/contract/metrics.ts";
import { APPLY_SLICE } from "../../src/server/contract/options.ts";
import { decodeLogEntry } from "../../src/server/log/entry.ts";
import { rounds } from "../harness/fast.ts";
import { MemoryLogger } from "../harness/in-process.ts";
import { MemoryBackend } from "../harness/memory-backend.ts";
import { oddRequest } from "../harness/odd-requests.ts";
import { seeded } from "../harness/random.ts";
import { VirtualClock } from "../harness/virtual-clock.ts";

/** A member's state, and what applies the log to it. */
async function openMember() {
  const clock = new VirtualClock();
  const logger = new MemoryLogger();
  const backend = new MemoryBackend({ clock });
  const random = { below: () => 0, uint64: () => 7n };
  const lessor = new Lessor({ clock, logger, backend, minTtl: 2 });
  const store = await MvccStore.open({
    backend,
    clock,
    logger,
    random,
    leases: lessor,
    compactionBatchLimit: 1000,
    compactionSleepMs: 0,
  });
  const auth = new AuthStore({
    backend,
    logger,
    tokens: createTokenProvider({ spec: "simple", simpleTtlMs: 1000, clock, random, disk: systemDisk, logger }),
    passwords: {
      hash: async () => "passwordTooLong",
      hashNow: (password) => `hash of ${password}`,
      matches: async () => false,
    },
  });
  const applier = new Applier({
    auth,
    store,
    lessor,
    alarms: new AlarmStore(backend),
    quota: new BackendQuota(backend, -1),
    cluster: new Cluster({ id: 1n, localId: 1n, backend, logger, serverVersion: "3.7.1" }),
    logger,
    metrics: new ServerMetrics(),
    onVersionLowered: () => {},
    onLogMarked: () => {},
    slice: APPLY_SLICE,
  });
  return { applier, backend, store, clock, logger };
}

/** Enables authentication. */
const WITH_USERS = [
  { authUserAdd: AuthUserAddRequest.create({ name: "root", hashedPassword: "YWI=" }) },
  { authRoleAdd: AuthRoleAddRequest.create({ name: "root" }) },
  { authUserGrantRole: AuthUserGrantRoleRequest.create({ user: "root", role: "root" }) },
  { authEnable: AuthEnableRequest.create() },
].map((fields) => InternalRaftRequest.encode(InternalRaftRequest.create(fields)));

test("whatever request a log holds is applied or refused, the same on every member", async () => {
  for (let seed = 1; seed <= rounds(40); seed++) {
    const random = seeded(seed);
    const members = [await openMember(), await openMember()];
    const first = seed % 2 === 0 ? WITH_USERS : [];
    for (let index = 1; index <= 500; index++) {
      const bytes = first[index - 1] ?? oddRequest(random);
      const outcomes = members.map(({ applier }) => {
        try {
          const request = decodeLogEntry(bytes, () => {});
          return request === undefined ? undefined : applier.applyInternal(request, index);
        } catch (error) {
          throw new Error(`seed ${seed}, request ${index}: ${Buffer.from(bytes.subarray(0, 200)).toString("hex")}`, {
            cause: error,
          });
        }
      });
      assert.deepEqual(outcomes[0], outcomes[1]);
    }
    const [a, b] = members;
    assert.equal(a!.store.currentRevision, b!.store.currentRevision);
  }
});
