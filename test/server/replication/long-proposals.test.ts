import assert from "node:assert/strict";
import { test } from "node:test";
import { InternalRaftRequest, RequestOp, TxnRequest } from "../../../src/proto/etcdserverpb.ts";
import { type Message, MessageType } from "../../../src/proto/raftpb.ts";
import { newMessage } from "../../../src/raft/messages.ts";
import { LongProposals } from "../../../src/server/replication/long-proposals.ts";
import { VirtualClock } from "../../harness/virtual-clock.ts";
import { put } from "../requests.ts";

function proposal(data: Uint8Array): Message {
  return { ...newMessage(MessageType.MsgProp, 1n, 2n, 0), entries: [{ type: 0, term: 0, index: 0, data }] };
}

function txnOf(ops: number): Buffer {
  const success = Array.from({ length: ops }, (_, i) => RequestOp.create({ requestPut: put(`key ${i}`) }));
  return Buffer.from(InternalRaftRequest.encode(InternalRaftRequest.create({ txn: TxnRequest.create({ success }) })));
}

/** The same, but the last key's tag has the number 0, which no field has. */
function endingInNonsense(data: Buffer): Buffer {
  const copy = Buffer.from(data);
  copy[copy.lastIndexOf("key 19999") - 2] = 0x02;
  return copy;
}

function started(): { clock: VirtualClock; long: LongProposals; found: (string | undefined)[] } {
  const clock = new VirtualClock();
  const found: (string | undefined)[] = [];
  return { clock, found, long: new LongProposals(clock, (_message, problem) => found.push(problem)) };
}

test("short requests are not taken", () => {
  const { long } = started();
  assert.equal(long.take(proposal(txnOf(100))), false);
  assert.equal(long.take(newMessage(MessageType.MsgApp, 1n, 2n, 1)), false);
});

test("a long transaction takes many turns, and what cannot be read in it is found", () => {
  const { clock, long, found } = started();
  const data = txnOf(20_000);
  assert.equal(long.take(proposal(data)), true);
  let turns = 0;
  while (found.length === 0) turns += clock.turn() ? 1 : assert.fail("it stopped");
  assert.deepEqual(found, [undefined]);
  assert.ok(turns >= 4, `${turns} turns`);
  assert.equal(long.take(proposal(endingInNonsense(data))), true);
  clock.settle();
  assert.match(found[1] ?? "", /^it proposes a request that cannot be applied: /);
});

test("what waits is bounded: more is refused, and there is room again when it is checked", () => {
  const { clock, long, found } = started();
  const data = txnOf(600);
  // One operation of 40 MiB beside them.
  const large = Buffer.from(
    InternalRaftRequest.encode(
      InternalRaftRequest.create({
        txn: TxnRequest.create({
          success: [
            ...Array.from({ length: 600 }, () => RequestOp.create({ requestPut: put("k") })),
            RequestOp.create({ requestPut: { ...put("large"), value: Buffer.alloc(40 * 1024 * 1024) } }),
          ],
        }),
      }),
    ),
  );
  assert.equal(long.take(proposal(large)), true);
  assert.equal(long.take(proposal(large)), true);
  assert.equal(long.take(proposal(data)), true);
  clock.settle();
  assert.equal(found.length, 3);
  assert.equal(found.filter((problem) => problem?.startsWith("too many long transactions")).length, 1);
  assert.equal(found.filter((problem) => problem === undefined).length, 2);
  assert.equal(long.take(proposal(large)), true);
  clock.settle();
  assert.equal(found.at(-1), undefined);
});
