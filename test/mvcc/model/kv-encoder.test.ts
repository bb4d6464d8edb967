import assert from "node:assert/strict";
import { test } from "node:test";
import { InvariantError } from "../../../src/base/fatal.ts";
import { KvEncoder } from "../../../src/mvcc/model/kv-encoder.ts";
import { headerKey, kvHeader, readKvHeader } from "../../../src/mvcc/model/kv-header.ts";
import { isTombstone, mainOf, revisionBytes, subOf } from "../../../src/mvcc/model/revision.ts";
import { RevisionSet } from "../../../src/mvcc/model/revision-set.ts";
import { toByteString } from "../../../src/mvcc/model/types.ts";
import { KeyValue } from "../../../src/proto/mvccpb.ts";
import { SeededRandom } from "../model.ts";

test("a key-value pair is encoded as the generated codec does, and read back without one", () => {
  const random = new SeededRandom(5);
  const encoder = new KvEncoder();
  const header = kvHeader();
  const kept: { bytes: Buffer; start: number; end: number; expected: Buffer }[] = [];
  const numbers = [
    1,
    127,
    128,
    16383,
    16384,
    2 ** 31 - 1,
    2 ** 31,
    2 ** 32 - 1,
    2 ** 32,
    2 ** 35 + 5,
    Number.MAX_SAFE_INTEGER,
  ];
  const leases = [0n, 1n, 127n, 128n, 2n ** 31n, 2n ** 63n - 1n, -1n, -(2n ** 63n)];
  for (let i = 0; i < 3000; i++) {
    const key = Buffer.alloc(1 + random.below(random.below(10) === 0 ? 1000 : 60), random.below(256));
    const value = Buffer.alloc(random.below(random.below(300) === 0 ? 600_000 : 400), random.below(256));
    const [createRevision, modRevision, version] = [random.pick(numbers), random.pick(numbers), random.pick(numbers)];
    const lease = random.pick(leases);
    if (random.below(4) === 0) encoder.tombstone(key, 0, key.length);
    else encoder.put(key, createRevision, modRevision, version, value, lease);
    const { bytes, start, end } = encoder;
    const decoded = KeyValue.decode(bytes, start, end);
    const expected = KeyValue.encode(
      decoded.version === 0
        ? KeyValue.create({ key })
        : KeyValue.create({ key, createRevision, modRevision, version, value, lease }),
    );
    kept.push({ bytes, start, end, expected });
    assert.ok(key.equals(bytes.subarray(encoder.keyStart, encoder.keyEnd)));
    readKvHeader(bytes, start, end, header);
    assert.equal(headerKey(bytes, header), toByteString(key));
    const { createRevision: created, version: versionRead, lease: leaseRead } = header;
    assert.deepEqual([created, versionRead, leaseRead], [decoded.createRevision, decoded.version, decoded.lease]);
  }
  // Encoded bytes do not change, whatever is encoded after them.
  for (const { bytes, start, end, expected } of kept) assert.ok(expected.equals(bytes.subarray(start, end)));
});

test("bytes that are not a key-value pair are refused", () => {
  const header = kvHeader();
  for (const hex of ["0a05", "0a0141ff", "2aff01", "0a01411080", "1a0141", "0a014118ffffffffffffffffffffff01"]) {
    const bytes = Buffer.from(hex, "hex");
    assert.throws(() => readKvHeader(bytes, 0, bytes.length, header), InvariantError, hex);
  }
});

test("revisions have etcd's bytes", () => {
  assert.equal(revisionBytes(1, 2).toString("hex"), "00000000000000015f0000000000000002");
  assert.equal(revisionBytes(2 ** 40 + 7, 2 ** 33, true).toString("hex"), "00000100000000075f000000020000000074");
  for (const main of [0, 1, 255, 2 ** 31, 2 ** 32 - 1, 2 ** 32, Number.MAX_SAFE_INTEGER]) {
    const bytes = revisionBytes(main, main, true);
    assert.deepEqual([mainOf(bytes), subOf(bytes), isTombstone(bytes)], [main, main, true]);
    assert.equal(isTombstone(revisionBytes(main, 0)), false);
  }
  assert.throws(() => mainOf(Buffer.alloc(17)), InvariantError);
  assert.throws(() => mainOf(Buffer.from("short")), InvariantError);
});

test("a revision set answers for what was added, queried in ascending and any other order", () => {
  const random = new SeededRandom(9);
  const set = new RevisionSet();
  const model = new Set<string>();
  for (let i = 0; i < 5000; i++) {
    const main = random.below(50_000) * (random.below(50) === 0 ? 1e9 : 1);
    const sub = random.below(3);
    if (model.has(`${main}.${sub}`)) continue;
    model.add(`${main}.${sub}`);
    set.add(main, sub);
  }
  assert.equal(set.size, model.size);
  for (let main = 0; main < 50_000; main++) {
    for (let sub = 0; sub < 3; sub++) assert.equal(set.has(main, sub), model.has(`${main}.${sub}`));
  }
  for (const name of model) assert.ok(set.has(...(name.split(".").map(Number) as [number, number])));
});
