/** The settings of a RawNode and the rules for them. */
import type { Random } from "../base/random.ts";
import { NO_LIMIT } from "./entry-size.ts";
import { RaftConfigError } from "./errors.ts";
import { type RaftLogger, silentRaftLogger } from "./logger.ts";
import { isLocalMsgTarget, NONE } from "./messages.ts";
import type { ReadOnlyOption } from "./read-only.ts";
import type { RaftStorage } from "./storage.ts";

export interface RaftConfig {
  /** Permanent identity of this node: not 0, never given to another node. */
  readonly id: bigint;
  /** Ticks without a leader before an election; the real timeout is drawn from [electionTicks, 2 * electionTicks). */
  readonly electionTicks: number;
  /** Ticks between heartbeats of a leader; less than electionTicks, best a tenth of it. */
  readonly heartbeatTicks: number;
  readonly storage: RaftStorage;
  /** Draws the election timeouts. */
  readonly random: Pick<Random, "below">;
  /** Highest index already applied, on a restart; entries up to it are not delivered again. Default 0. */
  readonly applied?: number;
  /** Storage writes by messages instead of Ready and advance(); see rawnode.ts. Default false. */
  readonly asyncStorageWrites?: boolean;
  /** Wire bytes of the entries in one MsgApp; 0 for one entry a message. Default: no limit. */
  readonly messageBytesMax?: number;
  /** Wire bytes of entries being applied at a time. Default: messageBytesMax. */
  readonly committedBytesMax?: number;
  /** Payload bytes of uncommitted entries at a leader; more proposals are dropped. Default: no limit. */
  readonly uncommittedBytesMax?: number;
  /** MsgApp in flight to one follower. */
  readonly inflightMessagesMax: number;
  /** Payload bytes in flight to one follower; at least messageBytesMax. Default: no limit. */
  readonly inflightBytesMax?: number;
  /** A leader that hears from no quorum for an election timeout steps down, and votes wait for its lease. Default false. */
  readonly checkQuorum?: boolean;
  /** Ask whether an election can be won before starting it (Raft thesis, section 9.6). Default false. */
  readonly preVote?: boolean;
  /** `lease-based` needs checkQuorum. Default `safe`. */
  readonly readOnlyOption?: ReadOnlyOption;
  /** Followers drop proposals instead of sending them to the leader. Default false. */
  readonly disableProposalForwarding?: boolean;
  /**
   * Accept every configuration change as proposed. One that does not fit when it is applied throws, so this is for
   * callers that check and serialise changes themselves. Default false.
   */
  readonly disableConfChangeValidation?: boolean;
  /** A leader that is removed or demoted steps down at once. Default false. */
  readonly stepDownOnRemoval?: boolean;
  readonly logger?: RaftLogger;
}

/** The settings with defaults filled in. */
export type ResolvedRaftConfig = Required<RaftConfig>;

/** Throws RaftConfigError. */
export function resolveConfig(config: RaftConfig): ResolvedRaftConfig {
  const messageBytesMax = config.messageBytesMax ?? NO_LIMIT;
  const resolved: ResolvedRaftConfig = {
    id: config.id,
    electionTicks: config.electionTicks,
    heartbeatTicks: config.heartbeatTicks,
    storage: config.storage,
    random: config.random,
    applied: config.applied ?? 0,
    asyncStorageWrites: config.asyncStorageWrites ?? false,
    messageBytesMax,
    committedBytesMax: config.committedBytesMax || messageBytesMax || 1,
    uncommittedBytesMax: config.uncommittedBytesMax || NO_LIMIT,
    inflightMessagesMax: config.inflightMessagesMax,
    inflightBytesMax: config.inflightBytesMax || NO_LIMIT,
    checkQuorum: config.checkQuorum ?? false,
    preVote: config.preVote ?? false,
    readOnlyOption: config.readOnlyOption ?? "safe",
    disableProposalForwarding: config.disableProposalForwarding ?? false,
    disableConfChangeValidation: config.disableConfChangeValidation ?? false,
    stepDownOnRemoval: config.stepDownOnRemoval ?? false,
    logger: config.logger ?? silentRaftLogger,
  };
  const rules: [boolean, string][] = [
    [resolved.id !== NONE, "cannot use none as id"],
    [!isLocalMsgTarget(resolved.id), "cannot use local target as id"],
    [resolved.heartbeatTicks > 0, "heartbeat tick must be greater than 0"],
    [resolved.electionTicks > resolved.heartbeatTicks, "election tick must be greater than heartbeat tick"],
    [resolved.inflightMessagesMax > 0, "max inflight messages must be greater than 0"],
    [resolved.inflightBytesMax >= messageBytesMax, "max inflight bytes must be >= max message size"],
    [
      resolved.readOnlyOption !== "lease-based" || resolved.checkQuorum,
      "CheckQuorum must be enabled when ReadOnlyOption is ReadOnlyLeaseBased",
    ],
  ];
  for (const [kept, rule] of rules) if (!kept) throw new RaftConfigError(rule);
  return resolved;
}
