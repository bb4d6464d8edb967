import assert from "node:assert/strict";
import { test } from "node:test";
import { EMPTY_BYTES } from "../../../src/base/protobuf.ts";
import { type Entry, MessageType } from "../../../src/proto/raftpb.ts";
import { newMessage } from "../../../src/raft/messages.ts";
import { DurableIndex } from "../../../src/server/replication/durable-index.ts";

const TERM = 3;
const entry = (index: number): Entry => ({ type: 0, term: TERM, index, data: EMPTY_BYTES });

function acknowledges(
  durable: DurableIndex,
  index: number,
  changes: { reject?: boolean; term?: number } = {},
): boolean {
  for (const type of [MessageType.MsgAppResp, MessageType.MsgStorageAppendResp]) {
    const response = Object.assign(newMessage(type, 2n, 1n, TERM), { index, logTerm: TERM, ...changes });
    try {
      durable.checkResponse(response, { term: TERM, log: { matchTerm: (_index, term) => term === TERM } });
    } catch (error) {
      assert.equal((error as Error).name, "InvariantError");
      return false;
    }
  }
  return true;
}

test("entries are acknowledged, and applied, once a sync that began after their write has ended", () => {
  const durable = new DurableIndex(7);
  assert.ok(acknowledges(durable, 7));
  durable.wrote([entry(8), entry(9)]);
  assert.ok(!acknowledges(durable, 8));
  durable.syncBegins();
  durable.wrote([entry(10)]);
  assert.ok(!acknowledges(durable, 8));
  durable.syncEnded();
  assert.ok(acknowledges(durable, 9));
  assert.ok(!acknowledges(durable, 10));
  durable.checkApply([entry(8), entry(9)]);
  assert.throws(() => durable.checkApply([entry(9), entry(10)]), { name: "InvariantError" });
});

test("entries overwritten during a sync are not durable at its end", () => {
  const durable = new DurableIndex(0);
  durable.wrote([entry(1), entry(2), entry(3)]);
  durable.syncBegins();
  durable.wrote([entry(2)]);
  durable.syncEnded();
  assert.ok(acknowledges(durable, 1));
  assert.ok(!acknowledges(durable, 2));
  durable.syncBegins();
  durable.syncEnded();
  assert.ok(acknowledges(durable, 2));
  assert.ok(!acknowledges(durable, 3));
});

test("a report about an entry of an earlier term, overwritten during the sync, has no effect", () => {
  const durable = new DurableIndex(0);
  durable.wrote([entry(1), entry(2), entry(3)]);
  durable.syncBegins();
  durable.wrote([entry(2)]);
  durable.syncEnded();
  const report = Object.assign(newMessage(MessageType.MsgStorageAppendResp, 1n, 1n, TERM), { index: 3 });
  const log = { matchTerm: (index: number, term: number) => index <= 2 && term === TERM };
  durable.checkResponse({ ...report, logTerm: TERM - 1 }, { term: TERM, log });
  const unsynced = { ...report, index: 2, logTerm: TERM };
  assert.throws(() => durable.checkResponse(unsynced, { term: TERM, log }), { name: "InvariantError" });
});

test("a rejection promises nothing, and an answer of an earlier term has no effect", () => {
  const durable = new DurableIndex(0);
  assert.ok(acknowledges(durable, 5, { term: TERM - 1 }));
  const refusal = Object.assign(newMessage(MessageType.MsgAppResp, 2n, 1n, TERM), { index: 5, reject: true });
  durable.checkResponse(refusal, { term: TERM, log: { matchTerm: () => true } });
});

test("a saved snapshot is durable, and nothing after it", () => {
  const durable = new DurableIndex(3);
  durable.wrote([entry(4)]);
  durable.snapshotSaved(20);
  assert.ok(acknowledges(durable, 20));
  assert.ok(!acknowledges(durable, 21));
});
