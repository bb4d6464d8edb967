/**
 * The errors of the consensus core.
 *
 * Operating errors are constants: compare by identity or by `code`. Methods of RawNode return them (a refused proposal
 * is no exception); methods of a RaftStorage throw them. A broken invariant is an InvariantError and always thrown:
 * the member must stop before it writes anything more.
 * Source: the exported errors of go.etcd.io/raft/v3.
 */
import { KvorumError } from "../base/errors.ts";

export type RaftErrorCode =
  | "proposal-dropped"
  | "step-local-message"
  | "step-peer-not-found"
  | "compacted"
  | "unavailable"
  | "snapshot-out-of-date"
  | "snapshot-temporarily-unavailable"
  | "bootstrap-without-peers"
  | "bootstrap-not-empty";

export class RaftError extends KvorumError {
  override name = "RaftError";
  readonly code: RaftErrorCode;

  constructor(code: RaftErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

/** The proposal was not appended: no leader, a transfer in progress, or too much uncommitted. Propose again later. */
export const ErrProposalDropped = new RaftError("proposal-dropped", "raft proposal dropped");
/** A message that only a node itself may produce came from outside. */
export const ErrStepLocalMsg = new RaftError("step-local-message", "raft: cannot step raft local message");
/** A response from a node that is not in the configuration. */
export const ErrStepPeerNotFound = new RaftError("step-peer-not-found", "raft: cannot step as peer not found");
/** The index predates the last compaction. */
export const ErrCompacted = new RaftError("compacted", "requested index is unavailable due to compaction");
/** The index is past the end of the log. */
export const ErrUnavailable = new RaftError("unavailable", "requested entry at index is unavailable");
/** A snapshot older than the one held. */
export const ErrSnapOutOfDate = new RaftError(
  "snapshot-out-of-date",
  "requested index is older than the existing snapshot",
);
/** The storage is still preparing its snapshot; raft asks again later. */
export const ErrSnapshotTemporarilyUnavailable = new RaftError(
  "snapshot-temporarily-unavailable",
  "snapshot is temporarily unavailable",
);
export const ErrBootstrapWithoutPeers = new RaftError(
  "bootstrap-without-peers",
  "must provide at least one peer to Bootstrap",
);
export const ErrBootstrapNotEmpty = new RaftError("bootstrap-not-empty", "can't bootstrap a nonempty Storage");

/** A configuration that RaftConfig's rules forbid; thrown by the constructor of RawNode. */
export class RaftConfigError extends KvorumError {
  override name = "RaftConfigError";
  readonly code = "ERR_RAFT_CONFIG";
}
