import assert from "node:assert/strict";
import { beforeEach, describe, test } from "node:test";
import { systemClock } from "../../../src/base/clock.ts";
import { nullLogger } from "../../../src/base/log.ts";
import { Lessor } from "../../../src/lease/lessor.ts";
import { MvccStore } from "../../../src/mvcc/store/store.ts";
import {
  type Compare,
  Compare_CompareResult as CompareResult,
  Compare_CompareTarget as CompareTarget,
  type PutRequest,
  type TxnRequest,
  type TxnResponse,
} from "../../../src/proto/etcdserverpb.ts";
import { decidePath } from "../../../src/server/apply/compare.ts";
import { ResponseReads } from "../../../src/server/apply/response-reads.ts";
import {
  checkPath,
  executeDeleteRange,
  executePut,
  executeReadOnlyTxn,
  executeTxn,
  isReadOnly,
  isSerializable,
} from "../../../src/server/apply/txn.ts";
import { type EtcdError, errors } from "../../../src/server/contract/errors.ts";
import { READ_SLICE } from "../../../src/server/contract/options.ts";
import { MemoryBackend } from "../../harness/memory-backend.ts";

const WHOLE = new ResponseReads(false, READ_SLICE);

import {
  bytes,
  compare,
  put,
  putOp,
  range,
  rangeOp,
  remove,
  removeOp,
  text,
  txn,
  txnOp,
  valueIs,
} from "../requests.ts";

