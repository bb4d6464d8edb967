import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { EMPTY_BYTES } from "../../src/base/protobuf.ts";
import { ConfState, type Entry } from "../../src/proto/raftpb.ts";
import { NO_LIMIT } from "../../src/raft/entry-size.ts";
import { RaftLog } from "../../src/raft/log.ts";
import { UnstableLog } from "../../src/raft/log-unstable.ts";
import { silentRaftLogger } from "../../src/raft/logger.ts";
import { MemoryStorage } from "../../src/raft/memory-storage.ts";
import { coreWith, type Mutant } from "./harness/mutants.ts";
import { ownScenarios } from "./harness/scenario.ts";

/** Bugs that must stop the core by itself, each with the rule that it then breaks. */
const STOPPED: readonly (Mutant & { readonly rule: string })[] = [
  {
    about: "what has become stable still counts as being written",
    rule: "writing begins behind what is stable",
    file: "log-unstable.ts",
    from: "if (this.#offsetInProgress < this.#offset) this.#offsetInProgress = this.#offset;",
    to: "this.#offsetInProgress = this.#offset - 1;",
  },
  {
    about: "what was cut off counts as being written",
    rule: "only what is held is being written",
    file: "log-unstable.ts",
    from: "        this.#offsetInProgress = index;\n      } else {",
    to: "        this.#offsetInProgress = index + 9;\n      } else {",
  },
  {
    about: "an acknowledgement does not move what is sent next",
    rule: "what is sent next is behind what the follower has",
    file: "tracker/progress.ts",
    from: "if (this.next <= index) this.next = index + 1;",
    to: "",
  },
  {
    about: "a rejection moves what is sent next before the match",
    rule: "what is sent next is behind what the follower has",
    file: "tracker/progress.ts",
    from: "this.next = Math.max(Math.min(rejected, matchHint + 1), this.match + 1);",
    to: "this.next = this.match;",
  },
  {
    about: "what was sent is sent from further back each time",
    rule: "what is sent next is behind what the follower has",
    file: "tracker/progress.ts",
    from: "this.next += count;",
    to: "this.next -= count;",
  },
  {
    about: "a higher term is taken for a lower one",
    rule: "the term never falls",
    file: "step.ts",
    from: "r.becomeFollower(term, fromLeader ? from : NONE);",
    to: "r.becomeFollower(r.term - 1, fromLeader ? from : NONE);",
  },
  {
    about: "a candidate does not vote for itself",
    rule: "a leader has voted for itself",
    file: "raft.ts",
    from: "    this.vote = this.id;\n",
    to: "",
  },
  {
    about: "a pre-vote counts as a vote",
    rule: "a vote is given in its term",
    file: "election.ts",
    from: "  if (type === MessageType.MsgVote) {\n",
    to: "  {\n",
  },
  {
    about: "a leader forgets how far it has committed",
    rule: "term and commit index never fall",
    file: "rawnode.ts",
    from: "commit: this.raft.log.committed };",
    to: "commit: this.raft.state === 'StateLeader' ? 0 : this.raft.log.committed };",
  },
];

test("bugs in the core break an invariant, which says what does not hold", async () => {
  const folder = join(ownScenarios, "group");
  for (const mutant of STOPPED) {
    const { handlers, runScenario } = await coreWith(mutant);
    const isStopped = readdirSync(folder).some((file) => {
      try {
        runScenario(join(folder, file), handlers["group"]!());
        return false;
      } catch (error) {
        const { name, message } = error as Error;
        return name === "InvariantError" && message.startsWith(mutant.rule);
      }
    });
    assert.ok(isStopped, `nothing stops the core when ${mutant.about}`);
  }
});

const entry = (index: number): Entry => ({ type: 0, term: 1, index, data: EMPTY_BYTES });

function logOf(count: number): RaftLog {
  const storage = new MemoryStorage();
  storage.append(Array.from({ length: count }, (_, i) => entry(i + 1)));
  const log = new RaftLog(storage, silentRaftLogger, NO_LIMIT);
  log.commitTo(count);
  return log;
}

const breaks = (rule: string) => (error: Error) => error.name === "InvariantError" && error.message.startsWith(rule);

test("a log delivers entries in order, and has what is committed", () => {
  const log = logOf(5);
  log.acceptApplying(3, 0, true);
  assert.throws(() => log.acceptApplying(2, 0, true), breaks("entries are given out for applying in order"));
  log.committed = 9;
  assert.throws(() => log.appliedTo(3, 0), breaks("what is committed is in the log"));
});

test("a snapshot of committed entries is not restored", () => {
  const metadata = { index: 5, term: 1, confState: ConfState.create({ voters: [1n] }) };
  assert.throws(() => logOf(5).restore({ data: EMPTY_BYTES, metadata }), breaks("a snapshot brings something new"));
});

test("entries with a gap are not appended", () => {
  const unstable = new UnstableLog(1, silentRaftLogger);
  assert.throws(() => unstable.truncateAndAppend([entry(1), entry(3)], 0), breaks("appended entries have no gap"));
});
