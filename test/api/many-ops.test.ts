/** Transactions with more operations than fit into one turn: every part of their way is cut into slices. */
import assert from "node:assert/strict";
import { after, before, describe, type TestContext, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { WriteTxn } from "../../src/mvcc/store/store.ts";
import { Permission_Type as PermissionType } from "../../src/proto/authpb.ts";
import {
  AuthService,
  KVService,
  type RequestOp,
  type TxnRequest,
  type TxnResponse,
} from "../../src/proto/etcdserverpb.ts";
import { READ_SLICE } from "../../src/server/contract/options.ts";
import { slow } from "../harness/fast.ts";
import { type InProcess, startInProcess } from "../harness/in-process.ts";
import { bytes, compare, putOp, range, rangeOp, removeOp, text, txn, txnOp } from "../server/requests.ts";

const OPS = 2000;
const ROWS = 50;
const SERVER = {
  maxTxnOps: OPS,
  applySlice: { rows: ROWS, bytes: 100_000, turnMs: 0 },
  readSlice: { ...READ_SLICE, entries: 100 },
};

const keyOf = (i: number): string => `k/${String(i).padStart(5, "0")}`;
const ops = (op: (key: string, i: number) => RequestOp): RequestOp[] =>
  Array.from({ length: OPS }, (_, i) => op(keyOf(i), i));
const puts = (value: string): RequestOp[] => ops((key) => putOp(key, value));
const ask = ({ client }: InProcess, request: TxnRequest, token?: string): Promise<TxnResponse> =>
  client.unary(KVService.Txn, request, token === undefined ? {} : { metadata: { token } });

/** The most changes that one turn of the event loop makes. */
function countPerTurn(t: TestContext): { most: number } {
  const counted = { most: 0 };
  let now = 0;
  const { put } = WriteTxn.prototype;
  t.mock.method(WriteTxn.prototype, "put", function (this: WriteTxn, ...args: Parameters<typeof put>) {
    if (now++ === 0) setImmediate(() => (now = 0));
    counted.most = Math.max(counted.most, now);
    put.apply(this, args);
  });
  return counted;
}

describe("a transaction with thousands of operations", () => {
  let member: InProcess;
  before(async () => {
    member = await startInProcess({ server: SERVER });
    await ask(member, txn(puts("first")));
  });
  after(async () => {
    await member.close();
    assert.deepEqual(member.failures, []);
  });

  test("writes a few in each turn, at one revision that appears at once", async (t) => {
    const { store } = member.etcd.server;
    const before = store.currentRevision;
    const counted = countPerTurn(t);
    const asked = ask(member, txn(puts("second")));
    let isOver = false;
    const over = asked.finally(() => (isOver = true));
    while (!isOver) {
      const seen = store.range(bytes(keyOf(OPS - 1)), null, { revision: 0, limit: 0, countOnly: true }, () => {});
      assert.deepEqual([seen.count, seen.revision === before || seen.revision === before + 1], [1, true]);
      await turn();
    }
    const { header, responses, succeeded } = await over;
    assert.ok(counted.most <= ROWS, `${counted.most} in one turn`);
    assert.deepEqual([header!.revision, responses.length, succeeded], [before + 1, OPS, true]);
    assert.ok(responses.every(({ responsePut }) => responsePut!.header!.revision === before + 1));
    const { kvs } = await member.client.unary(KVService.Range, range("k/", "k0"));
    assert.ok(kvs.every(({ value, modRevision }) => text(value) === "second" && modRevision === before + 1));
  });

  test("is decoded, checked and answered in slices, before the log and behind it", async () => {
    const { turns } = member.etcd.server;
    const before = turns.slices;
    await ask(member, txn(puts("third")));
    assert.ok(turns.slices - before >= (2 * OPS) / 100, `${turns.slices - before} slices`);
  });

  test("that only reads is answered like each read by itself, at one revision", async () => {
    const request = txn(ops((key, i) => rangeOp(key, "", { keysOnly: i % 2 === 0 })));
    const [{ responses, header }] = await Promise.all([ask(member, request), ask(member, txn([putOp(keyOf(7), "x")]))]);
    for (const [i, { responseRange }] of responses.entries()) {
      const { kvs, count, header: own } = responseRange!;
      assert.deepEqual([count, kvs.length, text(kvs[0]!.key)], [1, 1, keyOf(i)]);
      assert.equal(kvs[0]!.value.length > 0, i % 2 === 1);
      assert.ok(kvs[0]!.modRevision <= header!.revision);
      assert.equal(own!.revision, header!.revision);
    }
  });

  test("reads what it wrote before, through every nested level", async () => {
    const inner = txn([...puts("inner").slice(0, 700), rangeOp("k/", "k0", { countOnly: true }), removeOp(keyOf(900))]);
    const all = [putOp("new", "n"), rangeOp("new"), txnOp(txn([txnOp(inner)])), rangeOp(keyOf(3)), rangeOp(keyOf(900))];
    const { responses, header } = await ask(member, txn(all));
    const nested = responses[2]!.responseTxn!.responses[0]!.responseTxn!;
    assert.equal(nested.responses.length, 702);
    assert.ok(nested.responses.slice(0, 700).every((op) => op.responsePut!.header!.revision === header!.revision));
    assert.equal(nested.responses[700]!.responseRange!.count, OPS);
    assert.equal(nested.responses[701]!.responseDeleteRange!.deleted, 1);
    assert.equal(text(responses[1]!.responseRange!.kvs[0]!.value), "n");
    assert.equal(text(responses[3]!.responseRange!.kvs[0]!.value), "inner");
    assert.equal(responses[4]!.responseRange!.count, 0);
  });

  test("is refused whole for its last operation", async () => {
    const last = (op: RequestOp): TxnRequest => txn([...puts("never").slice(0, OPS - 1), op]);
    const { client, etcd } = member;
    const before = etcd.server.store.currentRevision;
    await assert.rejects(ask(member, last(putOp(keyOf(1)))), /duplicate key given in txn request/);
    await assert.rejects(ask(member, last(putOp(""))), /key is not provided/);
    await assert.rejects(ask(member, last(putOp("none", "", { ignoreValue: true }))), /key not found/);
    await assert.rejects(ask(member, last(putOp("none", "", { lease: 77n }))), /requested lease not found/);
    await assert.rejects(ask(member, last(rangeOp("k", "", { revision: 1_000_000 }))), /future revision/);
    assert.equal(etcd.server.store.currentRevision, before);
    assert.notEqual(text((await client.unary(KVService.Range, range(keyOf(0)))).kvs[0]!.value), "never");
  });

  test("takes the branch that thousands of comparisons choose", async () => {
    const compares = ops(() => putOp("unused")).map((_, i) => compare(keyOf(i === 900 ? 0 : i), { version: 0 }));
    const { succeeded, responses } = await ask(member, txn([], [rangeOp("new")], compares));
    assert.deepEqual([succeeded, responses.length], [false, 1]);
  });
});

test(
  "permissions for each of thousands of operations decide, where it is read and where it is applied",
  slow,
  async () => {
    const member = await startInProcess({ server: SERVER });
    const { client } = member;
    await client.unary(AuthService.UserAdd, { name: "root", password: "root" });
    await client.unary(AuthService.RoleAdd, { name: "root" });
    await client.unary(AuthService.UserGrantRole, { user: "root", role: "root" });
    await client.unary(AuthService.UserAdd, { name: "user", password: "user" });
    await client.unary(AuthService.RoleAdd, { name: "role" });
    const perm = { permType: PermissionType.READWRITE, key: bytes("k/"), rangeEnd: bytes("k0") };
    await client.unary(AuthService.RoleGrantPermission, { name: "role", perm });
    await client.unary(AuthService.UserGrantRole, { user: "user", role: "role" });
    await client.unary(AuthService.AuthEnable, {});
    const { token } = await client.unary(AuthService.Authenticate, { name: "user", password: "user" });
    const allowed = puts("v").slice(0, OPS - 1);
    assert.equal((await ask(member, txn(allowed), token)).responses.length, OPS - 1);
    await assert.rejects(ask(member, txn([...allowed, putOp("other", "v")]), token), /permission denied/);
    await assert.rejects(ask(member, txn(allowed), undefined), /user name is empty/);
    const reads = ops((key) => rangeOp(key)).slice(0, OPS - 1);
    assert.equal((await ask(member, txn(reads), token)).responses.length, OPS - 1);
    await assert.rejects(ask(member, txn([...reads, rangeOp("other")]), token), /permission denied/);
    await member.close();
    assert.deepEqual(member.failures, []);
  },
);
