import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import {
  type Compare,
  Compare_CompareResult as CompareResult,
  Compare_CompareTarget as CompareTarget,
  KVService,
} from "../../../src/proto/etcdserverpb.ts";
import { type InProcess, startInProcess } from "../../harness/in-process.ts";
import { bytes, compare, putOp, rangeOp, text, txn } from "../../server/requests.ts";

const KEYS = 3000;

describe("a read-only transaction that compares ranges", () => {
  let member: InProcess;
  let revision = 0;

  before(async () => {
    member = await startInProcess({ server: { maxTxnOps: KEYS } });
    const ops = Array.from({ length: KEYS }, (_, i) => putOp(`r/${i}`, `value ${i}`));
    revision = (await member.client.unary(KVService.Txn, txn(ops))).header!.revision;
  });
  after(async () => {
    await member.close();
    assert.deepEqual(member.failures, []);
  });

  const ofAll = (fields: Partial<Compare>): Compare => compare("r/", { rangeEnd: bytes("r0"), ...fields });
  const unchanged = (): Compare =>
    ofAll({ target: CompareTarget.MOD, result: CompareResult.EQUAL, modRevision: revision });

  test("is evaluated in slices, all at the revision at which it began, and reads there", async () => {
    const { turns } = member.etcd.server;
    const slicesBefore = turns.slices;
    const compares = Array.from({ length: 200 }, unchanged);
    const asked = member.client.unary(KVService.Txn, txn([rangeOp("r/", "r0"), rangeOp("r/7")], [], compares));
    const written = member.client.unary(KVService.Put, { key: bytes("r/7"), value: bytes("new") });
    const { succeeded, responses, header } = await asked;
    assert.ok((await written).header!.revision > revision);
    assert.equal(succeeded, true);
    assert.equal(header!.revision, revision, "it began before the put");
    const [all, one] = responses.map(({ responseRange }) => responseRange!);
    assert.deepEqual([all!.kvs.length, all!.count, all!.header!.revision], [KEYS, KEYS, revision]);
    assert.deepEqual([text(one!.kvs[0]!.value), one!.count], ["value 7", 1]);
    assert.ok(all!.kvs.every(({ modRevision }) => modRevision === revision));
    assert.ok(turns.slices - slicesBefore >= (200 * KEYS) / 2500);
    const again = await member.client.unary(KVService.Txn, txn([], [rangeOp("r/", "r0", { limit: 1 })], [unchanged()]));
    assert.equal(again.succeeded, false);
    assert.deepEqual(again.responses[0]!.responseRange!.count, KEYS);
  });

  test("is evaluated on the values of a range, and without keys as in etcd", async () => {
    const { EQUAL, NOT_EQUAL } = CompareResult;
    const value = { target: CompareTarget.VALUE, value: bytes("none has it") };
    const none = { rangeEnd: bytes("none0") };
    for (const [expected, ...compares] of [
      [true, ofAll({ ...value, result: NOT_EQUAL })],
      [false, ofAll({ ...value, result: EQUAL })],
      [false, compare("none", { ...none, ...value, result: NOT_EQUAL })],
      [true, compare("none", { ...none, target: CompareTarget.VERSION, version: 0, result: EQUAL })],
      [true, ofAll({ target: CompareTarget.LEASE, lease: 0n, result: EQUAL }), compare("r/1", { version: 1 })],
    ] as const) {
      const { succeeded } = await member.client.unary(KVService.Txn, txn([], [], [...compares]));
      assert.equal(succeeded, expected);
    }
  });
});
