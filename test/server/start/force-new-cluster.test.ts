import assert from "node:assert/strict";
import { test } from "node:test";
import { nullLogger } from "../../../src/base/log.ts";
import { additionOf, removalOf } from "../../../src/membership/conf-change.ts";
import type { Member } from "../../../src/membership/member.ts";
import { ConfChange, ConfChangeType, ConfState, type Entry, EntryType } from "../../../src/proto/raftpb.ts";
import { forceNewCluster } from "../../../src/server/start/force-new-cluster.ts";

const member = (id: bigint, isLearner = false): Member => ({
  id,
  peerUrls: [`http://127.0.0.1:${id}`],
  isLearner,
  name: "",
  clientUrls: [],
});
const change = (index: number, confChange: ConfChange): Entry => ({
  type: EntryType.EntryConfChange,
  term: 2,
  index,
  data: ConfChange.encode(confChange),
});
const write = (index: number): Entry => ({ type: EntryType.EntryNormal, term: 2, index, data: Buffer.of(index) });

function force(entries: readonly Entry[], commit: number, more: Partial<Parameters<typeof forceNewCluster>[0]> = {}) {
  const forced = forceNewCluster({
    log: { hardState: { term: 2, vote: 3n, commit }, entries },
    confState: ConfState.create(),
    consistentIndex: 0,
    localId: 1n,
    peerUrls: ["http://127.0.0.1:1"],
    logger: nullLogger,
    ...more,
  });
  const changes = forced.added.map(({ data }) => {
    const { type, nodeId, context } = ConfChange.decode(data);
    return [nameOf(type), nodeId, ...(context.length === 0 ? [] : [Buffer.from(context).toString()])];
  });
  return { ...forced, changes };
}

const nameOf = (type: ConfChangeType): string => Object.entries(ConfChangeType).find(([, value]) => value === type)![0];

const FOUNDERS = [1n, 2n, 3n].map((id, i) => change(i + 1, additionOf(0n, member(id))));

test("the others are removed, in the order of their ids, in entries right after the committed ones", () => {
  const { added, changes, hardState, entries } = force([...FOUNDERS, write(4)], 4);
  assert.deepEqual(changes, [
    ["ConfChangeRemoveNode", 2n],
    ["ConfChangeRemoveNode", 3n],
  ]);
  assert.deepEqual(
    added.map(({ term, index }) => [term, index]),
    [
      [2, 5],
      [2, 6],
    ],
  );
  assert.deepEqual(hardState, { term: 2, vote: 3n, commit: 6 });
  assert.equal(entries.length, 6);
});

test("uncommitted entries are dropped, including their membership changes", () => {
  const uncommitted = [write(5), change(6, additionOf(0n, member(4n)))];
  const { entries, changes, hardState } = force([...FOUNDERS, write(4), ...uncommitted], 4);
  assert.deepEqual(
    entries.map((entry) => entry.index),
    [1, 2, 3, 4, 5, 6],
  );
  assert.deepEqual(
    changes.map(([, id]) => id),
    [2n, 3n],
  );
  assert.equal(hardState.commit, 6);
});

test("what the backend has applied was committed, even if the log does not say so", () => {
  const { entries, added } = force([...FOUNDERS, write(4), write(5)], 3, { consistentIndex: 5 });
  assert.equal(entries.length, 7);
  assert.equal(added[0]!.index, 6);
});

test("members come from the snapshot and from the entries after it", () => {
  const confState = ConfState.create({ voters: [1n, 2n], learners: [9n] });
  const entries = [change(11, removalOf(0n, 2n)), change(12, additionOf(0n, member(5n, true)))];
  assert.deepEqual(force(entries, 12, { confState }).changes, [
    ["ConfChangeRemoveNode", 5n],
    ["ConfChangeRemoveNode", 9n],
  ]);
});

test("a learner becomes a voter before the voters are removed", () => {
  const confState = ConfState.create({ voters: [2n], learners: [1n] });
  assert.deepEqual(force([write(8)], 8, { confState }).changes, [
    ["ConfChangeAddNode", 1n, '{"id":1,"peerURLs":null,"isPromote":true}'],
    ["ConfChangeRemoveNode", 2n],
  ]);
});

test("a member that is not in the log is added first", () => {
  const confState = ConfState.create({ voters: [2n] });
  assert.deepEqual(force([write(8)], 8, { confState }).changes, [
    ["ConfChangeAddNode", 1n, '{"id":1,"peerURLs":["http://127.0.0.1:1"]}'],
    ["ConfChangeRemoveNode", 2n],
  ]);
});

test("a single member adds nothing", () => {
  const confState = ConfState.create({ voters: [1n] });
  const { added, hardState } = force([write(8)], 8, { confState });
  assert.deepEqual(added, []);
  assert.equal(hardState.commit, 8);
});
