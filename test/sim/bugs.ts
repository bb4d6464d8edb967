/**
 * Planted bugs that the simulator must find. Each is injected through a seam or by replacing a method of the running
 * server, and removed after the run; the server's own code does not know about it.
 */
import { Caller } from "../../src/api/services/concurrency.ts";
import { AuthInfo } from "../../src/auth/auth-info.ts";
import { AuthStore } from "../../src/auth/store.ts";
import { Lessor } from "../../src/lease/lessor.ts";
import { ClusterVersion } from "../../src/membership/cluster-version.ts";
import { type BackendSnapshot, metaKeys } from "../../src/mvcc/backend/backend.ts";
import { BoltBackend } from "../../src/mvcc/backend/bolt-backend.ts";
import type { ChangeList, ChangeListener } from "../../src/mvcc/model/types.ts";
import { KvHasher } from "../../src/mvcc/store/hash.ts";
import { MvccStore, type WriteTxn } from "../../src/mvcc/store/store.ts";
import { WatchHub } from "../../src/mvcc/watch/hub.ts";
import { RaftLog } from "../../src/raft/log.ts";
import { LOCAL_APPEND_THREAD } from "../../src/raft/messages.ts";
import { RawNode } from "../../src/raft/rawnode.ts";
import { AlarmStore } from "../../src/server/apply/alarms.ts";
import { Applier } from "../../src/server/apply/apply.ts";
import { BackendQuota } from "../../src/server/apply/quota.ts";
import { errors } from "../../src/server/contract/errors.ts";
import { StorageVersion } from "../../src/server/duties/storage-version.ts";
import { Op } from "../../src/server/log/op.ts";
import { Replication } from "../../src/server/replication/replication.ts";
import { LogReader } from "../../src/wal/log-reader.ts";
import { Wal } from "../../src/wal/wal.ts";
import { DATABASE_BUGS } from "./bugs-database.ts";
import { type Bug, replace, withoutSyncs } from "./plant.ts";

const isLog = (path: string): boolean => path.endsWith(".wal");

