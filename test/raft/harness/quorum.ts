/**
 * The scenario commands about quorums: `committed` and `vote`, with cfg=(ID,…) and, for a joint quorum, cfgj=(ID,…) or
 * cfgj=zero. idx=(INDEX,…) and votes=(y|n,…) give one value per voter in order of their first mention; `_` for none.
 */
import assert from "node:assert/strict";
import { JointConfig } from "../../../src/raft/quorum/joint.ts";
import { type AckedIndexer, describeAcked, INDEX_MAX, MajorityConfig } from "../../../src/raft/quorum/majority.ts";
import { type Command, valuesOf } from "./scenario.ts";

export function runQuorumCommand(command: Command): string {
  const majority = new MajorityConfig(valuesOf(command, "cfg").filter(Boolean).map(BigInt));
  const others = valuesOf(command, "cfgj");
  const outgoing = new MajorityConfig(others.filter((id) => id !== "zero" && id !== "").map(BigInt));
  const joint = others.length > 0 ? new JointConfig(majority, outgoing) : undefined;
  const voters = [...new JointConfig(majority, outgoing).ids()];
  const given = valuesOf(command, command.name === "vote" ? "votes" : "idx");
  if (given.length !== voters.length) {
    const zeroes = voters.sort((a, b) => Number(a - b)).map((id) => `${id}:{}`);
    return `error: mismatched input (explicit or _) for voters map[${zeroes.join(" ")}]: [${given.join(" ")}]`;
  }
  const values = new Map(voters.map((id, i) => [id, given[i]!] as const).filter(([, value]) => value !== "_"));
  if (command.name === "vote") return vote(majority, joint, new Map([...values].map(([id, v]) => [id, v === "y"])));
  const indexes = new Map([...values].map(([id, value]) => [id, Number(value)]));
  return committed(majority, joint, { ackedIndex: (id) => indexes.get(id) });
}

function vote(majority: MajorityConfig, joint: JointConfig | undefined, votes: Map<bigint, boolean>): string {
  if (joint === undefined) return majority.voteResult(votes);
  const result = joint.voteResult(votes);
  assert.equal(new JointConfig(joint.outgoing, joint.incoming).voteResult(votes), result, "halves are symmetric");
  return result;
}

function committed(majority: MajorityConfig, joint: JointConfig | undefined, acked: AckedIndexer): string {
  if (joint !== undefined) {
    const index = joint.committedIndex(acked);
    assert.equal(new JointConfig(joint.outgoing, joint.incoming).committedIndex(acked), index, "halves are symmetric");
    return `${joint.describe(acked)}${name(index)}`;
  }
  const index = majority.committedIndex(acked);
  assert.equal(index, byCounting(majority, acked), "counting gives the same index");
  assert.equal(new JointConfig(majority).committedIndex(acked), index, "joining with nobody changes nothing");
  assert.equal(new JointConfig(majority, majority).committedIndex(acked), index, "joining with itself changes nothing");
  for (const id of majority.ids) {
    const own = acked.ackedIndex(id) ?? 0;
    if (own === 0 || own >= index) continue;
    for (const lower of [own - 1, 0]) {
      const lowered = { ackedIndex: (other: bigint) => (other === id ? lower : acked.ackedIndex(other)) };
      assert.equal(majority.committedIndex(lowered), index, `a voter behind the index may fall back: ${id}`);
    }
  }
  return `${describeAcked(majority.ids, acked)}${name(index)}`;
}

/** The largest acknowledged index that a majority has reached, found the slow way. */
function byCounting(majority: MajorityConfig, acked: AckedIndexer): number {
  if (majority.size === 0) return INDEX_MAX;
  const indexes = [...majority.ids].map((id) => acked.ackedIndex(id) ?? 0);
  const reached = indexes.filter((index) => indexes.filter((other) => other >= index).length > majority.size / 2);
  return Math.max(0, ...reached);
}

function name(index: number): string {
  return index === INDEX_MAX ? "∞" : String(index);
}
