import type { PasswordHasher } from "../../auth/passwords.ts";
import type { Clock } from "../../base/clock.ts";
import type { Disk } from "../../base/disk.ts";
import type { Logger } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import type { TurnsOptions } from "../../base/turns.ts";
import { defaultConfig } from "../../config/config.ts";
import type { Backend } from "../../mvcc/backend/backend.ts";
import type { LmdbBackendOptions } from "../../mvcc/backend/lmdb.ts";
import type { PageLimits } from "../../mvcc/watch/page.ts";
import type { RaftConfig } from "../../raft/config.ts";
import type { Network, PeerClient } from "./network.ts";

/** Keeps others out of a data directory until the function that it resolves to is called. Rejects while another has it. */
export type LockDataDir = (dataDir: string, disk: Disk) => Promise<() => void>;

/** What one member needs to know. Durations in milliseconds, sizes in bytes, paths absolute. */
export interface ServerOptions {
  readonly name: string;
  readonly dataDir: string;
  /** Undefined: `member/wal` in the data directory. */
  readonly walDir: string | undefined;
  /** Peer URLs by member name, as `--initial-cluster` gives them. */
  readonly initialCluster: ReadonlyMap<string, readonly string[]>;
  readonly initialClusterToken: string;
  /** A member without data founds a cluster; false: it joins the one that the others in `initialCluster` form. */
  readonly newCluster: boolean;
  /** Makes a cluster of this member alone from the data of a larger one. */
  readonly forceNewCluster: boolean;
  /** Finds the members of a new cluster elsewhere than in `initialCluster`; that has only this one then. */
  readonly discover?: Discover;
  readonly maxLearners: number;
  /** Refuse changes of the membership that would lose the quorum. */
  readonly strictReconfigCheck: boolean;
  /** Start most of the way through the first election timeout. */
  readonly initialElectionTickAdvance: boolean;
  /** Defragment at the start when that frees at least so many bytes; 0 never. */
  readonly bootstrapDefragThresholdBytes: number;
  readonly advertiseClientUrls: readonly string[];

  readonly tickMs: number;
  readonly electionTicks: number;
  readonly preVote: boolean;

  readonly snapshotCount: number;
  /** Entries kept in memory behind a snapshot, for followers that lag. */
  readonly snapshotCatchUpEntries: number;
  /** 0 is unlimited. */
  readonly maxSnapFiles: number;
  /** 0 is unlimited. */
  readonly maxWalFiles: number;
  readonly walSegmentSizeBytes?: number;
  readonly unsafeNoFsync: boolean;

  /** 0 is the default of 2 GiB, negative is none. */
  readonly quotaBackendBytes: number;
  readonly backendBatchIntervalMs: number;
  readonly backendBatchLimit: number;
  readonly compactionBatchLimit: number;
  readonly compactionSleepIntervalMs: number;

  readonly maxRequestBytes: number;
  readonly maxTxnOps: number;
  /** A request that takes longer to apply is logged. */
  readonly warningApplyDurationMs: number;
  /** A request that takes longer from its arrival to its answer is logged. */
  readonly warningUnaryRequestDurationMs: number;

  readonly autoCompactionMode: "periodic" | "revision";
  /** Milliseconds or revisions, by mode; 0 is off. */
  readonly autoCompactionRetention: number;

  /** Limits of long work for clients; `TURNS_DEFAULTS` when absent. */
  readonly turns?: Partial<Omit<TurnsOptions, "clock" | "onLongSlice">>;

  /** What one turn reads of a long answer; `READ_SLICE` when absent. */
  readonly readSlice?: ReadSlice;

  /** What one turn applies of a request that changes more than that; `APPLY_SLICE` when absent. */
  readonly applySlice?: ApplySlice;

  /** What one turn reads for watchers that are behind; `PAGE_LIMITS` where absent. */
  readonly watchPage?: Partial<PageLimits>;

  /** What raft sends at a time; etcd's limits where absent. */
  readonly raftLimits?: Partial<Pick<RaftConfig, "messageBytesMax" | "inflightMessagesMax">>;

  /** Users and their tokens; etcd's defaults when absent. */
  readonly auth?: AuthOptions;

  /** Comparisons with the other members; etcd's defaults when absent. */
  readonly checks?: CheckOptions;

