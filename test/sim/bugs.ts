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
import { BoltBackend } from "../../src/mvcc/backend/bolt.ts";
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
import type { PlanSettings } from "./plan.ts";
import type { Simulation } from "./simulation.ts";

export interface Bug {
  readonly name: string;
  /** What is broken; with etcd's issue number where it is one. */
  readonly about: string;
  readonly settings?: PlanSettings;
  /** Plants the bug; the returned function removes it. */
  plant(simulation: Simulation): () => void;
}

/** Replaces a method; returns a function that undoes it. */
function replace<T extends object, K extends keyof T>(target: T, name: K, make: (original: T[K]) => T[K]): () => void {
  const original = target[name];
  target[name] = make(original);
  return () => {
    target[name] = original;
  };
}

const nothingToUndo = (): void => {};

const isLog = (path: string): boolean => path.endsWith(".wal");

export const BUGS: readonly Bug[] = [
  {
    name: "sync-skipped",
    about: "the log is not synced before it is acknowledged (14370: a single member loses a write in a crash)",
    plant(simulation) {
      simulation.onStarting = ({ disk }) => {
        disk.syncLies = isLog;
      };
      return nothingToUndo;
    },
  },
  {
    name: "single-sync-skipped",
    about: "the same with a single member, as it was found in etcd (14370)",
    settings: { members: 1 },
    plant(simulation) {
      simulation.onStarting = ({ disk }) => {
        disk.syncLies = isLog;
      };
      return nothingToUndo;
    },
  },
  {
    name: "vote-not-persisted",
    about: "a member forgets in a crash whom it voted for",
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
    about: "a member forgets in a crash which term it was in",
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
    about:
      "an acknowledgement that needs no sync of its own does not wait for the one in progress, which its entries need",
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
      return nothingToUndo;
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
    about: "every read is served from what the member has",
    plant: () =>
      replace(Replication.prototype, "read", () => (read) => {
        read.serve(null);
      }),
  },
  {
    name: "apply-twice",
    about: "a batch of the backend can lack the index of what it holds (13766: applied again after a crash)",
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
    about: "the backend is ahead with its index of what it holds: entries are never applied after a crash",
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
    about: "defragmentation commits without the index of what it holds (14685)",
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
    about: "a watch is told of progress that its stream has not made (15220)",
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
    about: "a watch on a future revision is told of progress before it (20221)",
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
    about: "a transaction's events are handed out twice (17247)",
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
    about: "now and then a transaction's last event is not handed out",
    plant: () =>
      listening((listener) => (revision, changes) => {
        listener(revision, changes.length > 1 && revision % 5 === 0 ? withoutLast(changes) : changes);
      }),
  },
  {
    name: "event-lost-when-full",
    about: "what a full stream does not take is dropped instead of kept (17529)",
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
    about: "a watch whose stream is full while it catches up goes on behind the revision that was not taken",
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
    about: "a store whose last revisions were compacted away starts with an older one (17780)",
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
    about: "a deletion at the very revision of a compaction is gone for watches from there (18089, 19179)",
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
    about: "a new leader counts the time of leases from before it led",
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
    about: "a renewal does not take back what was recorded of the lease before it: it ends early at the next leader",
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
    about: "members with other data than the rest are not noticed",
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
    about: "damage of the log is taken for a torn write, and cut off with what was acknowledged behind it",
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
    about: "a member that starts again does not know any more that the cluster is being downgraded",
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
    name: "snapshot-torn",
    about: "a snapshot of the backend misses the newest rows",
    plant: () =>
      replace(
        BoltBackend.prototype,
        "snapshot",
        (original) =>
          async function (this: BoltBackend): Promise<BackendSnapshot> {
            const snapshot = await original.call(this);
            return Object.assign(Object.create(snapshot) as BackendSnapshot, {
              buckets: () => snapshot.buckets(),
              entries: (bucket: Parameters<BackendSnapshot["entries"]>[0], size?: number) => {
                const chunks = [...snapshot.entries(bucket, size)];
                return (bucket === "key" ? chunks.map((chunk) => chunk.slice(0, -1)) : chunks)[Symbol.iterator]();
              },
              forEachRevision: snapshot.forEachRevision.bind(snapshot),
              close: () => snapshot.close(),
            });
          },
      ),
  },
  {
    name: "lock-given-to-two",
    about: "who asks for a lock does not wait for those before him",
    settings: { scene: "sessions" },
    plant: () =>
      replace(
        Caller.prototype,
        "range",
        (original) =>
          function (this: Caller, request) {
            const response = original.call(this, request);
            return request.maxCreateRevision > 0 ? { ...response, kvs: [] } : response;
          },
      ),
  },
  {
    name: "permissions-empty-after-start",
    about: "what users may do is unknown after a start or a snapshot, until it changes (14571: members differ)",
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
    about: "a snapshot brings keys, but users and roles stay as they were",
    settings: { scene: "users", only: ["isolate", "replace", "kill"] },
    plant: () => replace(AuthStore.prototype, "recover", () => () => {}),
  },
  {
    name: "permissions-not-invalidated",
    about: "a right that was withdrawn counts for some time",
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
    about: "requests with the revision of older users and roles are not refused",
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
    about: "rights are asked for when a read comes, and not of the state that it sees",
    settings: { scene: "users" },
    plant: () => replace(AuthStore.prototype, "mayRead", () => () => null),
  },
  {
    name: "compacted-read-in-transaction",
    about:
      "at one member, a transaction with a read that was compacted away fails in its middle, the first writes done (18667)",
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
    about: "alarms are unknown after a restart",
    settings: { scene: "quota" },
    plant: () => withoutAlarms((isStart) => isStart),
  },
  {
    name: "alarm-not-in-snapshot",
    about: "a member that catches up by a snapshot does not take the alarms from it",
    settings: { scene: "quota", only: ["isolate", "replace", "kill"] },
    plant: () => withoutAlarms((isStart) => !isStart),
  },
  {
    name: "alarm-ignored",
    about: "writes that grow the store are applied although the alarm stands",
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
    about:
      "a database that has passed the quota, which stops its growth only, cannot be sent to a member that needs it",
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
