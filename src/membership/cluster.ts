import type { Logger } from "../base/log.ts";
import { type Backend, metaKeys } from "../mvcc/backend/backend.ts";
import { type ConfChange, ConfChangeType, ConfState } from "../proto/raftpb.ts";
import { ClusterVersion, type DowngradeInfo } from "./cluster-version.ts";
import { isPromotion } from "./conf-change.ts";
import { decodeMember, encodeMember, formatId, type Member } from "./member.ts";

/**
 * The members of the cluster and the cluster version, stored in the backend's buckets `members`, `members_removed`,
 * `cluster` and `meta` exactly as etcd stores them. Only the apply loop changes them.
 */
export class Cluster {
  readonly id: bigint;
  readonly localId: bigint;
  #backend: Backend;
  readonly #logger: Logger;
  readonly #members = new Map<bigint, Member>();
  readonly #removed = new Set<bigint>();
  /** The cluster version and downgrade. */
  readonly agreed: ClusterVersion;

  /** Throws `ServerTooOldError` when `serverVersion` is too old for this cluster. */
  constructor(options: { id: bigint; localId: bigint; backend: Backend; logger: Logger; serverVersion: string }) {
    this.id = options.id;
    this.localId = options.localId;
    this.#backend = options.backend;
    this.#logger = options.logger;
    this.agreed = new ClusterVersion({ ...options, clusterId: options.id });
    this.#readMembers();
  }

  /** Reads everything again: a snapshot brought another backend. */
  recover(backend: Backend): void {
    this.#backend = backend;
    this.agreed.recover(backend);
    this.#readMembers();
  }

  #readMembers(): void {
    this.#members.clear();
    this.#removed.clear();
    this.#backend.forEach("members", (key, value) => {
      const id = BigInt(`0x${Buffer.from(key).toString("latin1")}`);
      this.#members.set(id, decodeMember(id, Buffer.from(value).toString("utf8")));
    });
    this.#backend.forEach("members_removed", (key) => {
      this.#removed.add(BigInt(`0x${Buffer.from(key).toString("latin1")}`));
    });
  }

  /** Cluster version, like "3.7.0"; undefined until the first leader has set it. */
  get version(): string | undefined {
    return this.agreed.version;
  }

  get downgrade(): DowngradeInfo {
    return this.agreed.downgrade;
  }

  /** Ascending by id. */
  members(): Member[] {
    return [...this.#members.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
  }

  /** Without the learners; ascending by id. */
  votingMembers(): Member[] {
    return this.members().filter((member) => !member.isLearner);
  }

  member(id: bigint): Member | undefined {
    return this.#members.get(id);
  }

  /** Ids of removed members, which may never be used again. */
  removed(): bigint[] {
    return [...this.#removed];
  }

  isRemoved(id: bigint): boolean {
    return this.#removed.has(id);
  }

  /** Applies a committed configuration change that `objectionTo` has accepted. */
  applyConfChange(change: ConfChange): void {
    const id = change.nodeId;
    switch (change.type) {
      case ConfChangeType.ConfChangeAddNode:
      case ConfChangeType.ConfChangeAddLearnerNode: {
        if (isPromotion(change)) {
          this.#promote(id);
          return;
        }
        const member = decodeMember(id, Buffer.from(change.context).toString("utf8"));
        this.#save(member);
        this.#logger.info("added member", {
          "cluster-id": formatId(this.id),
          "local-member-id": formatId(this.localId),
          "added-peer-id": formatId(id),
          "added-peer-peer-urls": member.peerUrls,
          "added-peer-is-learner": member.isLearner,
        });
        return;
      }
      case ConfChangeType.ConfChangeRemoveNode: {
        const urls = this.#members.get(id)?.peerUrls ?? [];
        this.#members.delete(id);
        this.#removed.add(id);
        this.#backend.delete("members", memberKey(id));
        this.#backend.put("members_removed", memberKey(id), Buffer.from("removed"));
        this.#logger.info("removed member", {
          "cluster-id": formatId(this.id),
          "local-member-id": formatId(this.localId),
          "removed-remote-peer-id": formatId(id),
          "removed-remote-peer-urls": urls,
        });
        return;
      }
      case ConfChangeType.ConfChangeUpdateNode: {
        const old = this.#members.get(id);
        if (old === undefined) throw new Error(`update of member ${formatId(id)}, which is not in the cluster`);
        const fields = decodeMember(id, Buffer.from(change.context).toString("utf8"));
        this.#save({ ...old, peerUrls: fields.peerUrls });
        this.#logger.info("updated member", {
          "cluster-id": formatId(this.id),
          "local-member-id": formatId(this.localId),
          "updated-remote-peer-id": formatId(id),
          "updated-remote-peer-urls": fields.peerUrls,
        });
        return;
      }
      default:
        throw new Error(`unknown configuration change type ${change.type satisfies never}`);
    }
  }

  #promote(id: bigint): void {
    const learner = this.#members.get(id);
    if (learner === undefined) throw new Error(`promotion of member ${formatId(id)}, which is not in the cluster`);
    this.#save({ ...learner, isLearner: false });
    this.#logger.info("promote member", {
      "cluster-id": formatId(this.id),
      "local-member-id": formatId(this.localId),
      "promoted-member-id": formatId(id),
    });
  }

  /** Applies the attributes that a member published. Unknown and removed members are ignored, as in etcd. */
  applyAttributes(id: bigint, name: string, clientUrls: readonly string[]): void {
    const old = this.#members.get(id);
    if (old === undefined) {
      this.#logger.warn("skipped attributes update of removed member", {
        "cluster-id": formatId(this.id),
        "local-member-id": formatId(this.localId),
        "updated-peer-id": formatId(id),
      });
      return;
    }
    this.#save({ ...old, name, clientUrls });
  }

  #save(member: Member): void {
    this.#members.set(member.id, member);
    this.#backend.put("members", memberKey(member.id), Buffer.from(encodeMember(member)));
  }
}

