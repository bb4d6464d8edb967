// Slow: thousands of candidates of an election.
/** Locks and elections over a prefix with many keys: their owner is looked for in slices, and others go on meanwhile. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Code } from "../../src/base/grpc-codes.ts";
import { KVService, LeaseService, PutRequest, RequestOp } from "../../src/proto/etcdserverpb.ts";
import { ElectionService } from "../../src/proto/v3electionpb.ts";
import { LockService } from "../../src/proto/v3lockpb.ts";
import { type InProcess, startInProcess } from "../harness/in-process.ts";
import { waitFor } from "../harness/wait.ts";
import { bytes, text } from "../server/requests.ts";

const KEYS = 6000;
const PER_TXN = 100;
const crowd = { key: bytes("crowd/"), rangeEnd: bytes("crowd0") };
let member: InProcess;

before(async () => {
  member = await startInProcess();
  // The oldest has a name in the middle.
  await member.client.unary(KVService.Put, { key: bytes("crowd/3000"), value: bytes("oldest") });
  for (let first = 0; first < KEYS; first += PER_TXN) {
    const success = Array.from({ length: PER_TXN }, (_, i) => {
      const key = bytes(`crowd/${String(first + i).padStart(4, "0")}`);
      return RequestOp.create({ requestPut: PutRequest.create({ key, value: bytes("oldest") }) });
    });
    await member.client.unary(KVService.Txn, { success });
  }
});
after(() => member.close());

/** What `call` answers, and the slices that it took. */
async function sliced<T>(call: () => Promise<T>): Promise<{ answer: T; slices: number }> {
  const { turns } = member.etcd.server;
  const before = turns.slices;
  const answer = await call();
  return { answer, slices: turns.slices - before };
}

test("the leader of an election with many keys is found in slices", async () => {
  const { answer, slices } = await sliced(() => member.client.unary(ElectionService.Leader, { name: bytes("crowd") }));
  assert.equal(text(answer.kv!.key), "crowd/3000");
  assert.ok(slices >= 3, `${slices} slices`);
});

test("an observer of such an election is told its leader, found in slices", async () => {
  const observer = member.client.stream(ElectionService.Observe);
  const { answer, slices } = await sliced(async () => {
    await observer.send({ name: bytes("crowd") });
    for await (const response of observer) return response;
    throw new Error("the stream ended without an answer");
  });
  assert.equal(text(answer.kv!.key), "crowd/3000");
  assert.ok(slices >= 3, `${slices} slices`);
});

test("a lock behind many keys waits for the newest of them, found in slices, and is given when all are gone", async () => {
  // In hexadecimal behind all of them.
  const { id } = await member.client.unary(LeaseService.LeaseGrant, { id: 0xf001n, ttl: 60 });
  const { turns } = member.etcd.server;
  const before = turns.slices;
  let given = false;
  const lock = member.client.unary(LockService.Lock, { name: bytes("crowd"), lease: id }).then((answer) => {
    given = true;
    return answer;
  });
  await waitFor("the search", () => turns.slices - before >= 3);
  const { count } = await member.client.unary(KVService.Range, { ...crowd, countOnly: true });
  assert.equal(count, KEYS + 1, "its own key is there");
  assert.equal(given, false);
  await member.client.unary(KVService.DeleteRange, { key: crowd.key, rangeEnd: bytes("crowd/9999") });
  assert.equal(text((await lock).key), `crowd/${id.toString(16)}`);
});

test("a client that leaves during the search ends it, and takes its key along", async () => {
  const { id } = await member.client.unary(LeaseService.LeaseGrant, { ttl: 60 });
  await member.client.unary(KVService.Put, { key: bytes("crowd/0"), value: bytes("older") });
  const lock = member.client.unary(LockService.Lock, { name: bytes("crowd"), lease: id }, { timeoutMs: 300 });
  await assert.rejects(lock, { code: Code.DEADLINE_EXCEEDED });
  await waitFor("its key is gone", async () => {
    const { count } = await member.client.unary(KVService.Range, {
      key: bytes(`crowd/${id.toString(16)}`),
      countOnly: true,
    });
    return count === 0;
  });
  assert.equal(member.etcd.server.turns.active, 0);
  assert.deepEqual(member.failures, []);
});
