/**
 * What may follow what in the log, asserted before it is written. The counterpart is replay.ts, which checks it when the log
 * is read: there it is an error that names the file, since a disk may give back what was not written.
 */
import { invariant } from "../base/fatal.ts";
import type { Entry, HardState } from "../proto/raftpb.ts";

/** Entries of one write have no gap, and terms that never fall. */
export function checkEntries(entries: readonly Entry[]): void {
  for (let i = 1; i < entries.length; i++) {
    const before = entries[i - 1]!;
    const next = entries[i]!;
    invariant(next.index === before.index + 1, "entries are written without a gap", before.index, next.index);
    invariant(next.term >= before.term, "terms never fall along the log", before.term, next.term);
  }
}

/** A vote that is taken back, or a term that falls, would let two members lead in one term. */
export function checkHardState(before: HardState | undefined, next: HardState): void {
  if (before === undefined) return;
  invariant(next.term >= before.term, "the term never falls", before.term, next.term);
  invariant(next.commit >= before.commit, "the commit index never falls", before.commit, next.commit);
  const isSameVote = next.term > before.term || before.vote === 0n || next.vote === before.vote;
  invariant(isSameVote, "a vote stands for its term", before.vote, next.vote);
}
