/**
 * The Network seam: how a member reaches the others. In production it is `peer/`, in simulation a network of one process.
 *
 * Raft's messages go through Network: best effort, never awaited, lost ones reported. Questions that need an answer (the
 * version of a member, its hash, a lease of the leader) go through PeerClient.
 */
import type { Member } from "../../membership/member.ts";
import type { Message } from "../../proto/raftpb.ts";

/** A member as the network needs to know it. */
export interface PeerAddress {
  readonly id: bigint;
  /** Peer URLs, all of the same member. */
  readonly urls: readonly string[];
}

/** Who sends: what the other members check before they listen. Known only when the server was bootstrapped. */
export interface LocalMember {
  readonly id: bigint;
  readonly clusterId: bigint;
  /** The peer URLs that it advertises. */
  readonly urls: readonly string[];
}

export interface Network {
  /** Once, before anything else; nothing arrives before it. */
  start(receiver: NetworkReceiver, local: LocalMember): void;
  /**
   * Sends messages to the peers and remotes they name, in order for each of them; unknown addressees are ignored, and
   * so is addressee 0. Never throws and never waits: what cannot be sent now is dropped and reported to the receiver.
   * No MsgSnap: those go through sendSnapshot. The messages are not changed and may be kept until they are sent.
   */
  send(messages: readonly Message[]): void;
  /** Sends a MsgSnap and the database that belongs to it; its fate is told to `reportSnapshot`. Closes the database. */
  sendSnapshot(message: Message, database: DatabaseImage): void;
  /** Members to talk to from now on. The local member is never added. */
  addPeer(peer: PeerAddress): void;
  updatePeer(peer: PeerAddress): void;
  /** A removed member is told so when it comes back: see `isRemoved`. */
  removePeer(id: bigint): void;
  /** A member that can be answered, but is not known from the log yet: a joining member's way to those that serve it. */
  addRemote(peer: PeerAddress): void;
  /** When the connection to the peer became active, as `Clock.nowMs`; undefined while it is not. */
  activeSince(id: bigint): number | undefined;
  stop(): Promise<void>;
}

/** What the network calls: the server. None of these throws. */
export interface NetworkReceiver {
  /** A message came in. Its cluster and sender were checked against what the network knows. */
  receive(message: Message): void;
  /** A MsgSnap begins to come in: where its database is stored. Rejects or throws when it cannot be taken. */
  beginSnapshot(message: Message): DatabaseSink;
  /** True for a member that was removed: the network refuses it, with etcd's words. */
  isRemoved(id: bigint): boolean;
  /** The last message to this peer was probably lost. */
  reportUnreachable(id: bigint): void;
  /** What became of the snapshot sent to this peer. */
  reportSnapshot(id: bigint, received: boolean): void;
  /** The cluster says that the local member was removed: it must stop. */
  removed(): void;
}

/** A database as it is sent with a MsgSnap: a bbolt file that is made while it is read. */
export interface DatabaseImage {
  readonly sizeBytes: number;
  chunks(): AsyncIterable<Uint8Array>;
  close(): void;
}

/** Takes a received database. Exactly one of `finish` and `abort` ends it. */
export interface DatabaseSink {
  /** Resolves when more can be taken. Rejects when the disk fails or the database is larger than the quota allows. */
  write(chunk: Uint8Array): Promise<void>;
  /** The database is whole: it is made durable, then the message is given to raft. */
  finish(): Promise<void>;
  abort(): Promise<void>;
}

/** Questions to other members over their peer URLs, tried one after another. All reject with an Error that says why. */
export interface PeerClient {
  /**
   * The cluster as the member behind one peer URL knows it (`GET /members`): what a member asks before it founds or joins
   * one. Rejects within `timeoutMs`. An empty list of members is an answer.
   */
  members(peerUrl: string, timeoutMs: number): Promise<RemoteCluster>;
  /** Versions of a member: "3.7.1", of the cluster "3.7.0" ("not_decided" early on), of its storage (empty before 3.6). */
  versions(peer: PeerAddress): Promise<PeerVersions>;
  /**
   * Hash of a member's keys and values at a revision. Rejects with an EtcdError when that revision is compacted or in the
   * future there, or when that member is of another cluster than `clusterId`.
   */
  hashKv(peer: PeerAddress, revision: number, clusterId: bigint): Promise<PeerHash>;
  /** Whether that member sees a downgrade going on. */
  downgradeEnabled(peer: PeerAddress): Promise<boolean>;
  /**
   * Promotes a learner; only a leader can. Resolves to the members then. `token` is that of the user who asks, with
   * authentication on. Rejects with the leader's EtcdError.
   */
  promoteMember(leader: PeerAddress, learnerId: bigint, token?: string): Promise<readonly Member[]>;
  /** Renews a lease at the leader; resolves to its TTL in seconds. Rejects with errors.leaseNotFound. */
  renewLease(leader: PeerAddress, leaseId: bigint): Promise<number>;
  /** Asks the leader for a lease. Rejects with errors.leaseNotFound. */
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
