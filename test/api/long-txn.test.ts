// Slow: transactions of thousands of operations.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import {
  CompactionRequest,
  Compare,
  Compare_CompareResult as CompareResult,
  Compare_CompareTarget as CompareTarget,
  DeleteRangeRequest,
  KVService,
  PutRequest,
  RangeRequest,
  type RangeResponse,
  RequestOp,
  RangeRequest_SortOrder as SortOrder,
  RangeRequest_SortTarget as SortTarget,
  TxnRequest,
  type TxnResponse,
} from "../../src/proto/etcdserverpb.ts";
import type { KeyValue } from "../../src/proto/mvccpb.ts";
import { type InProcess, startInProcess } from "../harness/in-process.ts";

const KEYS = 3000;
const bytes = (text: string): Buffer => Buffer.from(text);
const nameOf = (i: number): string => `r/${String(i).padStart(4, "0")}`;
const all = (fields: Partial<RangeRequest> = {}): RequestOp =>
  RequestOp.create({ requestRange: RangeRequest.create({ key: bytes("r/"), rangeEnd: bytes("r0"), ...fields }) });
const put = (key: string, value: string | Buffer, prevKv = false): RequestOp =>
  RequestOp.create({ requestPut: PutRequest.create({ key: bytes(key), value: Buffer.from(value), prevKv }) });
const remove = (from: string, to: string): DeleteRangeRequest =>
  DeleteRangeRequest.create({ key: bytes(from), rangeEnd: bytes(to), prevKv: true });
const shown = (kvs: readonly KeyValue[]): string[] =>
  kvs.map(({ key, value, modRevision }) => `${Buffer.from(key)}=${Buffer.from(value)}@${modRevision}`);

