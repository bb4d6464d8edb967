import type { PasswordHasher } from "../../auth/passwords.ts";
import type { Clock } from "../../base/clock.ts";
import type { Disk } from "../../base/disk.ts";
import type { Logger } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import type { TurnsOptions } from "../../base/turns.ts";
import { defaultConfig } from "../../config/config.ts";
import type { Backend } from "../../mvcc/backend/backend.ts";
import type { BoltBackendOptions } from "../../mvcc/backend/options.ts";
import type { PageLimits } from "../../mvcc/watch/page.ts";
import type { RaftConfig } from "../../raft/config.ts";
import type { Network, PeerClient } from "./network.ts";
import type { RequestTrace } from "./trace.ts";

/** Locks a data directory until the function it resolves to is called. Rejects while another process holds it. */
export type LockDataDir = (dataDir: string, disk: Disk) => Promise<() => void>;

/** The settings of one member. Durations in milliseconds, sizes in bytes, paths absolute. */
export interface ServerOptions {
  /** Undefined: nothing is traced. */
  readonly trace?: RequestTrace | undefined;
  readonly name: string;
  readonly dataDir: string;
  /** Undefined: `member/wal` in the data directory. */
  readonly walDir: string | undefined;
  /** Peer URLs by member name, as `--initial-cluster` gives them. */
  readonly initialCluster: ReadonlyMap<string, readonly string[]>;
  readonly initialClusterToken: string;
  /** A member without data forms a new cluster; false: it joins the cluster of the others in `initialCluster`. */
  readonly newCluster: boolean;
  /** Makes a one-member cluster from the data of a larger one. */
  readonly forceNewCluster: boolean;
  /** Finds the members of a new cluster instead of `initialCluster`, which then has only this one. */
  readonly discover?: Discover;
  readonly maxLearners: number;
  /** Refuse membership changes that would lose the quorum. */
  readonly strictReconfigCheck: boolean;
  /** Start most of the way through the first election timeout. */
  readonly initialElectionTickAdvance: boolean;
  /** Defragment at the start when that frees at least this many bytes; 0 for never. */
  readonly bootstrapDefragThresholdBytes: number;
  readonly advertiseClientUrls: readonly string[];

  readonly tickMs: number;
  readonly electionTicks: number;
  readonly preVote: boolean;

  readonly snapshotCount: number;
  /** Entries kept in memory after a snapshot, for slow followers. */
  readonly snapshotCatchUpEntries: number;
  /** 0 for unlimited. */
  readonly maxSnapFiles: number;
  /** 0 for unlimited. */
  readonly maxWalFiles: number;
  readonly walSegmentSizeBytes?: number;
  readonly unsafeNoFsync: boolean;

  /** 0 for the default of 2 GiB, negative for none. */
  readonly quotaBackendBytes: number;
  readonly backendBatchIntervalMs: number;
  readonly backendBatchLimit: number;
  readonly compactionBatchLimit: number;
  readonly compactionSleepIntervalMs: number;

  readonly maxRequestBytes: number;
  readonly maxTxnOps: number;
  /** Slower applications of requests are logged. */
  readonly warningApplyDurationMs: number;
  /** Requests that take longer from arrival to answer are logged. */
  readonly warningUnaryRequestDurationMs: number;

  readonly autoCompactionMode: "periodic" | "revision";
  /** Milliseconds or revisions, by mode; 0 for off. */
  readonly autoCompactionRetention: number;

  /** Limits of long work for clients; `TURNS_DEFAULTS` when absent. */
  readonly turns?: Partial<Omit<TurnsOptions, "clock" | "onLongSlice">>;

  /** Limits on one turn's reads for a long answer; `READ_SLICE` when absent. */
  readonly readSlice?: ReadSlice;

  /** Limits on one turn of a long request's application; `APPLY_SLICE` when absent. */
  readonly applySlice?: ApplySlice;

  /** Limits on one turn's reads for unsynced watchers; `PAGE_LIMITS` where absent. */
  readonly watchPage?: Partial<PageLimits>;

  /** Limits on raft's messages; etcd's where absent. */
  readonly raftLimits?: Partial<Pick<RaftConfig, "messageBytesMax" | "inflightMessagesMax">>;

  /** Users and their tokens; etcd's defaults when absent. */
  readonly auth?: AuthOptions;

  /** Comparisons with the other members; etcd's defaults when absent. */
  readonly checks?: CheckOptions;

  /** A leader renews leases it knows without waiting for unapplied entries; true when absent. */
  readonly fastLeaseKeepAlive?: boolean;
  readonly leaseCheckpoint: boolean;
  readonly leaseCheckpointPersist: boolean;
  /** Interval of checkpoints of long leases; five minutes, as in etcd, when absent. */
  readonly leaseCheckpointIntervalMs?: number;

