// Slow: every order of events of small groups.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { MemoryStorage } from "../../src/raft/memory-storage.ts";
import type { RawNode } from "../../src/raft/rawnode.ts";
import { type ExplorerOptions, explore } from "./harness/explorer.ts";

/** KVORUM_RAFT_DEPTH=N goes N steps deeper, each taking about three times as long. */
const further = Number(process.env["KVORUM_RAFT_DEPTH"] ?? 0);

const none = { proposals: 0, restarts: 0, duplicates: 0, heartbeats: 0 };

const groups: [string, ExplorerOptions][] = [
  [
    "two nodes, with everything once",
    { nodes: 2, depth: 8, terms: 4, proposals: 1, restarts: 1, duplicates: 1, heartbeats: 1 },
  ],
  ["three nodes that restart", { ...none, nodes: 3, depth: 8, terms: 3, restarts: 1 }],
  ["three nodes with proposals", { ...none, nodes: 3, depth: 8, terms: 3, proposals: 2 }],
  ["three nodes with doubled messages", { ...none, nodes: 3, depth: 7, terms: 3, proposals: 1, duplicates: 1 }],
];

for (const [name, options] of groups) {
  test(`${name} keep raft's invariants whatever happens in ${options.depth + further} steps`, (context) => {
    const { states, steps, led, committedMax } = explore({ ...options, depth: options.depth + further });
    context.diagnostic(`${states} states, ${steps} steps`);
    assert.ok(states > 500 && led > 100, `few states: ${states}, ${led} with a leader`);
    assert.ok(committedMax >= 2, "nothing was committed");
  });
}

const bugs: [string, RegExp, Partial<ExplorerOptions>, (node: RawNode, storage: MemoryStorage) => void][] = [
  [
    "a vote that a restart forgets",
    /election safety/,
    { depth: 7, terms: 2, restarts: 1 },
    (_node, storage) => {
      const { setHardState } = storage;
      storage.setHardState = (state) => setHardState.call(storage, { ...state, vote: 0n });
    },
  ],
  [
    "votes for logs that lack entries",
    /leader completeness|committed entry|out of range/,
    { depth: 9, terms: 3 },
    ({ raft }) => {
      raft.log.isUpToDate = () => true;
    },
  ],
  [
    "entries committed by a leader alone",
    /state machine safety|leader completeness|committed another/,
    { depth: 9, terms: 3 },
    ({ raft }) => {
      raft.tracker.committed = () => raft.log.lastIndex();
    },
  ],
];

for (const [name, finding, options, prepare] of bugs) {
  test(`exhaustive exploration finds ${name}`, () => {
    assert.throws(() => explore({ ...none, nodes: 3, depth: 0, terms: 0, ...options, prepare }), finding);
  });
}
