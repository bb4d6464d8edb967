import { InvariantError } from "../../base/fatal.ts";
import { formatId } from "../../membership/member.ts";

/**
 * The leader relies on entries that this member has acknowledged and no longer has. It must not continue: its vote
 * could elect a member without entries that only this one and a failed one had, and committed requests would be lost.
 */
export class LostLogError extends InvariantError {
  override name = "LostLogError";

  constructor(found: {
    readonly leader: bigint;
    /** The index the leader believes is here. */
    readonly commit: number;
    readonly lastIndex: number;
    readonly memberId: bigint;
    readonly dataDir: string;
    readonly walDir: string;
  }) {
    super(
      `the leader, member ${formatId(found.leader)}, counts on this member having the log up to entry ${found.commit}, but the log in ` +
        `${found.walDir} ends at ${found.lastIndex}: it was emptied, or an older one put in its place, after this member had ` +
        `acknowledged what is missing. Put the files back that belong to it, or ${adviceToBeginAnew(found.memberId, found.dataDir)}`,
    );
  }
}

/** For a member whose data is lost while the cluster still relies on it. */
export function adviceToBeginAnew(memberId: bigint, dataDir: string): string {
  return (
    `let it join as a new member: etcdctl member remove ${formatId(memberId)}, move ${dataDir} away if it is there, ` +
    "etcdctl member add with its name and peer URLs, and start it with --initial-cluster-state=existing"
  );
}
