/** The invariants of a raft group at every moment. Source: Raft thesis, figure 3.2, and section 6.4 for reads. */
import assert from "node:assert/strict";
import type { RaftLog } from "../../../src/raft/log.ts";
import type { RawNode } from "../../../src/raft/rawnode.ts";

interface Seen {
  term: number;
  wasLeader: boolean;
  lastIndex: number;
  lastTerm: number;
  committed: number;
}

interface CommittedEntry {
  readonly entryTerm: number;
  /** A term by whose end the entry was certainly committed. */
  byTerm: number;
}

interface Observed {
  readonly id: bigint;
  readonly node: RawNode;
}

/** Log matching compares whole logs, so it is checked only occasionally. */
const LOG_MATCHING_EVERY = 50;

export class Invariants {
  readonly #leaders = new Map<number, bigint>();
  readonly #committed = new Map<number, CommittedEntry>();
  readonly #digests = new Map<number, number>();
  readonly #seen = new Map<bigint, Seen>();
  /** Commit index known to any node when a read started. */
  readonly #reads = new Map<string, number>();
  #committedMax = 0;
  #checks = 0;
  /** How much was observed, so that a test can tell that anything happened at all. */
  readonly counts = { leaders: 0, applied: 0, readsDone: 0, restarts: 0 };

  check(members: readonly Observed[]): void {
    for (const { id, node } of members) {
      this.#electionSafety(id, node);
      this.#leaderAppendOnly(id, node);
      this.#recordCommits(id, node);
      this.#leaderCompleteness(id, node);
      const { log } = node.raft;
      this.#seen.set(id, {
        term: node.term,
        wasLeader: node.isLeader,
        lastIndex: log.lastIndex(),
        lastTerm: log.lastTerm(),
        committed: log.committed,
      });
    }
    if (++this.#checks % LOG_MATCHING_EVERY !== 0) return;
    for (const a of members) for (const b of members) if (a.id < b.id) logMatching(a.node.raft.log, b.node.raft.log);
  }

  restarted(id: bigint): void {
    this.counts.restarts++;
    this.#seen.delete(id);
  }

  /** State machine safety: all members go through the same states. */
  applied(id: bigint, index: number, digest: number): void {
    this.counts.applied++;
    const known = this.#digests.get(index);
    if (known === undefined) this.#digests.set(index, digest);
    else assert.equal(digest, known, `state machine safety: node ${id} differs at index ${index}`);
  }

  readStarted(name: string): void {
    this.#reads.set(name, this.#committedMax);
  }

  /** Linearizable reads: an answer covers everything that was committed when the read started. */
  readDone(name: string, index: number): void {
    this.counts.readsDone++;
    const start = this.#reads.get(name) ?? Number.POSITIVE_INFINITY;
    assert.ok(index >= start, `read ${name} may be served at ${index}, but ${start} was committed when it started`);
  }

  /** At most one leader in a term. */
  #electionSafety(id: bigint, node: RawNode): void {
    if (!node.isLeader) return;
    const known = this.#leaders.get(node.term);
    if (known === undefined) {
      this.#leaders.set(node.term, id);
      this.counts.leaders++;
    } else assert.equal(id, known, `election safety: two leaders in term ${node.term}`);
  }

  /** A leader never overwrites or deletes entries of its log. */
  #leaderAppendOnly(id: bigint, node: RawNode): void {
    const seen = this.#seen.get(id);
    if (seen === undefined) return;
    const { log } = node.raft;
    assert.ok(node.term >= seen.term, `node ${id} went back in its term`);
    assert.ok(log.committed >= seen.committed, `node ${id} took back a commit`);
    if (!node.isLeader || !seen.wasLeader || seen.term !== node.term) return;
    assert.ok(log.lastIndex() >= seen.lastIndex, `leader append-only: node ${id} cut its log`);
    // A leader commits in its term by counting, which is valid only for entries of its own term.
    const counts = log.committed === seen.committed || log.term(log.committed) === node.term;
    assert.ok(counts, `leader ${id} of term ${node.term} committed ${log.committed}, of an earlier term, by counting`);
    const term = log.term(seen.lastIndex);
    assert.ok(term === undefined || term === seen.lastTerm, `leader append-only: node ${id} overwrote its log`);
  }

  #recordCommits(id: bigint, node: RawNode): void {
    const { log } = node.raft;
    const from = this.#seen.get(id)?.committed ?? log.firstIndex() - 1;
    for (let index = Math.max(from + 1, log.firstIndex()); index <= log.committed; index++) {
      const entryTerm = log.term(index)!;
      const known = this.#committed.get(index);
      if (known === undefined) this.#committed.set(index, { entryTerm, byTerm: node.term });
      else {
        assert.equal(entryTerm, known.entryTerm, `node ${id} committed another entry at index ${index}`);
        known.byTerm = Math.min(known.byTerm, node.term);
      }
    }
    this.#committedMax = Math.max(this.#committedMax, log.committed);
  }

  /** A leader has all entries committed in earlier terms. */
  #leaderCompleteness(id: bigint, node: RawNode): void {
    const seen = this.#seen.get(id);
    if (!node.isLeader || (seen?.wasLeader && seen.term === node.term)) return;
    const { log } = node.raft;
    for (const [index, { entryTerm, byTerm }] of this.#committed) {
      if (byTerm > node.term || index < log.firstIndex()) continue;
      assert.equal(log.term(index), entryTerm, `leader completeness: node ${id} of term ${node.term} lacks ${index}`);
    }
  }
}

/** If two logs have an entry of the same index and term, they are the same up to it. */
function logMatching(a: RaftLog, b: RaftLog): void {
  const first = Math.max(a.firstIndex(), b.firstIndex());
  const last = Math.min(a.lastIndex(), b.lastIndex());
  if (last < first) return;
  const [entriesA, entriesB] = [a, b].map((log) => log.slice(first, last + 1, Number.MAX_SAFE_INTEGER)!);
  let matches = false;
  for (let i = last - first; i >= 0; i--) {
    const [x, y] = [entriesA![i]!, entriesB![i]!];
    const isSame = x.term === y.term;
    assert.ok(isSame || !matches, `log matching: entries differ at ${x.index} but match after it`);
    matches ||= isSame;
    if (!isSame) continue;
    if (x.data !== y.data) assert.ok(Buffer.compare(x.data, y.data) === 0, `log matching: entry ${x.index} differs`);
  }
}
