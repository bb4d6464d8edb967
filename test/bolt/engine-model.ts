import assert from "node:assert/strict";
import type { Disk } from "../../src/base/disk.ts";
import { checkBolt } from "../../src/bolt/check.ts";
import { BoltEngine, openBoltFile } from "../../src/bolt/engine.ts";
import { BoltReader } from "../../src/bolt/reader.ts";
import type { WriteTransaction } from "../../src/bolt/transaction.ts";
import type { SeededRandom } from "../harness/random.ts";

/** The expected content of a file: buckets by name, entries by key, as latin1. */
export type Model = Map<string, Map<string, string>>;

export function copyOf(model: Model): Model {
  return new Map([...model].map(([name, entries]) => [name, new Map(entries)]));
}

export function openEngine(disk: Disk, path: string): BoltEngine {
  const { file, meta } = openBoltFile(disk, path);
  return new BoltEngine(file, meta);
}

/** Puts into both the transaction and the model. */
export function put(transaction: WriteTransaction, model: Model, bucket: string, key: string, value: string): void {
  const bytes = Buffer.from(key + value, "latin1");
  transaction.bucket(bucket, bucket === "key").put(bytes, 0, key.length, bytes.length);
  entriesOf(model, bucket).set(key, value);
}

export function remove(transaction: WriteTransaction, model: Model, bucket: string, key: string): void {
  const bytes = Buffer.from(key, "latin1");
  const isThere = transaction.bucket(bucket, bucket === "key").delete(bytes, 0, bytes.length);
  assert.equal(isThere, entriesOf(model, bucket).delete(key));
}

export function entriesOf(model: Model, bucket: string): Map<string, string> {
  let entries = model.get(bucket);
  if (entries === undefined) model.set(bucket, (entries = new Map()));
  return entries;
}

/** Keys like etcd's revisions, for an increasing number. */
export function revisionKey(number: number): string {
  const key = Buffer.alloc(17);
  key.writeUInt32BE(number >>> 3, 4);
  key[8] = 0x5f;
  key.writeUInt32BE(number & 7, 13);
  return key.toString("latin1");
}

/** A transaction like a store's, and worse: rows appended, rows thinned out, small buckets, values of all sizes. */
export function randomChanges(random: SeededRandom, transaction: WriteTransaction, model: Model, next: number): number {
  const kind = random.below(10);
  const rows = entriesOf(model, "key");
  const appended = kind < 7 ? random.below(random.pick([3, 40, 400])) : 0;
  for (let i = 0; i < appended; i++) {
    const length = random.below(40) === 0 ? random.below(30_000) : random.below(random.pick([8, 300, 1200]));
    put(transaction, model, "key", revisionKey(next++), String.fromCharCode(65 + (next % 26)).repeat(length));
  }
  if (kind >= 5) {
    const keys = [...rows.keys()];
    const from = random.below(keys.length + 1);
    const part = keys.slice(from, from + random.below(random.pick([10, 600, 6000])));
    const share = random.pick([0.2, 0.9, 1]);
    for (const key of part) if (random.chance(share)) remove(transaction, model, "key", key);
    remove(transaction, model, "key", "not there");
  }
  for (let i = random.below(12); i > 0; i--) {
    const bucket = random.pick(["lease", "meta", "auth", "authUsers"]);
    const key = `k${random.below(random.pick([5, 400]))}${"x".repeat(random.below(4) === 0 ? random.below(2500) : 0)}`;
    const entries = entriesOf(model, bucket);
    const other = entries.size > 0 && random.chance(0.45) ? [...entries.keys()][random.below(entries.size)] : undefined;
    if (other !== undefined) remove(transaction, model, bucket, other);
    else put(transaction, model, bucket, key, "v".repeat(random.below(random.pick([20, 900, 9000]))));
  }
  if (random.below(25) === 0) {
    for (const key of [...entriesOf(model, "lease").keys()]) remove(transaction, model, "lease", key);
  }
  return next;
}

/** Checks the file's content, and that its pages are valid. */
export function readModel(disk: Disk, path: string): Model {
  const reader = new BoltReader({ disk, path });
  try {
    assert.deepEqual([...checkBolt(reader)], []);
    const model: Model = new Map();
    for (const { name, bucket } of reader.root.buckets()) {
      const entries = entriesOf(model, name.toString());
      for (const { key, value } of bucket.entries()) {
        entries.set(Buffer.from(key).toString("latin1"), Buffer.from(value).toString("latin1"));
      }
    }
    return model;
  } finally {
    reader.close();
  }
}

export function isSame(a: Model, b: Model): boolean {
  const names = new Set([...a.keys(), ...b.keys()]);
  for (const name of names) {
    const left = a.get(name) ?? new Map<string, string>();
    const right = b.get(name) ?? new Map<string, string>();
    if (left.size !== right.size) return false;
    for (const [key, value] of left) if (right.get(key) !== value) return false;
  }
  return true;
}
