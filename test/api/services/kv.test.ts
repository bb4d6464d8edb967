import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import type { RpcError } from "../../../src/client/raw.ts";
import {
  KVService,
  RangeRequest,
  RangeResponse,
  RangeRequest_SortOrder as SortOrder,
  RangeRequest_SortTarget as SortTarget,
} from "../../../src/proto/etcdserverpb.ts";
import type { KeyValue } from "../../../src/proto/mvccpb.ts";
import { type InProcess, startInProcess } from "../../harness/in-process.ts";
import { bytes, putOp, rangeOp, text, txn } from "../../server/requests.ts";

describe("the service KV", () => {
  let server: InProcess;
  before(async () => {
    server = await startInProcess({ server: { maxRequestBytes: 64 * 1024 } });
  });
  after(async () => {
    await server.close();
    assert.deepEqual(server.failures, []);
  });

  const put = (key: string, value: string | Uint8Array = "") =>
    server.client.unary(KVService.Put, { key: bytes(key), value: Buffer.from(value) });
  const fails = (call: Promise<unknown>, code: number, details: string | RegExp) =>
    assert.rejects(call, (error: RpcError) => {
      assert.equal(error.code, code);
      if (typeof details === "string") assert.equal(error.details, details);
      else assert.match(error.details, details);
      return true;
    });

  test("returns cluster, member, revision and term with every answer", async () => {
    const { header } = await put("header");
    const { server: member } = server.etcd;
    assert.deepEqual(header, {
      clusterId: member.cluster.id,
      memberId: member.memberId,
      revision: member.store.currentRevision,
      raftTerm: member.replication.term,
    });
  });

  test("copies stored key-values into a plain answer exactly as an encoder would write them", async () => {
    for (const size of [0, 1, 47, 48, 127, 128, 5000]) await put(`plain${size}`, Buffer.alloc(size, 7));
    const request = { key: bytes("plain"), rangeEnd: bytes("plaio"), limit: 5 };
    const fast = await server.client.unary(KVService.Range, request);
    // The same keys in an order that the fast path does not support.
    const slow = await server.client.unary(KVService.Range, {
      ...request,
      limit: 0,
      sortOrder: SortOrder.ASCEND,
      sortTarget: SortTarget.CREATE,
    });
    const byKey = (a: KeyValue, b: KeyValue): number => Buffer.compare(a.key, b.key);
    assert.deepEqual(fast.kvs, slow.kvs.sort(byKey).slice(0, 5));
    assert.deepEqual([fast.more, fast.count], [true, 7]);
    assert.equal(RangeResponse.decode(RangeResponse.encode(fast)).kvs.length, 5);
  });

  test("refuses a request larger than the limit, before it reaches the log", async () => {
    const { committedIndex } = server.etcd.server.replication;
    await fails(put("large", Buffer.alloc(64 * 1024)), 3, "etcdserver: request is too large");
    assert.equal(server.etcd.server.replication.committedIndex, committedIndex);
    await put("fits", Buffer.alloc(63 * 1024));
  });

  test("serves many writers at once, each with its own revision, in one order", async () => {
    const { header } = await put("many");
    const answers = await Promise.all(Array.from({ length: 500 }, (_, i) => put(`many${i}`)));
    const revisions = answers.map((answer) => answer.header!.revision).sort((a, b) => a - b);
    assert.deepEqual(
      revisions,
      Array.from({ length: 500 }, (_, i) => header!.revision + 1 + i),
    );
  });

  test("serves a read-only transaction without a log entry", async () => {
    await put("read", "only");
    const { committedIndex } = server.etcd.server.replication;
    const response = await server.client.unary(KVService.Txn, txn([rangeOp("read")]));
    assert.equal(text(response.responses[0]!.responseRange!.kvs[0]!.value), "only");
    assert.equal(server.etcd.server.replication.committedIndex, committedIndex);
    await server.client.unary(KVService.Txn, txn([rangeOp("read"), putOp("read", "written")]));
    assert.equal(server.etcd.server.replication.committedIndex, committedIndex + 1);
  });

  test("compacts with and without waiting, and refuses compacted and future revisions", async () => {
    const { header } = await put("compact", "1");
    const { revision } = (await put("compact", "2")).header!;
    await server.client.unary(KVService.Compact, { revision, physical: true });
    await fails(
      server.client.unary(KVService.Compact, { revision }),
      11,
      "etcdserver: mvcc: required revision has been compacted",
    );
    await fails(
      server.client.unary(KVService.Compact, { revision: revision + 100 }),
      11,
      "etcdserver: mvcc: required revision is a future revision",
    );
    await fails(
      server.client.unary(KVService.Range, { key: bytes("compact"), revision: header!.revision }),
      11,
      "etcdserver: mvcc: required revision has been compacted",
    );
    assert.equal((await server.client.unary(KVService.Range, { key: bytes("compact"), revision })).count, 1);
  });

  describe("as a stream of ranges", () => {
    const keys = Array.from({ length: 300 }, (_, i) => `s${String(i).padStart(3, "0")}`);
    before(async () => {
      for (const key of keys) await put(key, Buffer.alloc(1000));
    });

    async function collect(request: Partial<RangeRequest>): Promise<RangeResponse[]> {
      const stream = server.client.stream(KVService.RangeStream);
      await stream.send({ ...RangeRequest.create({ key: bytes("s"), rangeEnd: bytes("t") }), ...request });
      stream.end();
      const pieces: RangeResponse[] = [];
      for await (const { rangeResponse } of stream) pieces.push(rangeResponse!);
      return pieces;
    }
    const keysOf = (pieces: RangeResponse[]): string[] => pieces.flatMap(({ kvs }) => kvs.map(({ key }) => text(key)));

    test("returns everything in several pieces, the last of which has header and count", async () => {
      const pieces = await collect({});
      assert.deepEqual(keysOf(pieces), keys);
      assert.ok(pieces.length > 3 && pieces.length < 60, `${pieces.length} pieces`);
      const last = pieces.at(-1)!;
      assert.equal(last.count, keys.length);
      assert.equal(last.more, false);
      assert.ok(last.header!.revision > 0);
      assert.ok(pieces.slice(0, -1).every(({ header }) => header === undefined));
    });

    test("is in the order of a target other than the key when no order is given", async () => {
      const one = await collect({ sortTarget: SortTarget.MOD });
      assert.deepEqual(keysOf(one), keys);
      const latest = (await put("s100", Buffer.alloc(1000))).header!.revision;
      const changed = await collect({ sortTarget: SortTarget.MOD });
      assert.deepEqual(keysOf(changed), [...keys.filter((key) => key !== "s100"), "s100"]);
      assert.deepEqual([changed.at(-1)!.count, changed.at(-1)!.header!.revision], [keys.length, latest]);
    });

    test("stays at the revision that it began with, whatever is written meanwhile", async () => {
      const stream = server.client.stream(KVService.RangeStream);
      await stream.send(RangeRequest.create({ key: bytes("s"), rangeEnd: bytes("t") }));
      stream.end();
      const seen: KeyValue[] = [];
      let revision = 0;
      for await (const { rangeResponse } of stream) {
        if (seen.length === 0) revision = (await put("s299", "changed")).header!.revision;
        seen.push(...rangeResponse!.kvs);
      }
      assert.equal(seen.length, keys.length);
      assert.ok(seen.every((kv) => kv.modRevision < revision) || text(seen.at(-1)!.value) === "changed");
    });

    test("respects the limit, and reports whether there is more", async () => {
      const pieces = await collect({ limit: 25 });
      assert.deepEqual(keysOf(pieces), keys.slice(0, 25));
      assert.deepEqual([pieces.at(-1)!.more, pieces.at(-1)!.count], [true, keys.length]);
    });

    test("can be of one key, of none, of keys alone, and count only", async () => {
      assert.deepEqual(keysOf(await collect({ key: bytes("s001"), rangeEnd: Buffer.alloc(0) })), ["s001"]);
      const none = await collect({ key: bytes("none"), rangeEnd: Buffer.alloc(0) });
      assert.deepEqual([none.length, none[0]!.count], [1, 0]);
      assert.ok((await collect({ keysOnly: true })).flatMap(({ kvs }) => kvs).every(({ value }) => value.length === 0));
      const [counted] = await collect({ countOnly: true });
      assert.deepEqual([counted!.count, counted!.kvs.length], [keys.length, 0]);
    });

    test("refuses other orders, filters, and revisions that do not exist", async () => {
      await fails(collect({ sortOrder: SortOrder.DESCEND }), 12, /custom sort orders/);
      await fails(collect({ minModRevision: 1 }), 12, /revision filters/);
      await fails(collect({ revision: 1_000_000 }), 11, "etcdserver: mvcc: required revision is a future revision");
      await fails(collect({ key: Buffer.alloc(0) }), 3, "etcdserver: key is not provided");
    });

    test("stops when its client does", async () => {
      const stream = server.client.stream(KVService.RangeStream);
      await stream.send(RangeRequest.create({ key: bytes("s"), rangeEnd: bytes("t") }));
      stream.cancel();
      await put("after", "cancel");
    });
  });
});