/** The reads of a transaction are made after it, in slices, and must give what they would have given inside. */
describe("a transaction that reads many keys", () => {
  let server: InProcess;
  let revision = 0;

  before(async () => {
    server = await startInProcess({ server: { maxTxnOps: KEYS } });
    const success = Array.from({ length: KEYS }, (_, i) => put(nameOf(i), `value ${i}`));
    revision = (await commit(success)).header!.revision;
  });
  after(() => server.close());

  const commit = (success: RequestOp[]): Promise<TxnResponse> =>
    server.client.unary(KVService.Txn, TxnRequest.create({ success }));
  const initial = (): string[] => Array.from({ length: KEYS }, (_, i) => `${nameOf(i)}=value ${i}@${revision}`);

  test("sees in each read what was written before it, and nothing that comes after", async () => {
    const inner = TxnRequest.create({
      success: [
        RequestOp.create({ requestDeleteRange: remove(nameOf(1000), nameOf(2000)) }),
        all({ sortTarget: SortTarget.MOD, sortOrder: SortOrder.DESCEND, limit: 100 }),
        put("r/last", "inner"),
      ],
    });
    const ops = [
      all(),
      put(nameOf(5), "new", true),
      all({ limit: 70 }),
      all({ keysOnly: true }),
      RequestOp.create({ requestTxn: inner }),
      all({ revision, limit: 90 }),
      all({ countOnly: true }),
      all(),
    ];
    const { responses, succeeded, header } = await commit(ops);
    const at = header!.revision;
    assert.ok(succeeded);
    assert.equal(at, revision + 1);
    const before = initial();
    const changed = before.with(5, `${nameOf(5)}=new@${at}`);
    const ranges = responses.map(({ responseRange }) => responseRange);
    const check = (
      range: RangeResponse | undefined,
      rows: string[],
      count: number,
      more: boolean,
      label: string,
    ): void => {
      assert.deepEqual(shown(range!.kvs), rows, label);
      assert.deepEqual([range!.count, range!.more], [count, more], label);
    };
    check(ranges[0], before, KEYS, false, "before any write");
    assert.equal(ranges[0]!.header!.revision, revision);
    assert.equal(Buffer.from(responses[1]!.responsePut!.prevKv!.value).toString(), "value 5");
    check(ranges[2], changed.slice(0, 70), KEYS, true, "limited");
    assert.deepEqual(
      ranges[3]!.kvs.map(({ modRevision }) => modRevision),
      changed.map((_, i) => (i === 5 ? at : revision)),
    );
    const nested = responses[4]!.responseTxn!;
    assert.equal(nested.responses[0]!.responseDeleteRange!.deleted, 1000);
    assert.deepEqual(shown(nested.responses[0]!.responseDeleteRange!.prevKvs), before.slice(1000, 2000));
    check(
      nested.responses[1]!.responseRange,
      [changed[5]!, ...before.slice(0, 5), ...before.slice(6, 100)],
      2000,
      true,
      "sorted",
    );
    check(ranges[5], before.slice(0, 90), KEYS, true, "at an older revision");
    check(ranges[6], [], 2001, false, "counted");
    check(
      ranges[7],
      [...changed.slice(0, 1000), ...changed.slice(2000), `r/last=inner@${at}`],
      2001,
      false,
      "after all",
    );
    revision = at;
  });

  test("that only reads is answered from one revision, whatever is written and compacted meanwhile", async () => {
    const reading = Array.from({ length: 10 }, () =>
      commit([all(), all({ keysOnly: true }), all({ countOnly: true })]),
    );
    const writing = Array.from({ length: 30 }, (_, i) =>
      server.client.unary(KVService.Put, PutRequest.create({ key: bytes(`r/new${i}`), value: bytes("x") })),
    );
    const last = (await Promise.all(writing)).at(-1)!.header!.revision;
    await server.client.unary(KVService.Compact, CompactionRequest.create({ revision: last, physical: true }));
    for (const { responses, header } of await Promise.all(reading)) {
      const [whole, keys, count] = responses.map(({ responseRange }) => responseRange!);
      assert.equal(whole!.kvs.length, whole!.count);
      assert.equal(keys!.kvs.length, whole!.count);
      assert.equal(count!.count, whole!.count);
      assert.ok(whole!.kvs.every(({ modRevision }) => modRevision <= header!.revision));
    }
  });

  test("that compares ranges of many keys is evaluated and read at one revision, whatever is written meanwhile", async () => {
    const compare = Compare.create({
      key: bytes("r/"),
      rangeEnd: bytes("r0"),
      target: CompareTarget.MOD,
      result: CompareResult.LESS,
      modRevision: 1_000_000,
    });
    const nothing = Compare.create({ ...compare, modRevision: 2 });
    const ask = (compares: Compare[]): Promise<TxnResponse> =>
      server.client.unary(
        KVService.Txn,
        TxnRequest.create({
          compare: compares,
          success: [all({ countOnly: true }), all()],
          failure: [all({ limit: 3 })],
        }),
      );
    const answers = Array.from({ length: 20 }, (_, i) => ask(i % 2 === 0 ? [compare, compare] : [compare, nothing]));
    const writing = Array.from({ length: 30 }, (_, i) =>
      server.client.unary(KVService.Put, PutRequest.create({ key: bytes(`r/more${i}`), value: bytes("x") })),
    );
    await Promise.all(writing);
    for (const [i, { succeeded, responses, header }] of (await Promise.all(answers)).entries()) {
      assert.equal(succeeded, i % 2 === 0);
      if (!succeeded) {
        assert.equal(responses[0]!.responseRange!.kvs.length, 3);
        continue;
      }
      const [counted, whole] = responses.map(({ responseRange }) => responseRange!);
      assert.equal(counted!.count, whole!.kvs.length);
      assert.ok(whole!.kvs.every(({ modRevision }) => modRevision <= header!.revision));
    }
  });

  test("gives the previous values of large puts, and those of a large deletion", async () => {
    const large = Buffer.alloc(100_000, "l");
    await commit([put("p/1", large), put("p/2", large), put("p/3", large), put("p/4", large), put("p/5", large)]);
    const { responses } = await commit([1, 2, 3, 4, 5].map((i) => put(`p/${i}`, "small", true)));
    for (const { responsePut } of responses) assert.ok(large.equals(responsePut!.prevKv!.value));
    const removed = await server.client.unary(KVService.DeleteRange, remove("r/", "r0"));
    assert.equal(removed.prevKvs.length, removed.deleted);
    assert.ok(removed.deleted > 2000);
    assert.equal(removed.header!.revision, responsesRevision(await commit([all()])));
  });

  test("and fails is not answered with a part of it", async () => {
    await assert.rejects(commit([put("p/9", "x"), all({ revision: 2 })]), /required revision has been compacted/);
    assert.equal((await server.client.unary(KVService.Range, RangeRequest.create({ key: bytes("p/9") }))).count, 0);
  });

  const responsesRevision = ({ header }: TxnResponse): number => header!.revision;
});