const memberKey = (id: bigint): Buffer => Buffer.from(formatId(id));

/** Stores raft's configuration for the next restart. Source: etcd `server/storage/schema/confstate.go`. */
export function saveConfState(backend: Backend, state: ConfState): void {
  backend.put("meta", metaKeys.confState, encodeConfState(state));
}

/** Its JSON, as in the bucket `meta`. */
export function encodeConfState(state: ConfState): Buffer {
  const list = (name: string, ids: readonly bigint[]): string[] =>
    ids.length === 0 ? [] : [`"${name}":[${ids.join(",")}]`];
  const fields = [
    ...list("voters", state.voters),
    ...list("learners", state.learners),
    ...list("voters_outgoing", state.votersOutgoing),
    ...list("learners_next", state.learnersNext),
    `"auto_leave":${state.autoLeave}`,
  ];
  return Buffer.from(`{${fields.join(",")}}`);
}

/** Raft's configuration as of the consistent index; undefined in a new backend. */
export function loadConfState(backend: Backend): ConfState | undefined {
  const json = backend.get("meta", metaKeys.confState);
  return json === undefined ? undefined : decodeConfState(json);
}

export function decodeConfState(json: Uint8Array): ConfState {
  const text = Buffer.from(json).toString("utf8");
  const ids = (name: string): bigint[] => {
    const list = new RegExp(`"${name}":\\[([0-9,]*)\\]`).exec(text)?.[1] ?? "";
    return list === "" ? [] : list.split(",").map((id) => BigInt(id));
  };
  return ConfState.create({
    voters: ids("voters"),
    learners: ids("learners"),
    votersOutgoing: ids("voters_outgoing"),
    learnersNext: ids("learners_next"),
    autoLeave: /"auto_leave":true/.test(text),
  });
}

/** The part of a cluster that the v2 store holds. */
export interface V2Membership {
  members(): readonly Member[];
  removed(): readonly bigint[];
  readonly version: string | undefined;
}

/** Events that a v2 store keeps. */
const V2_EVENTS = 1000;

/** The membership as the v2 store's JSON: the data of a raft snapshot, for peers and tools of stock etcd. */
export function encodeV2Snapshot(cluster: V2Membership): Buffer {
  let index = 0;
  const leaf = (path: string, value: string): object => node(path, ++index, value, null);
  const members: Record<string, object> = {};
  for (const member of cluster.members()) {
    const path = `/0/members/${formatId(member.id)}`;
    const [attributes, raftAttributes] = v2Attributes(member);
    members[formatId(member.id)] = node(path, index + 1, "", {
      attributes: leaf(`${path}/attributes`, attributes),
      raftAttributes: leaf(`${path}/raftAttributes`, raftAttributes),
    });
  }
  const zero: Record<string, object> = { members: node("/0/members", 1, "", members) };
  const removed = cluster.removed();
  if (removed.length > 0) {
    const entries = removed.map((id) => [formatId(id), leaf(`/0/removed_members/${formatId(id)}`, "")]);
    zero["removed_members"] = node("/0/removed_members", index, "", Object.fromEntries(entries));
  }
  if (cluster.version !== undefined) zero["version"] = leaf("/0/version", cluster.version);
  const root = node("/", 0, "", { "0": node("/0", 0, "", zero), "1": node("/1", 0, "", {}) });
  return Buffer.from(
    JSON.stringify({
      Root: root,
      WatcherHub: {
        EventHistory: {
          // Members of 3.6 and older continue to use it: it needs a slot for each possible event.
          Queue: { Events: new Array(V2_EVENTS).fill(null), Size: 0, Front: 0, Back: 0, Capacity: V2_EVENTS },
          StartIndex: 0,
          LastIndex: index,
        },
      },
      CurrentIndex: index,
      Stats: {},
      CurrentVersion: 2,
    }),
  );
}

function node(path: string, index: number, value: string, children: Record<string, object> | null): object {
  const permanent = "0001-01-01T00:00:00Z";
  return {
    Path: path,
    CreatedIndex: index,
    ModifiedIndex: index,
    ExpireTime: permanent,
    Value: value,
    Children: children,
  };
}

function v2Attributes(member: Member): [attributes: string, raftAttributes: string] {
  const attributes = {
    ...(member.name && { name: member.name }),
    ...(member.clientUrls.length > 0 && { clientURLs: member.clientUrls }),
  };
  const raftAttributes = { peerURLs: member.peerUrls, ...(member.isLearner && { isLearner: true }) };
  return [JSON.stringify(attributes), JSON.stringify(raftAttributes)];
}
