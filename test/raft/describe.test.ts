import assert from "node:assert/strict";
import { test } from "node:test";
import { ConfChange, ConfChangeType, ConfChangeV2, EntryType } from "../../src/proto/raftpb.ts";
import { changesToString, confChangeEntry, parseChanges } from "../../src/raft/confchange/change.ts";
import { describeConfChange, describeEntry, describeReady, quote } from "../../src/raft/describe.ts";

test("payloads are quoted as Go's %q does", () => {
  const cases: [string | number[], string][] = [
    ["plain", '"plain"'],
    ['say "hi" \\', '"say \\"hi\\" \\\\"'],
    ["tab\tline\n\u0007\b\f\r\v", '"tab\\tline\\n\\a\\b\\f\\r\\v"'],
    ["äö 漢字 😀", '"äö 漢字 😀"'],
    [[0, 1, 0x7f], '"\\x00\\x01\\x7f"'],
    [[0xff, 0xc3, 0x28, 0xe2, 0x82], '"\\xff\\xc3(\\xe2\\x82"'],
    ["\u00a0\u200b\u{e0001}", '"\\u00a0\\u200b\\U000e0001"'],
  ];
  for (const [input, expected] of cases) assert.equal(quote(Buffer.from(input as string)), expected);
});

test("entries show their configuration changes, and say when they are malformed", () => {
  const change = ConfChangeV2.create({ changes: parseChanges("v1 l2 r3 u4") });
  assert.equal(changesToString(change.changes), "v1 l2 r3 u4");
  const entry = { ...confChangeEntry(change), term: 2, index: 7 };
  assert.equal(describeEntry(entry), "2/7 EntryConfChangeV2 v1 l2 r3 u4");
  assert.match(
    describeEntry({ type: EntryType.EntryConfChange, term: 1, index: 1, data: Buffer.from([0xff]) }),
    /^1\/1 EntryConfChange .+/,
  );
  assert.throws(() => parseChanges("x1"), SyntaxError);
});

test("configuration changes print the same in both versions", () => {
  const change = ConfChange.create({
    type: ConfChangeType.ConfChangeRemoveNode,
    nodeId: 255n,
    context: Buffer.from("why"),
  });
  assert.equal(
    describeConfChange(change),
    'transition:ConfChangeTransitionAuto changes:{type:ConfChangeRemoveNode node_id:255} context:"why"',
  );
});

test("a Ready without work says so", () => {
  const nothing = {
    softState: undefined,
    hardState: undefined,
    readStates: [],
    entries: [],
    snapshot: undefined,
    committedEntries: [],
    messages: [],
    mustSync: false,
  };
  assert.equal(describeReady(nothing), "<empty Ready>");
});
