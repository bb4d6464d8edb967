// Slow: a store of so many keys that reading them takes several turns.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { KVService, PutRequest, RequestOp, TxnRequest } from "../../src/proto/etcdserverpb.ts";
import { type InProcess, startInProcess } from "../harness/in-process.ts";

const KEYS = 4500;
const PER_TXN = 100;
let server: InProcess;

const keyOf = (i: number): Buffer => Buffer.from(`key-${String(i).padStart(5, "0")}`);
const everything = { key: Buffer.from([0]), rangeEnd: Buffer.from([0]) };

async function putAll(value: string): Promise<number> {
  let revision = 0;
  for (let first = 0; first < KEYS; first += PER_TXN) {
    const success = Array.from({ length: PER_TXN }, (_, i) =>
      RequestOp.create({ requestPut: PutRequest.create({ key: keyOf(first + i), value: Buffer.from(value) }) }),
    );
    const response = await server.client.unary(KVService.Txn, TxnRequest.create({ success }));
    revision = response.header!.revision;
  }
  return revision;
}

let firstRevision = 0;
before(async () => {
  server = await startInProcess();
  firstRevision = await putAll("old");
  await putAll("new");
});
after(() => server.close());

function assertKeys(kvs: readonly { key: Uint8Array; value: Uint8Array }[], count: number, value: string): void {
  assert.equal(kvs.length, count);
  for (const [i, kv] of kvs.entries()) {
    assert.equal(Buffer.from(kv.key).toString(), keyOf(i).toString());
    assert.equal(Buffer.from(kv.value).toString(), value);
  }
}

test("a range of more keys than a slice has them all, once, in order", async () => {
  const response = await server.client.unary(KVService.Range, everything);
  assertKeys(response.kvs, KEYS, "new");
  assert.equal(response.count, KEYS);
  assert.equal(response.more, false);
});

test("a limit larger than a slice cuts the range and still counts all of it", async () => {
  const response = await server.client.unary(KVService.Range, { ...everything, limit: 2500 });
  assertKeys(response.kvs, 2500, "new");
  assert.equal(response.count, KEYS);
  assert.equal(response.more, true);
});

test("an older revision is read and counted in slices too", async () => {
  const all = await server.client.unary(KVService.Range, { ...everything, revision: firstRevision });
  assertKeys(all.kvs, KEYS, "old");
  assert.equal(all.count, KEYS);
  const some = await server.client.unary(KVService.Range, { ...everything, revision: firstRevision, limit: 1001 });
  assertKeys(some.kvs, 1001, "old");
  assert.equal(some.count, KEYS);
  assert.equal(some.more, true);
});

test("a limit of exactly the number of keys leaves nothing more", async () => {
  const response = await server.client.unary(KVService.Range, { ...everything, limit: KEYS });
  assertKeys(response.kvs, KEYS, "new");
  assert.equal(response.more, false);
});

test("a range stays at the revision of its first slice while others write", async () => {
  const [range] = await Promise.all([
    server.client.unary(KVService.Range, everything),
    ...Array.from({ length: 50 }, (_, i) =>
      server.client.unary(KVService.Put, { key: keyOf(KEYS - 1 - i), value: Buffer.from("later") }),
    ),
  ]);
  assert.equal(range.kvs.length, KEYS);
  const revisions = range.kvs.map((kv) => kv.modRevision);
  assert.ok(Math.max(...revisions) <= range.header!.revision);
});
