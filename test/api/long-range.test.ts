// Slow: lists of thousands of keys, many times over.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import {
  CompactionRequest,
  KVService,
  PutRequest,
  RangeRequest,
  type RangeResponse,
  RequestOp,
  RangeRequest_SortOrder as SortOrder,
  RangeRequest_SortTarget as SortTarget,
  TxnRequest,
} from "../../src/proto/etcdserverpb.ts";
import { type InProcess, startInProcess } from "../harness/in-process.ts";

const KEYS = 6000;
const bytes = (text: string): Buffer => Buffer.from(text);

/** Ranges that take more than one turn must give the same answers as short ones, for any request. */
describe("a range of many keys", () => {
  let server: InProcess;
  /** The store's content, ascending by key. */
  const rows: { key: string; value: string; create: number; mod: number; version: number }[] = [];
  let oldRevision = 0;

  before(async () => {
    server = await startInProcess({ server: { maxTxnOps: 1000 } });
    let revision = 1;
    for (let from = 0; from < KEYS; from += 1000) {
      const success: RequestOp[] = [];
      for (let i = from; i < from + 1000; i++) {
        const key = `r/${String(i).padStart(5, "0")}`;
        const value = `${(i * 7919) % 1009}`.padStart(40, "v");
        success.push(RequestOp.create({ requestPut: PutRequest.create({ key: bytes(key), value: bytes(value) }) }));
        rows.push({ key, value, create: from / 1000 + 2, mod: from / 1000 + 2, version: 1 });
      }
      revision = (await server.client.unary(KVService.Txn, TxnRequest.create({ success }))).header!.revision;
    }
    for (let i = 0; i < 50; i++) {
      const row = rows[(i * 131) % KEYS]!;
      row.value = `changed ${i}`;
      row.version++;
      row.mod = (
        await server.client.unary(KVService.Put, PutRequest.create({ key: bytes(row.key), value: bytes(row.value) }))
      ).header!.revision;
    }
    oldRevision = revision;
  });
  after(() => server.close());

  const ask = (fields: Partial<RangeRequest>): Promise<RangeResponse> =>
    server.client.unary(KVService.Range, RangeRequest.create({ key: bytes("r/"), rangeEnd: bytes("r0"), ...fields }));
  const keysOf = ({ kvs }: RangeResponse): string[] => kvs.map(({ key }) => Buffer.from(key).toString());

  test("is complete and in order", async () => {
    const response = await ask({});
    assert.deepEqual(
      response.kvs.map((kv) => ({
        key: Buffer.from(kv.key).toString(),
        value: Buffer.from(kv.value).toString(),
        create: kv.createRevision,
        mod: kv.modRevision,
        version: kv.version,
      })),
      rows,
    );
    assert.deepEqual([response.count, response.more], [KEYS, false]);
  });

  test("respects the limit and reports whether there is more, at every limit", async () => {
    for (const limit of [1, 999, 1000, 1001, 2500, KEYS - 1, KEYS, KEYS + 1]) {
      const response = await ask({ limit });
      assert.equal(response.kvs.length, Math.min(limit, KEYS));
      assert.deepEqual([response.count, response.more], [KEYS, limit < KEYS], `limit ${limit}`);
    }
  });

  test("is counted without being read", async () => {
    assert.deepEqual([(await ask({ countOnly: true })).count, (await ask({ countOnly: true })).kvs.length], [KEYS, 0]);
    const old = await ask({ countOnly: true, revision: 3 });
    assert.deepEqual([old.count, old.kvs.length, old.more], [2000, 0, false]);
  });

  test("at an older revision has its rows, its count and its limit", async () => {
    const response = await ask({ revision: oldRevision });
    assert.equal(response.kvs.length, KEYS);
    assert.ok(response.kvs.every((kv) => kv.version === 1));
    for (const limit of [1, 1500, 1999, 2000, 2001]) {
      const limited = await ask({ revision: 3, limit });
      assert.equal(limited.kvs.length, Math.min(2000, limit));
      assert.deepEqual([limited.count, limited.more], [2000, limit < 2000], `limit ${limit}`);
    }
  });

  test("of keys alone has no values", async () => {
    const response = await ask({ keysOnly: true });
    assert.deepEqual(
      keysOf(response),
      rows.map(({ key }) => key),
    );
    assert.deepEqual(
      response.kvs.map((kv) => [kv.createRevision, kv.modRevision, kv.version, kv.value.length]),
      rows.map((r) => [r.create, r.mod, r.version, 0]),
    );
  });

  test("is sorted by every target, in both orders, with and without a limit", async () => {
    const by = {
      [SortTarget.VERSION]: (r: (typeof rows)[number]) => r.version,
      [SortTarget.CREATE]: (r: (typeof rows)[number]) => r.create,
      [SortTarget.MOD]: (r: (typeof rows)[number]) => r.mod,
      [SortTarget.VALUE]: (r: (typeof rows)[number]) => r.value,
      [SortTarget.KEY]: (r: (typeof rows)[number]) => r.key,
    };
    for (const [target, of] of Object.entries(by)) {
      for (const sortOrder of [SortOrder.ASCEND, SortOrder.DESCEND]) {
        const sign = sortOrder === SortOrder.ASCEND ? 1 : -1;
        const compare = (a: number | string, b: number | string): number => (a < b ? -sign : a > b ? sign : 0);
        const expected = [...rows].sort((a, b) => compare(of(a), of(b))).map(({ key }) => key);
        for (const limit of [0, 1, 1200, KEYS]) {
          for (const keysOnly of [false, true]) {
            const response = await ask({ sortTarget: Number(target) as SortTarget, sortOrder, limit, keysOnly });
            const label = `target ${target}, order ${sortOrder}, limit ${limit}, keys only ${keysOnly}`;
            assert.deepEqual(keysOf(response), expected.slice(0, limit || KEYS), label);
            assert.deepEqual([response.count, response.more], [KEYS, limit > 0 && limit < KEYS], label);
            assert.ok(!keysOnly || response.kvs.every(({ value }) => value.length === 0), label);
          }
        }
      }
    }
  });

  test("without an order takes the first keys and sorts only those", async () => {
    const response = await ask({ sortTarget: SortTarget.VALUE, limit: 1100 });
    // One key more than the limit takes part, which shows whether there are more.
    const first = rows.slice(0, 1101).sort((a, b) => (a.value < b.value ? -1 : a.value > b.value ? 1 : 0));
    assert.deepEqual(
      keysOf(response),
      first.slice(0, 1100).map(({ key }) => key),
    );
    assert.deepEqual([response.count, response.more], [KEYS, true]);
  });

  test("is filtered by revisions before the limit counts", async () => {
    const changed = rows.filter(({ mod }) => mod > oldRevision);
    const response = await ask({ minModRevision: oldRevision + 1 });
    assert.deepEqual(
      keysOf(response),
      changed.map(({ key }) => key),
    );
    assert.deepEqual([response.count, response.more], [KEYS, false]);
    const limited = await ask({
      minModRevision: oldRevision + 1,
      limit: 10,
      sortTarget: SortTarget.MOD,
      sortOrder: SortOrder.DESCEND,
    });
    assert.deepEqual(
      keysOf(limited),
      [...changed]
        .sort((a, b) => b.mod - a.mod)
        .slice(0, 10)
        .map(({ key }) => key),
    );
    assert.deepEqual([limited.count, limited.more], [KEYS, true]);
    const created = await ask({ maxCreateRevision: 3, limit: 1999 });
    assert.deepEqual([created.kvs.length, created.count, created.more], [1999, KEYS, true]);
  });

  test("is of one revision although keys are written and a compaction happens while it is read", async () => {
    const answers = Array.from({ length: 20 }, () => ask({}));
    const writes = [];
    for (let i = 0; i < 40; i++) {
      writes.push(
        server.client.unary(KVService.Put, PutRequest.create({ key: bytes(`r/x${i}`), value: bytes("new") })),
      );
    }
    const last = (await Promise.all(writes)).at(-1)!.header!.revision;
    await server.client.unary(KVService.Compact, CompactionRequest.create({ revision: last, physical: true }));
    for (const answer of await Promise.all(answers)) {
      const latest = Math.max(...answer.kvs.map((kv) => kv.modRevision));
      assert.ok(latest <= answer.header!.revision);
      assert.equal(answer.kvs.filter(({ modRevision }) => modRevision > oldRevision + 50).length, answer.count - KEYS);
      assert.equal(answer.kvs.length, answer.count);
    }
  });

  test("at a compacted or future revision fails", async () => {
    await assert.rejects(ask({ revision: 2, sortTarget: SortTarget.MOD }), /required revision has been compacted/);
    await assert.rejects(ask({ revision: 1_000_000, keysOnly: true }), /required revision is a future revision/);
  });
});
