import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { systemDisk } from "../../src/base/disk.ts";
import { createBoltFile } from "../../src/bolt/engine.ts";
import { type BoltMeta, writeMetaPage } from "../../src/bolt/format.ts";
import { findProgram } from "../harness/programs.ts";
import { seeded } from "../harness/random.ts";
import { SimDisk } from "../sim/disk.ts";
import {
  copyOf,
  isSame,
  type Model,
  openEngine,
  put,
  randomChanges,
  readModel,
  remove,
  revisionKey,
} from "./engine-model.ts";
import { tempDir } from "./helpers.ts";

const bbolt = findProgram(process.env["KVORUM_BBOLT"] || "bbolt");

/** With our own check, and with bbolt's where it is installed. */
function verify(path: string, disk: SimDisk | undefined, t: Parameters<typeof tempDir>[0]): void {
  if (bbolt === undefined) return;
  let file = path;
  if (disk !== undefined) {
    file = join(tempDir(t), "db");
    writeFileSync(file, disk.contentOf(path));
  }
  assert.equal(execFileSync(bbolt, ["check", file]).toString().trim(), "OK");
}

for (const pageSize of [4096, 1024, 16384]) {
  test(`random transactions leave the model's content, with pages of ${pageSize} bytes`, (t) => {
    const path = join(tempDir(t), "db");
    createBoltFile(systemDisk, path, { pageSize });
    const random = seeded(pageSize);
    const model: Model = new Map();
    let next = 16;
    let engine = openEngine(systemDisk, path);
    for (let round = 0; round < 150; round++) {
      const transaction = engine.begin();
      next = randomChanges(random, transaction, model, next);
      engine.commit(transaction, { writeFreeList: random.chance(0.2) });
      if (round % 5 === 0) assert.ok(isSame(readModel(systemDisk, path), model), `round ${round}`);
      if (round % 10 === 0) verify(path, undefined, t);
      if (random.chance(0.2)) {
        engine.file.close();
        engine = openEngine(systemDisk, path);
      }
    }
    const last = engine.begin();
    for (const [bucket, entries] of model) for (const key of [...entries.keys()]) remove(last, model, bucket, key);
    engine.commit(last);
    assert.ok(isSame(readModel(systemDisk, path), model));
    verify(path, undefined, t);
    engine.file.close();
  });
}

test("free pages are reused: a file whose content stays the same size does not grow", (t) => {
  const path = join(tempDir(t), "db");
  createBoltFile(systemDisk, path);
  const engine = openEngine(systemDisk, path);
  const model: Model = new Map();
  let pages = 0;
  for (let round = 0; round < 60; round++) {
    const transaction = engine.begin();
    for (let i = 0; i < 500; i++) put(transaction, model, "key", revisionKey(16 + round * 500 + i), "v".repeat(200));
    if (round >= 4) {
      for (let i = 0; i < 500; i++) remove(transaction, model, "key", revisionKey(16 + (round - 4) * 500 + i));
    }
    engine.commit(transaction);
    if (round === 20) pages = engine.meta.pageCount;
  }
  assert.ok(engine.meta.pageCount <= pages, `${pages} pages became ${engine.meta.pageCount}`);
  engine.file.close();
});

test("a reader's pages are not overwritten while it reads, and are reused afterwards", (t) => {
  const path = join(tempDir(t), "db");
  createBoltFile(systemDisk, path);
  const engine = openEngine(systemDisk, path);
  const random = seeded(5);
  const model: Model = new Map();
  let next = 16;
  const commit = (readers: readonly number[]): void => {
    const transaction = engine.begin(readers);
    next = randomChanges(random, transaction, model, next);
    engine.commit(transaction);
  };
  for (let i = 0; i < 30; i++) commit([]);
  const views: { txid: number; model: Model; meta: BoltMeta }[] = [];
  for (let round = 0; round < 80; round++) {
    if (views.length < 3 && random.chance(0.3)) {
      views.push({ txid: engine.meta.txid, model: copyOf(model), meta: engine.meta });
    }
    commit(views.map(({ txid }) => txid));
    if (views.length > 0 && random.chance(0.2)) {
      const [view] = views.splice(random.below(views.length), 1);
      // The current pages, under the meta of that time.
      const disk = new SimDisk();
      disk.makeDir("/d");
      const bytes = Buffer.alloc(engine.file.size());
      engine.file.read(bytes, 0);
      disk.replace("/d/db", bytes);
      const old = asOf(disk, "/d/db", view!.meta);
      assert.ok(isSame(old, view!.model), `the view of transaction ${view!.txid} in round ${round}`);
    }
  }
  commit([]);
  commit([]);
  assert.ok(isSame(readModel(systemDisk, path), model));
  engine.file.close();
});

test("a crash at any write or sync of a commit leaves the state before it or after it", (t) => {
  for (let seed = 1; seed <= 12; seed++) crashEverywhere(seed, t);
});

/** Makes a history once, and then repeatedly with a crash one operation later each time in its last transactions. */
function crashEverywhere(seed: number, t: Parameters<typeof tempDir>[0]): void {
  for (let stopAt = 1; ; stopAt++) {
    const random = seeded(seed);
    const crash = seeded(seed * 1000 + stopAt);
    const disk = new SimDisk();
    disk.makeDir("/d");
    createBoltFile(disk, "/d/db");
    const model: Model = new Map();
    let next = 16;
    let engine = openEngine(disk, "/d/db");
    for (let i = 0; i < 12; i++) {
      const transaction = engine.begin();
      next = randomChanges(random, transaction, model, next);
      engine.commit(transaction, { writeFreeList: random.chance(0.3) });
    }
    let operations = 0;
    disk.fault = (operation) => {
      if (operation !== "write" && operation !== "sync" && operation !== "truncate") return undefined;
      return ++operations === stopAt ? "EIO" : undefined;
    };
    let before = copyOf(model);
    let isWhole = true;
    try {
      for (let i = 0; i < 3; i++) {
        before = copyOf(model);
        const transaction = engine.begin();
        next = randomChanges(random, transaction, model, next);
        engine.commit(transaction, { writeFreeList: random.chance(0.3) });
      }
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, "EIO");
      isWhole = false;
    }
    if (isWhole) return;
    const after = random.chance(0.2) ? disk.kill() : disk.crash(crash);
    const found = readModel(after, "/d/db");
    assert.ok(isSame(found, before) || isSame(found, model), `seed ${seed}, operation ${stopAt}`);
    if (stopAt % 7 === 0) verify("/d/db", after, t);
    // Continues from there.
    engine = openEngine(after, "/d/db");
    const transaction = engine.begin();
    put(transaction, found, "meta", "again", "yes");
    engine.commit(transaction);
    assert.ok(isSame(readModel(after, "/d/db"), found));
  }
}

/** The content of the pages under another meta than the newest. */
function asOf(disk: SimDisk, path: string, meta: BoltMeta): Model {
  const bytes = disk.contentOf(path);
  // Both slots get it: an invalid one would be skipped.
  writeMetas(bytes, meta);
  disk.replace(path, bytes);
  return readModel(disk, path);
}

function writeMetas(bytes: Buffer, meta: BoltMeta): void {
  writeMetaPage(bytes, 0, 0, { ...meta, freelistPage: undefined });
  writeMetaPage(bytes, meta.pageSize, 1, { ...meta, freelistPage: undefined, txid: meta.txid - 1 });
}