  readonly clock: Clock;
  readonly random: Random;
  readonly disk: Disk;
  readonly logger: Logger;
  /** For raft's log lines; `logger` when absent. */
  readonly raftLogger?: Logger;
  /** The reported etcd version; `ETCD_VERSION` when absent, as always in production. */
  readonly serverVersion?: string;
  /** Seams that a simulation replaces besides clock, randomness and disk; absent in production. */
  readonly seams?: StorageSeams;
  /** Called with the error that ended the member: a failed disk, a broken invariant. The process must end. */
  readonly onFailure: (error: unknown) => void;
  /** Called when the cluster has removed this member: the process should end, and its data directory be deleted. */
  readonly onRemoved?: () => void;
  /** The connection to the other members. */
  readonly network: Network;
  readonly peerClient: PeerClient;
}

/** Registers this member (`cluster` is its own part of the flag) and resolves to all members' URLs by name. */
export type Discover = (memberId: bigint, cluster: string) => Promise<ReadonlyMap<string, readonly string[]>>;

export interface StorageSeams {
  /**
   * `BoltBackend` in production. Used for every backend, including one received from another member.
   */
  readonly openBackend: (options: BoltBackendOptions) => Backend;
  /** A kernel lock in production. */
  readonly lockDataDir: LockDataDir;
  /** Bcrypt in production, and when absent. */
  readonly passwords?: PasswordHasher;
}

export interface ApplySlice {
  /** Keys examined, changed or not. */
  readonly rows: number;
  /** Bytes of copied keys and values. */
  readonly bytes: number;
  /** More slices follow in the same turn until this much time has passed. Absent: one per turn. */
  readonly turnMs?: number;
}

/** Some milliseconds per turn. */
export const APPLY_SLICE: ApplySlice = { rows: 1000, bytes: 256 * 1024, turnMs: 3.5 };

export interface ReadSlice {
  /** A range of at most this many keys and bytes is answered in one turn: a page of a Kubernetes list. */
  readonly rowsAtOnce: number;
  readonly bytesAtOnce: number;
  /** Limits of one slice of a longer range: rows, bytes, and index keys that are only examined. */
  readonly rows: number;
  readonly bytes: number;
  readonly entries: number;
  /** Keys and bytes that a transaction reads for its response while it is applied. */
  readonly rowsApplied: number;
  readonly bytesApplied: number;
  /** An answer of more bytes is sent in pieces. */
  readonly bytesGathered: number;
}

/** Each takes one to three milliseconds. */
export const READ_SLICE: ReadSlice = {
  rowsAtOnce: 1000,
  bytesAtOnce: 4 * 1024 * 1024,
  rows: 500,
  bytes: 128 * 1024,
  entries: 2500,
  rowsApplied: 64,
  bytesApplied: 256 * 1024,
  bytesGathered: 512 * 1024,
};

export interface AuthOptions {
  /** `simple`, or `jwt` with its options, as `--auth-token` gives them; empty for none. */
  readonly token: string;
  /** Lifetime of an unused simple token. */
  readonly tokenTtlMs: number;
  /** 4 to 31. */
  readonly bcryptCost: number;
  /** A client without a token is the user in its certificate's common name. */
  readonly clientCertAuth: boolean;
}

export interface CheckOptions {
  /** A member with data compares it with the others' before it serves. */
  readonly initialCorruptCheck: boolean;
  /** Interval of comparisons of the members' data; 0 for never. */
  readonly corruptCheckMs: number;
  /** Interval of comparisons of compaction hashes; 0 for never. */
  readonly compactHashCheckMs: number;
  /** Interval of checks of a downgrade in progress; 0 for never. */
  readonly downgradeCheckMs: number;
}

/** The gates InitialCorruptCheck and CompactHashCheck are disabled. */
export const CHECK_DEFAULTS: CheckOptions = {
  ...defaultConfig.checks,
  initialCorruptCheck: false,
  compactHashCheckMs: 0,
};

export const AUTH_DEFAULTS: AuthOptions = {
  ...defaultConfig.auth,
  clientCertAuth: defaultConfig.clientTls.clientCertAuth,
};

/** The options needed before the member knows its own identity and its peers. */
export type BootstrapOptions = Omit<ServerOptions, "network" | "peerClient">;

/** etcd's time limit of a request: five seconds for the disk and the network, and two elections. */
export function requestTimeoutMs(options: Pick<ServerOptions, "electionTicks" | "tickMs">): number {
  return 5000 + 2 * options.electionTicks * options.tickMs;
}