export const BUGS: readonly Bug[] = [
  {
    name: "sync-skipped",
    about: "entries are acknowledged before the log is synced (14370: a single member loses a write in a crash)",
    plant: withoutSyncs(isLog),
  },
  {
    name: "single-sync-skipped",
    about: "the same with a single member, as it was found in etcd (14370)",
    settings: { members: 1 },
    plant: withoutSyncs(isLog),
  },
  {
    name: "vote-not-persisted",
    about: "a member's vote is not stored",
    settings: { members: 3, only: ["kill", "power", "powerAll"], faultEveryMs: 250 },
    plant: () =>
      replace(
        Wal.prototype,
        "append",
        (original) =>
          function (this: Wal, state, entries) {
            original.call(this, state === undefined ? undefined : { ...state, vote: 0n }, entries);
          },
      ),
  },
  {
    name: "term-not-persisted",
    about: "a member's term is not stored",
    plant: () =>
      replace(
        Wal.prototype,
        "append",
        (original) =>
          function (this: Wal, state, entries) {
            original.call(this, state === undefined ? undefined : { ...state, term: 1, vote: 0n }, entries);
          },
      ),
  },
  {
    name: "acknowledged-during-sync",
    about: "an acknowledgement that needs no sync of its own is sent while the sync that its entries need is running",
    plant(simulation) {
      simulation.onStarted = ({ running }) => {
        const { node, wal } = running!.parts;
        const ready = node.ready.bind(node);
        node.ready = () => {
          const next = ready();
          const append = next.messages.find(({ to }) => to === LOCAL_APPEND_THREAD);
          if (append === undefined || next.mustSync || !wal.syncing) return next;
          next.messages.unshift(...append.responses.filter(({ to }) => to !== node.id));
          append.responses = append.responses.filter(({ to }) => to === node.id);
          return next;
        };
      };
      return () => {};
    },
  },
  {
    name: "old-term-counted",
    about: "a leader commits entries of earlier terms by counting (figure 8 of the Raft paper)",
    plant: () =>
      replace(
        RaftLog.prototype,
        "maybeCommit",
        () =>
          function (this: RaftLog, index) {
            if (index <= this.committed || this.term(index) === undefined) return false;
            this.commitTo(index);
            return true;
          },
      ),
  },
  {
    name: "read-without-quorum",
    about:
      "a leader answers linearizable reads without asking whether it still leads (20418: stale reads after a pause)",
    settings: { members: 3, scene: "plain", only: ["isolate", "pause"], faultEveryMs: 1500, operations: 2000 },
    plant: () =>
      replace(
        RawNode.prototype,
        "readIndex",
        (original) =>
          function (this: RawNode, context) {
            if (!this.isLeader) original.call(this, context);
            else this.raft.readStates.push({ index: this.committed, requestCtx: context });
          },
      ),
  },
  {
    name: "read-local",
    about: "every read is served from the member's own state",
    plant: () =>
      replace(Replication.prototype, "read", () => (read) => {
        read.serve(null);
      }),
  },
  {
    name: "apply-twice",
    about: "a batch may be committed without its consistent index (13766: entries are applied again after a crash)",
    plant: () =>
      replace(
        BoltBackend.prototype,
        "setPreCommitHook",
        (original) =>
          function (this: BoltBackend, hook) {
            let commits = 0;
            original.call(this, () => {
              if (++commits % 2 === 0) hook();
            });
          },
      ),
  },
  {
    name: "index-before-state",
    about: "the stored consistent index is one too high: after a crash an entry is never applied",
    plant: () =>
      replace(
        BoltBackend.prototype,
        "put",
        (original) =>
          function (this: BoltBackend, bucket, key, value) {
            if (bucket !== "meta" || !Buffer.from(key).equals(metaKeys.consistentIndex)) {
              original.call(this, bucket, key, value);
              return;
            }
            const index = Buffer.from(value);
            index.writeBigUInt64BE(index.readBigUInt64BE() + 1n);
            original.call(this, bucket, key, index);
          },
      ),
  },
  {
    name: "defragment-without-index",
    about: "defragmentation commits a batch without its consistent index (14685)",
    settings: { only: ["kill", "power"], faultEveryMs: 400, defragmentEveryMs: 100 },
    plant() {
      let inDefragment = false;
      const hooks = replace(
        BoltBackend.prototype,
        "setPreCommitHook",
        (original) =>
          function (this: BoltBackend, hook) {
            original.call(this, () => {
              if (!inDefragment) hook();
            });
          },
      );
      const defragment = replace(
        BoltBackend.prototype,
        "defragment",
        (original) =>
          function (this: BoltBackend) {
            inDefragment = true;
            void this.commit();
            inDefragment = false;
            return original.call(this);
          },
      );
      return () => {
        hooks();
        defragment();
      };
    },
  },
  {
    name: "progress-ahead",
    about: "a progress notification names a revision whose events were not sent yet (15220)",
    plant: () =>
      replace(
        WatchHub.prototype,
        "progressOf",
        () =>
          function (this: WatchHub) {
            return this.revision;
          },
      ),
  },
  {
    name: "progress-of-the-future",
    about: "a watch on a future revision gets progress notifications below it (20221)",
    plant: () =>
      replace(
        WatchHub.prototype,
        "progressOf",
        (original) =>
          function (this: WatchHub, watcher) {
            return original.call(this, { ...watcher, startRevision: 0 } as typeof watcher);
          },
      ),
  },
  {
    name: "watch-future-as-past",
    about: "a watch on a future revision gets events from before it (20221)",
    plant: () =>
      replace(
        WatchHub.prototype,
        "add",
        (original) =>
          function (this: WatchHub, watcher) {
            if (watcher.startRevision > this.revision) watcher.minRevision = this.revision;
            original.call(this, watcher);
          },
      ),
  },
  {
    name: "event-twice",
    about: "events of a transaction are delivered twice (17247)",
    plant: () =>
      replace(
        WatchHub.prototype,
        "newStream",
        (original) =>
          function (this: WatchHub, sink) {
            return original.call(this, {
              deliver: (watch, batch) => {
                const isTaken = sink.deliver(watch, batch);
                if (isTaken && batch.events.length > 1 && batch.revision % 3 === 0) sink.deliver(watch, batch);
                return isTaken;
              },
              deliverLarge: (watch, batch) => sink.deliverLarge(watch, batch),
              deliverCompacted: (watch, revision) => sink.deliverCompacted(watch, revision),
              deliverProgress: (id, revision) => sink.deliverProgress(id, revision),
            });
          },
      ),
  },
  {
    name: "event-lost",
    about: "the last event of some transactions is not delivered",
    plant: () =>
      listening((listener) => (revision, changes) => {
        listener(revision, changes.length > 1 && revision % 5 === 0 ? withoutLast(changes) : changes);
      }),
  },
  {
    name: "event-lost-when-full",
    about: "events that a full stream does not accept are dropped (17529)",
    plant: () =>
      replace(
        WatchHub.prototype,
        "newStream",
        (original) =>
          function (this: WatchHub, sink) {
            return original.call(this, {
              deliver: (watch, batch) => sink.deliver(watch, batch) || true,
              deliverLarge: (watch, batch) => sink.deliverLarge(watch, batch),
              deliverCompacted: (watch, revision) => sink.deliverCompacted(watch, revision),
              deliverProgress: (id, revision) => sink.deliverProgress(id, revision),
            });
          },
      ),
  },
  {
    name: "skipped-when-full",
    about: "a watch that catches up on a full stream skips the revision that was not accepted",
    settings: { scene: "plain", limits: { watchPage: { entries: 1, revisions: 1 } } },
    plant: () =>
      replace(
        WatchHub.prototype,
        "newStream",
        (original) =>
          function (this: WatchHub, sink) {
            const stream = original.call(this, sink);
            const add = stream.blocked.add.bind(stream.blocked);
            stream.blocked.add = (watcher) => {
              if (watcher.minRevision < this.revision) watcher.minRevision++;
              return add(watcher);
            };
            return stream;
          },
      ),
  },
  {
    name: "restore-unnoticed",
    about: "watches do not notice that the store was replaced by a snapshot (15271)",
    settings: { scene: "plain", only: ["isolate", "split", "pause"], snapshots: { count: 10, catchUp: 5 } },
    plant: () => replace(MvccStore.prototype, "onRestore", () => () => () => {}),
  },
  {
    name: "compaction-forgets-revision",
    about: "a store whose last revisions were compacted restarts with a lower revision (17780)",
    plant: () =>
      replace(
        BoltBackend.prototype,
        "get",
        (original) =>
          function (this: BoltBackend, bucket, key) {
            const name = Buffer.from(key);
            const isCompaction = name.equals(metaKeys.scheduledCompact) || name.equals(metaKeys.finishedCompact);
            return bucket === "meta" && isCompaction ? undefined : original.call(this, bucket, key);
          },
      ),
  },
  {
    name: "compaction-drops-tombstone",
    about: "a deletion at the revision of a compaction is missing for watches from that revision (18089, 19179)",
    plant: () =>
      replace(
        MvccStore.prototype,
        "compact",
        (original) =>
          async function (this: MvccStore, revision) {
            await original.call(this, revision);
            const gone: number[] = [];
            this.forEachRevision(revision, revision + 1, 0, (_main, sub, tombstone) => {
              if (tombstone) gone.push(sub);
              return true;
            });
            for (const sub of gone) this.backend.deleteRevision(revision, sub, true);
          },
      ),
  },
  {
    name: "lease-early",
    about: "a new leader does not extend leases",
    settings: { only: ["kill", "pause", "isolate"] },
    plant: () =>
      replace(
        Lessor.prototype,
        "promote",
        (original) =>
          function (this: Lessor) {
            original.call(this, -1500);
          },
      ),
  },
  {
    name: "lease-never",
    about: "expired leases are not revoked by a leader that was elected",
    plant: () => replace(Lessor.prototype, "expired", () => () => []),
  },
  {
    name: "checkpoint-outlives-renewal",
    about: "a renewal does not reset the recorded remaining time of a lease: it ends early at the next leader",
    settings: { only: ["kill", "pause", "isolate"], upkeep: { checkpoints: { everyMs: 500, persist: true } } },
    plant: () =>
      replace(
        Lessor.prototype,
        "checkpoint",
        (original) =>
          function (this: Lessor, id, remainingTtl) {
            if (remainingTtl > 0) original.call(this, id, remainingTtl);
          },
      ),
  },
  {
    name: "corruption-overlooked",
    about: "members whose data differs from the others' are not noticed",
    settings: { upkeep: { checks: { initial: true, everyMs: 1000, compactionsMs: 1000 }, damagesRow: true } },
    plant: () =>
      replace(
        KvHasher.prototype,
        "finish",
        (original) =>
          function (this: KvHasher) {
            return { ...original.call(this), hash: 1 };
          },
      ),
  },
  {
    name: "damage-cut",
    about: "damage of the log is treated as a torn write: acknowledged entries after it are cut off",
    settings: { only: ["rot", "kill", "power"] },
    plant: () =>
      replace(
        LogReader.prototype,
        "damaged",
        (original) =>
          function (this: LogReader, _code, what, cause) {
            return original.call(this, "WAL_TORN_TAIL", what, cause);
          },
      ),
  },
  {
    name: "downgrade-forgotten",
    about: "a member forgets in a restart that the cluster is being downgraded",
    settings: { only: ["downgrade", "kill"] },
    plant: () =>
      replace(
        ClusterVersion.prototype,
        "recover",
        (original) =>
          function (this: ClusterVersion, backend) {
            original.call(this, backend);
            if (this.downgrade.enabled) this.setDowngrade({ enabled: false, targetVersion: "" });
          },
      ),
  },
  {
    name: "storage-version-stays",
    about: "the version of the stored state does not follow the cluster's",
    settings: { only: ["downgrade"] },
    plant: () => replace(StorageVersion.prototype, "migrate", () => () => {}),
  },
  {
    name: "snapshot-behind",
    about: "a snapshot of the backend lacks the newest changes",
    plant: () =>
      replace(
        BoltBackend.prototype,
        "snapshot",
        (original) =>
          async function (this: BoltBackend): Promise<BackendSnapshot> {
            Object.defineProperty(this, "commit", { configurable: true, value: () => Promise.resolve() });
            const snapshot = await original.call(this);
            Reflect.deleteProperty(this, "commit");
            return snapshot;
          },
      ),
  },
  {
    name: "lock-given-to-two",
    about: "a client that asks for a lock does not wait for earlier ones",
    settings: { scene: "sessions" },
    plant: () =>
      replace(
        Caller.prototype,
        "first",
        (original) =>
          async function (this: Caller, request) {
            const found = await original.call(this, request);
            return request.maxCreateRevision > 0 ? { ...found, kv: undefined } : found;
          },
      ),
  },
  {
    name: "permissions-empty-after-start",
    about: "permissions are unknown after a start or a snapshot, until they change (14571: members differ)",
    settings: { scene: "users" },
    plant() {
      const known = new WeakMap<AuthStore, number>();
      const recover = replace(
        AuthStore.prototype,
        "recover",
        (original) =>
          function (this: AuthStore, backend) {
            original.call(this, backend);
            known.set(this, this.revision);
          },
      );
      const mayWrite = replace(
        AuthStore.prototype,
        "mayWrite",
        (original) =>
          function (this: AuthStore, user, key, end) {
            // The first call comes right after the start.
            if (!known.has(this)) known.set(this, this.enabled ? this.revision : -1);
            const isUnknown =
              user.username !== "" && known.get(this) === this.revision && this.mayAdminister(user) !== null;
            return isUnknown ? "permissionDenied" : original.call(this, user, key, end);
          },
      );
      return () => {
        recover();
        mayWrite();
      };
    },
  },
  {
    name: "users-not-recovered",
    about: "a received snapshot replaces the keys, but not users and roles",
    settings: { scene: "users", only: ["isolate", "replace", "kill"] },
    plant: () => replace(AuthStore.prototype, "recover", () => () => {}),
  },
  {
    name: "permissions-not-invalidated",
    about: "a revoked permission stays valid for some time",
    settings: { scene: "users", operations: 1000, durationMs: 20_000, faultEveryMs: 6000 },
    plant() {
      const allowed = new WeakMap<AuthStore, Map<string, number>>();
      return replace(
        AuthStore.prototype,
        "mayRead",
        (original) =>
          function (this: AuthStore, user, key, end) {
            const problem = original.call(this, user, key, end);
            const cache = allowed.get(this) ?? new Map<string, number>();
            allowed.set(this, cache);
            const name = JSON.stringify([user.username, key, end]);
            if (problem === null) cache.set(name, this.revision);
            const since = cache.get(name);
            return problem === "permissionDenied" && since !== undefined && this.revision - since < 8 ? null : problem;
          },
      );
    },
  },
  {
    name: "signed-tokens-never-old",
    about: "requests with the auth revision of an older state are not refused",
    settings: { scene: "users" },
    plant: () =>
      replace(
        AuthStore.prototype,
        "infoOf",
        (original) =>
          function (this: AuthStore, token) {
            const info = original.call(this, token);
            return info === undefined ? undefined : new AuthInfo(info.username, this.revision);
          },
      ),
  },
  {
    name: "reads-ignore-users",
    about: "reads are not checked for permissions",
    settings: { scene: "users" },
    plant: () => replace(AuthStore.prototype, "mayRead", () => () => null),
  },
  {
    name: "compacted-read-in-transaction",
    about: "at one member, a transaction with a read below the compacted revision fails after its first writes (18667)",
    settings: { operations: 1500, durationMs: 20_000, scene: "plain" },
    plant() {
      let affected: Applier | undefined;
      let isUnchecked = false;
      let open: WriteTxn | undefined;
      const compactRevision = Object.getOwnPropertyDescriptor(MvccStore.prototype, "compactRevision")!;
      Object.defineProperty(MvccStore.prototype, "compactRevision", {
        configurable: true,
        get(this: MvccStore): number {
          return isUnchecked ? 0 : (compactRevision.get!.call(this) as number);
        },
      });
      const begin = replace(
        MvccStore.prototype,
        "begin",
        (original) =>
          function (this: MvccStore) {
            const txn = original.call(this);
            if (isUnchecked) open = txn;
            return txn;
          },
      );
      const apply = replace(
        Applier.prototype,
        "apply",
        (original) =>
          function (this: Applier, ...args) {
            const [op] = args;
            affected ??= this;
            isUnchecked = affected === this && op === Op.TXN;
            const outcome = original.apply(this, args);
            if (isUnchecked && outcome === errors.compacted) open?.end();
            isUnchecked = false;
            open = undefined;
            return outcome;
          },
      );
      return () => {
        apply();
        begin();
        Object.defineProperty(MvccStore.prototype, "compactRevision", compactRevision);
      };
    },
  },
  {
    name: "alarm-forgotten",
    about: "alarms are lost in a restart",
    settings: { scene: "quota" },
    plant: () => withoutAlarms((isStart) => isStart),
  },
  {
    name: "alarm-not-in-snapshot",
    about: "a received snapshot does not replace the alarms",
    settings: { scene: "quota", only: ["isolate", "replace", "kill"] },
    plant: () => withoutAlarms((isStart) => !isStart),
  },
  {
    name: "alarm-ignored",
    about: "writes that grow the store are applied in spite of the alarm",
    settings: { scene: "quota" },
    plant() {
      const noSpace = Object.getOwnPropertyDescriptor(AlarmStore.prototype, "noSpace")!;
      Object.defineProperty(AlarmStore.prototype, "noSpace", { configurable: true, get: () => false });
      return () => {
        Object.defineProperty(AlarmStore.prototype, "noSpace", noSpace);
      };
    },
  },
  {
    name: "snapshot-within-quota",
    about: "a database above the quota cannot be sent to a member that needs it",
    settings: { scene: "quota" },
    plant() {
      const bytesMax = Object.getOwnPropertyDescriptor(BackendQuota.prototype, "snapshotBytesMax")!;
      Object.defineProperty(BackendQuota.prototype, "snapshotBytesMax", {
        configurable: true,
        get(this: BackendQuota) {
          return this.limitBytes;
        },
      });
      return () => {
        Object.defineProperty(BackendQuota.prototype, "snapshotBytesMax", bytesMax);
      };
    },
  },
  ...DATABASE_BUGS,
];

/** Alarms are not read from the backend on a start, or from a snapshot. */
function withoutAlarms(isLeftOut: (isStart: boolean) => boolean): () => void {
  const known = new WeakSet<AlarmStore>();
  let isBlind = false;
  const recover = replace(
    AlarmStore.prototype,
    "recover",
    (original) =>
      function (this: AlarmStore, backend) {
        isBlind = isLeftOut(!known.has(this));
        known.add(this);
        original.call(this, backend);
        isBlind = false;
      },
  );
  const forEach = replace(
    BoltBackend.prototype,
    "forEach",
    (original) =>
      function (this: BoltBackend, bucket, visit) {
        if (bucket !== "alarm" || !isBlind) original.call(this, bucket, visit);
      },
  );
  return () => {
    recover();
    forEach();
  };
}

function withoutLast(changes: ChangeList): ChangeList {
  return { length: changes.length - 1, at: (index) => changes.at(index) };
}

function listening(wrap: (listener: ChangeListener) => ChangeListener): () => void {
  return replace(
    MvccStore.prototype,
    "onChange",
    (original) =>
      function (this: MvccStore, listener) {
        return original.call(this, wrap(listener));
      },
  );
}
