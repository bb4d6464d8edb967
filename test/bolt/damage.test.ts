import assert from "node:assert/strict";
import { test } from "node:test";
import { BoltEngine, createBoltFile, openBoltFile } from "../../src/bolt/engine.ts";
import { BoltError, BRANCH_PAGE, LEAF_PAGE } from "../../src/bolt/format.ts";
import { PageCache } from "../../src/bolt/page-cache.ts";
import { findMeta, PageFile } from "../../src/bolt/page-file.ts";
import { StateReader, seekKey } from "../../src/bolt/state-reader.ts";
import { rounds } from "../harness/fast.ts";
import { seeded } from "../harness/random.ts";
import { SimDisk } from "../sim/disk.ts";
import { type Model, openEngine, put, remove, revisionKey } from "./engine-model.ts";

const PAGE = 1024;
const PATH = "/d/db";

/** A file with a tree of several levels, a small bucket with its own pages, an inline one, and free pages. */
function sample(writeFreeList: boolean): SimDisk {
  const disk = new SimDisk();
  disk.makeDir("/d");
  createBoltFile(disk, PATH, { pageSize: PAGE });
  const engine = openEngine(disk, PATH);
  const model: Model = new Map();
  for (let round = 0; round < 4; round++) {
    const transaction = engine.begin();
    for (let i = 0; i < 500; i++) put(transaction, model, "key", revisionKey(16 + round * 500 + i), "v".repeat(i % 90));
    for (let i = 0; i < 100; i++) put(transaction, model, "lease", `lease${i}`, "x".repeat(i === 7 ? 5000 : 20));
    put(transaction, model, "meta", "term", "12345678");
    if (round === 3) for (let i = 0; i < 300; i++) remove(transaction, model, "key", revisionKey(16 + i));
    engine.commit(transaction, { writeFreeList });
  }
  engine.file.close();
  return disk;
}

/** Reads everything, in both ways. Throws BoltError. */
function readAll(disk: SimDisk): number {
  const file = disk.open(PATH, "r");
  const meta = findMeta(file);
  const pages = new PageFile(file, meta.pageSize);
  pages.pageCount = meta.pageCount;
  const state = new StateReader(new PageCache(pages, 64 * PAGE), meta);
  let bytes = 0;
  for (const name of state.bucketNames()) {
    state.forEach(name, undefined, (key, value) => {
      bytes += key.length + value.length;
      return true;
    });
    for (let i = 0; i < 50; i++) bytes += state.get(name, Buffer.from(revisionKey(i * 40), "latin1"))?.length ?? 0;
    state.get(name, Buffer.from("lease7"));
  }
  return bytes;
}

/** Opens for writing, changes some of everything, commits. Throws BoltError. */
function writeSome(disk: SimDisk): void {
  const { file, meta } = openBoltFile(disk, PATH);
  const engine = new BoltEngine(file, meta);
  for (let round = 0; round < 3; round++) {
    const transaction = engine.begin();
    for (let i = 0; i < 1900; i += 3) {
      const key = Buffer.from(revisionKey(16 + i + round), "latin1");
      transaction.bucket("key", true).delete(key, 0, key.length);
    }
    for (const name of ["key", "lease", "meta", "new"]) {
      for (const key of ["a", "lease50", "zzz"]) {
        const bytes = Buffer.from(`${key}value`);
        transaction.bucket(name).put(bytes, 0, key.length, bytes.length);
      }
    }
    engine.commit(transaction, { writeFreeList: round === 2 });
  }
}

test("no mutation of a file makes the engine crash, hang, or fail with anything but a BoltError", () => {
  let noticed = 0;
  for (const writeFreeList of [true, false]) {
    const whole = sample(writeFreeList).contentOf(PATH);
    const random = seeded(writeFreeList ? 1 : 2);
    const pageCount = findMeta(sample(writeFreeList).open(PATH, "r")).pageCount;
    for (let round = 0; round < rounds(700); round++) {
      const bytes = Buffer.from(whole);
      for (let flips = 1 + random.below(4); flips > 0; flips--) {
        const inPage = random.chance(0.6) ? random.below(64) : random.below(PAGE);
        const at = PAGE * (2 + random.below(pageCount - 2)) + inPage;
        if (random.chance(0.4))
          bytes.writeUInt32LE(random.below(random.pick([8, pageCount, 2 ** 32])), Math.min(at, bytes.length - 4));
        else bytes[at] = random.below(256);
      }
      for (const use of [readAll, writeSome]) {
        const disk = new SimDisk();
        disk.makeDir("/d");
        disk.replace(PATH, bytes);
        try {
          use(disk);
        } catch (error) {
          if (!(error instanceof BoltError)) throw new Error(`round ${round}`, { cause: error });
          assert.match(error.message, /^\/d\/db: /);
          noticed++;
        }
      }
    }
  }
  assert.ok(noticed > rounds(700), `only ${noticed} were noticed`);
});

