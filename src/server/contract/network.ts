/**
 * The Network seam: how a member reaches the others. In production `peer/`, in simulation a network within one process.
 *
 * Raft's messages use Network: best effort, never awaited, losses reported. Requests that need an answer (a member's
 * version or hash, a lease at the leader) use PeerClient.
 */
import type { Member } from "../../membership/member.ts";
import type { Message } from "../../proto/raftpb.ts";

/** A member as the network knows it. */
export interface PeerAddress {
  readonly id: bigint;
  /** Peer URLs, all of the same member. */
  readonly urls: readonly string[];
}

/** The sender's identity, which other members check before they accept messages. Known only after bootstrap. */
export interface LocalMember {
  readonly id: bigint;
  readonly clusterId: bigint;
  /** Its advertised peer URLs. */
  readonly urls: readonly string[];
}

export interface Network {
  /** Called once, before anything else; no message is delivered before it. */
  start(receiver: NetworkReceiver, local: LocalMember): void;
  /**
   * Sends messages to the peers and remotes they name, in order per addressee; unknown addressees and addressee 0 are
   * ignored. Never throws or waits: messages that cannot be sent now are dropped and reported to the receiver. No
   * MsgSnap: use sendSnapshot. Messages are not modified and may be kept until sent.
   */
  send(messages: readonly Message[]): void;
  /** Sends a MsgSnap with its database; reports the outcome by `reportSnapshot`. Closes the database. */
  sendSnapshot(message: Message, database: DatabaseImage): void;
  /** A member to communicate with from now on. The local member is never added. */
  addPeer(peer: PeerAddress): void;
  updatePeer(peer: PeerAddress): void;
  /** A removed member is told so when it returns: see `isRemoved`. */
  removePeer(id: bigint): void;
  /** A member that must be answered but is not known from the log yet: for a joining member and those that serve it. */
  addRemote(peer: PeerAddress): void;
  /** When the connection to the peer became active, as `Clock.nowMs`; undefined while it is not. */
  activeSince(id: bigint): number | undefined;
  stop(): Promise<void>;
}

/** The network's callbacks to the server. None of them throws. */
export interface NetworkReceiver {
  /** A message arrived. Its cluster and sender were checked against the network's knowledge. */
  receive(message: Message): void;
  /** A MsgSnap arrives: where to store its database. Rejects or throws when it is refused. */
  beginSnapshot(message: Message): DatabaseSink;
  /** True for a removed member: the network refuses it, with etcd's text. */
  isRemoved(id: bigint): boolean;
  /** The last message to this peer was probably lost. */
  reportUnreachable(id: bigint): void;
  /** The outcome of the snapshot sent to this peer. */
  reportSnapshot(id: bigint, received: boolean): void;
  /** The cluster reports that the local member was removed: it must stop. */
  removed(): void;
}

/** A database sent with a MsgSnap: a bbolt file created while it is read. */
export interface DatabaseImage {
  readonly sizeBytes: number;
  chunks(): AsyncIterable<Uint8Array>;
  close(): void;
}

/** Receives a database. Exactly one of `finish` and `abort` ends it. */
export interface DatabaseSink {
  /** Resolves when more can be accepted. Rejects when the disk fails or the database exceeds the quota. */
  write(chunk: Uint8Array): Promise<void>;
  /** The database is complete: makes it durable, then gives the message to raft. */
  finish(): Promise<void>;
  abort(): Promise<void>;
}

/** Requests to other members over their peer URLs, tried in turn. All reject with an Error that gives the reason. */
export interface PeerClient {
  /**
   * The cluster as known to the member at one peer URL (`GET /members`): a member asks this before it forms or joins a
   * cluster. Rejects within `timeoutMs`. An empty list is an answer.
   */
  members(peerUrl: string, timeoutMs: number): Promise<RemoteCluster>;
  /** Versions of a member: "3.7.1", of the cluster "3.7.0" ("not_decided" early on), of its storage (empty before 3.6). */
  versions(peer: PeerAddress): Promise<PeerVersions>;
  /**
   * Hash of a member's keys and values at a revision. Rejects with an EtcdError when that revision is compacted or in
   * the future there, or when that member's cluster is not `clusterId`.
   */
  hashKv(peer: PeerAddress, revision: number, clusterId: bigint): Promise<PeerHash>;
  /** Whether that member sees a downgrade in progress. */
  downgradeEnabled(peer: PeerAddress): Promise<boolean>;
  /**
   * Promotes a learner; only a leader can. Resolves to the members after it. `token` is the user's, when authentication
   * is enabled. Rejects with the leader's EtcdError.
   */
  promoteMember(leader: PeerAddress, learnerId: bigint, token?: string): Promise<readonly Member[]>;
  /** Renews a lease at the leader; resolves to its TTL in seconds. Rejects with errors.leaseNotFound. */
  renewLease(leader: PeerAddress, leaseId: bigint): Promise<number>;
  /** Queries a lease at the leader. Rejects with errors.leaseNotFound. */
  leaseTimeToLive(leader: PeerAddress, leaseId: bigint, withKeys: boolean): Promise<PeerLease>;
}

export interface RemoteCluster {
  readonly clusterId: bigint;
  readonly members: readonly Member[];
}

export interface PeerVersions {
  readonly server: string;
  readonly cluster: string;
  readonly storage: string;
}

export interface PeerHash {
  readonly hash: number;
  readonly revision: number;
  readonly compactRevision: number;
  readonly hashRevision: number;
}

/** Times in seconds. */
export interface PeerLease {
  readonly ttl: number;
  readonly grantedTtl: number;
  readonly keys: readonly Uint8Array[];
}

export const quorumOf = (count: number): number => Math.floor(count / 2) + 1;

/** Whether the connection to the member has been active since before that time. */
export function isActiveSince(network: Network, id: bigint, beforeMs: number): boolean {
  const sinceMs = network.activeSince(id);
  return sinceMs !== undefined && sinceMs < beforeMs;
}