  /** A leader renews leases that it knows without waiting for what is not applied yet; true when absent. */
  readonly fastLeaseKeepAlive?: boolean;
  readonly leaseCheckpoint: boolean;
  readonly leaseCheckpointPersist: boolean;
  /** Between two records of what long leases have left; five minutes, as in etcd, when absent. */
  readonly leaseCheckpointIntervalMs?: number;

  readonly clock: Clock;
  readonly random: Random;
  readonly disk: Disk;
  readonly logger: Logger;
  /** For what raft decides; `logger` when absent. */
  readonly raftLogger?: Logger;
  /** The version of etcd that this server says it is; `ETCD_VERSION` when absent, as always in production. */
  readonly serverVersion?: string;
  /** What a simulation replaces besides clock, randomness and disk; production leaves it out. */
  readonly seams?: StorageSeams;
  /** Called with what ended the member: a disk that failed, a broken invariant. The process must end. */
  readonly onFailure: (error: unknown) => void;
  /** Called when the cluster has removed this member: the process should end, and its data directory go. */
  readonly onRemoved?: () => void;
  /** The way to the other members. */
  readonly network: Network;
  readonly peerClient: PeerClient;
}

/** Registers this member (`cluster` is its own part of the flag) and resolves to all members' URLs by name. */
export type Discover = (memberId: bigint, cluster: string) => Promise<ReadonlyMap<string, readonly string[]>>;

export interface StorageSeams {
  /** LMDB in production. Wherever a backend is opened, also one that was received from another member. */
  readonly openBackend: (options: LmdbBackendOptions) => Backend;
  /** The kernel's lock in production. */
  readonly lockDataDir: LockDataDir;
  /** Bcrypt in production, and when absent. */
  readonly passwords?: PasswordHasher;
}

export interface ApplySlice {
  /** Keys that are looked at, changed or not. */
  readonly rows: number;
  /** Bytes of keys and values that are copied. */
  readonly bytes: number;
  /** Others follow in the same turn until so much time has passed. Absent: one a turn. */
  readonly turnMs?: number;
}

/** Some milliseconds a turn. */
export const APPLY_SLICE: ApplySlice = { rows: 1000, bytes: 256 * 1024, turnMs: 3.5 };

export interface ReadSlice {
  /** A range of at most so many keys and bytes is answered in one turn: what Kubernetes lists at a time. */
  readonly rowsAtOnce: number;
  readonly bytesAtOnce: number;
  /** What one slice of a longer one reads: rows, bytes, and keys of the index that are only looked at. */
  readonly rows: number;
  readonly bytes: number;
  readonly entries: number;
  /** Keys and bytes that a transaction reads for its response when it is applied. */
  readonly rowsApplied: number;
  readonly bytesApplied: number;
  /** An answer of more bytes leaves in pieces. */
  readonly bytesGathered: number;
}

/** Each one to three milliseconds. */
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
  /** How long a simple token lives without being used. */
  readonly tokenTtlMs: number;
  /** 4 to 31. */
  readonly bcryptCost: number;
  /** A client without a token is the user that its certificate's common name says. */
  readonly clientCertAuth: boolean;
}

export interface CheckOptions {
  /** A member with data compares it with the others' before it serves. */
  readonly initialCorruptCheck: boolean;
  /** Between two comparisons of the members' data; 0 never. */
  readonly corruptCheckMs: number;
  /** Between two comparisons of the hashes of compactions; 0 never. */
  readonly compactHashCheckMs: number;
  /** Between two looks at a downgrade that goes on; 0 never. */
  readonly downgradeCheckMs: number;
}

/** The gates InitialCorruptCheck and CompactHashCheck are off. */
export const CHECK_DEFAULTS: CheckOptions = {
  ...defaultConfig.checks,
  initialCorruptCheck: false,
  compactHashCheckMs: 0,
};

export const AUTH_DEFAULTS: AuthOptions = {
  ...defaultConfig.auth,
  clientCertAuth: defaultConfig.clientTls.clientCertAuth,
};

/** What is needed before the member knows who it is, and so who the others are. */
export type BootstrapOptions = Omit<ServerOptions, "network" | "peerClient">;

/** etcd's time limit of a request: five seconds for the disk and the network, and two elections. */
export function requestTimeoutMs(options: Pick<ServerOptions, "electionTicks" | "tickMs">): number {
  return 5000 + 2 * options.electionTicks * options.tickMs;
}