/** The first page of a kind on the path from a bucket's root to a key. */
function pageOf(disk: SimDisk, bucket: string, flags: number): number {
  const file = disk.open(PATH, "r");
  const meta = findMeta(file);
  const pages = new PageFile(file, meta.pageSize);
  pages.pageCount = meta.pageCount;
  const cache = new PageCache(pages, 1 << 20);
  const state = new StateReader(cache, meta);
  const root = state.bucket(bucket)!;
  return flags === BRANCH_PAGE ? root.page : state.leafFor(root, seekKey(Buffer.from(revisionKey(1500), "latin1"))).id;
}

const kinds: [what: string, flags: number, damage: (bytes: Buffer, at: number) => void, expected: RegExp][] = [
  ["a leaf of zeros", LEAF_PAGE, (bytes, at) => bytes.fill(0, at, at + PAGE), /page \d+: says that it is page 0/],
  ["a branch of zeros", BRANCH_PAGE, (bytes, at) => bytes.fill(0, at, at + PAGE), /page \d+: says that it is page 0/],
  ["another type", LEAF_PAGE, (bytes, at) => bytes.writeUInt16LE(0x10, at + 8), /page \d+: is of type 0x10/],
  ["too many elements", LEAF_PAGE, (bytes, at) => bytes.writeUInt16LE(9999, at + 10), /page \d+: claims 9999 elements/],
  [
    "a span beyond the end",
    LEAF_PAGE,
    (bytes, at) => bytes.writeUInt32LE(1 << 20, at + 12),
    /page \d+: spans \d+ pages/,
  ],
  [
    "a key outside of it",
    LEAF_PAGE,
    (bytes, at) => bytes.writeUInt32LE(60_000, at + 16 + 4),
    /page \d+: element 0 ends at/,
  ],
  [
    "an empty key",
    LEAF_PAGE,
    (bytes, at) => bytes.writeUInt32LE(0, at + 16 + 8),
    /page \d+: element 0 has an empty key/,
  ],
  [
    "an element of an unknown kind",
    LEAF_PAGE,
    (bytes, at) => bytes.writeUInt32LE(0x10, at + 16 + 16),
    /page \d+: element 1 is of kind 0x10/,
  ],
  ["keys out of order", LEAF_PAGE, (bytes, at) => bytes.copyWithin(at + 16, at + 32, at + 48), /page \d+: /],
  [
    "a child outside of the file",
    BRANCH_PAGE,
    (bytes, at) => bytes.writeUInt32LE(1 << 30, at + 16 + 16 * 2 + 8),
    /points at page \d+, outside/,
  ],
  [
    "a child that is the page itself",
    BRANCH_PAGE,
    (bytes, at) => bytes.writeUInt32LE(at / PAGE, at + 16 + 16 * 2 + 8),
    /page \d+: /,
  ],
];

for (const [what, flags, damage, expected] of kinds) {
  test(`${what} is an error that names page and bucket, for readers and for the writer`, () => {
    const disk = sample(false);
    const page = pageOf(disk, "key", flags);
    const bytes = disk.contentOf(PATH);
    damage(bytes, page * PAGE);
    for (const use of [readAll, writeSome]) {
      const damaged = new SimDisk();
      damaged.makeDir("/d");
      damaged.replace(PATH, bytes);
      assert.throws(
        () => use(damaged),
        (error) => error instanceof BoltError && expected.test(error.message) && /bucket "key"/.test(error.message),
        use.name,
      );
    }
  });
}

test("an invalid free list is replaced by the pages found free", () => {
  const whole = sample(true).contentOf(PATH);
  const meta = findMeta(sample(true).open(PATH, "r"));
  const at = meta.freelistPage! * PAGE;
  const damages: ((bytes: Buffer) => void)[] = [
    (bytes) => bytes.fill(0, at, at + PAGE),
    (bytes) => bytes.writeUInt16LE(0xffff, at + 10),
    (bytes) => bytes.writeUInt32LE(meta.rootPage, at + 16),
    (bytes) => bytes.writeUInt32LE(1 << 30, at + 16),
    (bytes) => bytes.copyWithin(at + 16, at + 24, at + 32),
  ];
  for (const damage of damages) {
    const disk = new SimDisk();
    disk.makeDir("/d");
    const bytes = Buffer.from(whole);
    damage(bytes);
    disk.replace(PATH, bytes);
    const before = readAll(disk);
    const engine = openEngine(disk, PATH);
    assert.ok(engine.freePages > 0);
    const model: Model = new Map();
    for (let round = 0; round < 3; round++) {
      const transaction = engine.begin();
      put(transaction, model, "new", `k${round}`, "y".repeat(3000));
      engine.commit(transaction);
    }
    assert.equal(readAll(disk), before + 3 * 3002);
  }
});