describe("transactions", () => {
  let store: MvccStore;
  let lessor: Lessor;

  beforeEach(async () => {
    const backend = new MemoryBackend({ clock: systemClock });
    lessor = new Lessor({
      clock: systemClock,
      logger: nullLogger,
      backend,
      minTtl: 1,
      expiredRetryIntervalMs: 1000,
      persistCheckpoints: () => false,
      onExpired: () => {},
    });
    store = await MvccStore.open({ backend, clock: systemClock, logger: nullLogger, leases: lessor });
  });

  function write(request: PutRequest) {
    const open = store.begin();
    const response = executePut(open, request, WHOLE);
    open.end();
    return response;
  }

  function run(request: TxnRequest): TxnResponse | EtcdError {
    const path = decidePath(store, request);
    const error = checkPath(store, lessor, request, path);
    if (error !== null) return error;
    const open = store.begin();
    const response = executeTxn(open, request, path, WHOLE);
    open.end();
    return response;
  }

  const holds = (...compares: Compare[]): boolean => (run(txn([], [], compares)) as TxnResponse).succeeded;
  const stored = (key: string): string | undefined => {
    const kv = store.rangeDecoded(bytes(key), null, { revision: 0, limit: 0, countOnly: false }).kvs[0];
    return kv === undefined ? undefined : text(kv.value);
  };

  test("without comparisons the success branch is taken", () => {
    assert.equal(holds(), true);
  });

  test("a comparison of each target and result is evaluated on the key's current state", () => {
    write(put("a", "1"));
    write(put("a", "2"));
    const { GREATER, LESS, EQUAL, NOT_EQUAL } = CompareResult;
    const cases: [Partial<Compare>, boolean][] = [
      [{ target: CompareTarget.VERSION, result: EQUAL, version: 2 }, true],
      [{ target: CompareTarget.VERSION, result: NOT_EQUAL, version: 2 }, false],
      [{ target: CompareTarget.CREATE, result: LESS, createRevision: 3 }, true],
      [{ target: CompareTarget.CREATE, result: LESS, createRevision: 2 }, false],
      [{ target: CompareTarget.MOD, result: GREATER, modRevision: 2 }, true],
      [{ target: CompareTarget.MOD, result: GREATER, modRevision: 3 }, false],
      [{ target: CompareTarget.VALUE, result: GREATER, value: bytes("1") }, true],
      [{ target: CompareTarget.VALUE, result: LESS, value: bytes("10") }, false],
      [{ target: CompareTarget.LEASE, result: EQUAL, lease: 0n }, true],
      [{ target: CompareTarget.LEASE, result: GREATER, lease: 0n }, false],
    ];
    for (const [fields, expected] of cases)
      assert.equal(
        holds(compare("a", fields)),
        expected,
        JSON.stringify(fields, (_, v) => (typeof v === "bigint" ? `${v}` : v)),
      );
  });

  test("a missing key has version 0 and no value to compare with", () => {
    const absent = { target: CompareTarget.VERSION, result: CompareResult.EQUAL, version: 0 };
    assert.equal(holds(compare("none", absent)), true);
    assert.equal(holds(valueIs("none", "")), false);
    assert.equal(holds(valueIs("none", "x", CompareResult.NOT_EQUAL)), false);
  });

  test("a comparison of a range must hold for each of its keys", () => {
    write(put("a1", "x"));
    write(put("a2", "x"));
    const all = { ...valueIs("a", "x"), rangeEnd: bytes("b") };
    assert.equal(holds(all), true);
    write(put("a3", "y"));
    assert.equal(holds(all), false);
  });

  test("all writes of a transaction share one revision, and reads see the writes before them", () => {
    write(put("a", "old"));
    const response = run(
      txn([rangeOp("a"), putOp("a", "new"), rangeOp("a"), putOp("b", "new"), removeOp("a"), rangeOp("a")]),
    ) as TxnResponse;
    assert.equal(response.header!.revision, 3);
    const values = response.responses.map((r) => r.responseRange?.kvs.map((kv) => text(kv.value)));
    assert.deepEqual(values, [["old"], undefined, ["new"], undefined, undefined, []]);
    assert.equal(response.responses[4]!.responseDeleteRange!.deleted, 1);
  });

  test("nested comparisons are decided before any write", () => {
    write(put("a", "old"));
    const nested = txn([putOp("b", "nested saw old")], [putOp("b", "nested saw new")], [valueIs("a", "old")]);
    run(txn([putOp("a", "new"), txnOp(nested)]));
    assert.equal(stored("b"), "nested saw old");
  });

  test("a branch that cannot succeed changes nothing", () => {
    const before = store.currentRevision;
    assert.equal(run(txn([putOp("a", "1"), putOp("b", "", { ignoreValue: true })])), errors.keyNotFound);
    assert.equal(run(txn([putOp("a", "1"), putOp("b", "2", { lease: 5n })])), errors.leaseNotFound);
    assert.equal(run(txn([putOp("a", "1"), rangeOp("a", "", { revision: 99 })])), errors.futureRevision);
    assert.equal(store.currentRevision, before);
    assert.equal(stored("a"), undefined);
  });

  test("the operations of the branch not taken do not matter", () => {
    const response = run(txn([putOp("a", "1")], [putOp("b", "", { lease: 5n })]));
    assert.equal((response as TxnResponse).succeeded, true);
  });

  test("a read below the compact revision fails the whole transaction", async () => {
    write(put("a", "1"));
    write(put("a", "2"));
    write(put("a", "3"));
    await store.compact(3);
    assert.equal(run(txn([putOp("b"), rangeOp("a", "", { revision: 2 })])), errors.compacted);
    assert.equal(stored("b"), undefined);
  });

  test("a put can keep the value, keep the lease, and return the previous value", () => {
    lessor.grant(7n, 100);
    write(put("a", "1", { lease: 7n }));
    const kept = write(put("a", "", { ignoreValue: true, prevKv: true }));
    assert.equal(text(kept.prevKv!.value), "1");
    assert.equal(stored("a"), "1");
    assert.equal(lessor.keysOf(7n).length, 0, "the new put had no lease");
    write(put("a", "2", { lease: 7n }));
    write(put("a", "3", { ignoreLease: true }));
    assert.deepEqual(lessor.keysOf(7n), ["a"]);
    assert.equal(write(put("new", "1", { prevKv: true })).prevKv, undefined);
  });

  test("a deletion returns how many keys it deleted, and which on request", () => {
    for (const key of ["a", "b", "c"]) write(put(key, key));
    const open = store.begin();
    const response = executeDeleteRange(open, remove("a", "c", { prevKv: true }), WHOLE);
    open.end();
    assert.equal(response.deleted, 2);
    assert.deepEqual(
      response.prevKvs.map((kv) => text(kv.key)),
      ["a", "b"],
    );
    assert.equal(response.header!.revision, 5);
  });

  test("a write whose response is not needed is made without reads", () => {
    for (const key of ["a", "b", "c"]) write(put(key, key));
    const inner = txn([rangeOp("a", "z"), putOp("a", "inner", { prevKv: true })]);
    const request = txn([
      rangeOp("a", "z"),
      txnOp(inner),
      removeOp("b", "c", { prevKv: true }),
      putOp("c", "", { ignoreValue: true, lease: 0n }),
    ]);
    const path = decidePath(store, request);
    assert.equal(checkPath(store, lessor, request, path), null);
    const open = store.begin();
    const reads: string[] = [];
    for (const name of ["range", "rangeKeys", "rangeDecoded"] as const) {
      const original = open[name].bind(open) as (key: Uint8Array, ...rest: unknown[]) => unknown;
      const recording = (key: Uint8Array, ...rest: unknown[]): unknown => {
        reads.push(text(key));
        return original(key, ...rest);
      };
      Object.assign(open, { [name]: recording });
    }
    executeTxn(open, request, path, null);
    open.end();
    assert.deepEqual(reads, ["c"], "the value that is kept has to be known");
    assert.deepEqual([stored("a"), stored("b"), stored("c")], ["inner", undefined, "c"]);
  });

  test("a read-only transaction needs no write, and knows what it may serve from stale state", () => {
    write(put("a", "1"));
    const request = txn([rangeOp("a")]);
    assert.equal(isReadOnly(request), true);
    assert.equal(isReadOnly(txn([rangeOp("a")], [removeOp("a")])), false);
    assert.equal(isReadOnly(txn([txnOp(txn([rangeOp("a")]))])), false, "a nested one goes through the log");
    assert.equal(isSerializable(request), false);
    assert.equal(isSerializable(txn([rangeOp("a", "", { serializable: true })])), true);
    const response = executeReadOnlyTxn(store, request, decidePath(store, request), WHOLE);
    assert.equal(response.header!.revision, 2);
    assert.equal(text(response.responses[0]!.responseRange!.kvs[0]!.value), "1");
    assert.equal(range("a").serializable, false);
  });
});
