import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { systemDisk } from "../../src/base/disk.ts";
import { BoltReader } from "../../src/bolt/reader.ts";
import { Client } from "../../src/client/client.ts";
import { op } from "../../src/client/operations.ts";
import { hashKvOf } from "../../src/utl/kv-hash.ts";
import { type InProcess, startInProcess, tempDir } from "../harness/in-process.ts";
import { waitFor } from "../harness/wait.ts";
import { kvorum, start } from "./helpers.ts";

const IDENTITY = "AGE-SECRET-KEY-1M536W0FCC95GD45JEUDEE6949XEAMY03XKYNHVJVHSTK2PVNU38QA5Z5WP";
const RECIPIENT = "age15c8qud2jvvthz8gm2nlpeevuu99jm9w9ecdaftxgrckv4mny353qr6kztu";

let dir: ReturnType<typeof tempDir>;
let server: InProcess;
let client: Client;
let stores = 0;

const newStore = (): string => join(dir.path, `store-${++stores}`);
const cluster = (): string[] => ["--endpoints", server.url, "--scratch-dir", dir.path];

interface Status {
  readonly revision: number;
  readonly holes: number;
  readonly fullSnapshots: number;
  readonly problems: readonly string[];
}

async function statusOf(store: string): Promise<Status> {
  return JSON.parse((await kvorum("backup", "status", "--store", store, "-w", "json")).out);
}

const reaches = (store: string, revision: number): Promise<boolean> =>
  waitFor(`${store} has revision ${revision}`, async () => (await statusOf(store)).revision >= revision);

/** A recording of everything that `work` does, which gets a function that waits until a revision is stored. */
async function recorded(
  store: string,
  flags: readonly string[],
  work: (stored: (revision: number) => Promise<boolean>) => Promise<void>,
): Promise<string> {
  const running = start("backup", "run", "--store", store, ...cluster(), "--delta-every", "50ms", ...flags);
  let isOver = false;
  void running.ended.then(() => (isOver = true));
  await waitFor("the recording has begun", () => isOver || running.err().includes("recording changes"));
  assert.ok(!isOver, running.err());
  await work((revision) => reaches(store, revision));
  const { code, err } = await running.stop();
  assert.equal(code, 0, err);
  return err;
}

before(async () => {
  dir = tempDir();
  server = await startInProcess();
  client = new Client({ endpoints: server.url });
});

after(async () => {
  client.close();
  await server.close();
  dir.remove();
});

describe("a recorded cluster", () => {
  let store: string;
  /** HashKV of the server at each revision. */
  const hashes = new Map<number, number>();
  let first = 0;
  let last = 0;
  let lease = 0n;
  const times = new Map<number, number>();

  before(async () => {
    store = newStore();
    for (let i = 0; i < 20; i++) await client.put(`early/${i}`, `${i}`);
    await recorded(store, ["--hash-every", "1ms"], async (stored) => {
      ({ revision: first } = await client.put("first", "1"));
      for (let i = 0; i < 5; i++) await client.put("busy", `${i}`);
      await client.delete({ prefix: "early/1" });
      await stored((await client.put("between", "1")).revision);
      times.set((await client.put("timed", "a")).revision, Date.now());
      await client.txn({ success: [op.put("t/a", "1"), op.put("t/b", ""), op.delete("busy"), op.put("\xff", "é")] });
      const granted = await client.leases.grant(500, { keepAlive: false });
      lease = granted.id;
      await client.put("leased", "1", { lease });
      await client.put("large", "x".repeat(300_000));
      ({ revision: last } = await client.put("busy", "again"));
      await stored(last);
    });
    for (let revision = first - 1; revision <= last; revision++) {
      hashes.set(revision, (await client.maintenance.hash(revision)).hash);
    }
  });

  test("comes back at every revision, with the HashKV that the cluster has there", async () => {
    for (const [revision, hash] of hashes) {
      const path = join(dir.path, `at-${revision}.db`);
      const args = ["--store", store, "--revision", `${revision}`, "--output", path, "--yes"];
      const { code, err } = await kvorum("restore", ...args);
      assert.equal(code, 0, err);
      const reader = new BoltReader({ disk: systemDisk, path });
      assert.equal(hashKvOf(reader, revision).hash, hash, `revision ${revision}`);
      reader.close();
    }
  });

  test("is verified by restoring it, also for readers without a key where nothing is encrypted", async () => {
    const { code, out } = await kvorum("backup", "verify", "--store", store, "--scratch-dir", dir.path);
    assert.equal(code, 0, out);
    assert.match(out, new RegExp(`up to revision ${last}: HashKV agrees at revision .*\\b${last}\\n`));
    assert.match((await kvorum("backup", "status", "--store", store)).out, /verified {3}up to revision/);
  });

  test("comes back to a second: nothing that was received later, everything from before", async () => {
    const [[revision, wallMs]] = [...times] as [[number, number]];
    const time = new Date(wallMs).toISOString();
    const { out } = await kvorum("restore", "--store", store, "--time", time, "--output", "/x/y", "--dry-run");
    const found = Number(/state {3}revision (\d+)/.exec(out)?.[1]);
    // The write was acknowledged just before, and may have reached the backup just after.
    assert.ok(found >= revision - 1 && found < last, out);
    const early = await kvorum("restore", "--store", store, "--time", "2020-01-01T00:00:00Z", "--output", "/x/y");
    assert.match(early.err, /nothing is stored of 2020-01-01T00:00:00.000Z: the first is of 20/);
    for (const bad of ["yesterday", "2026-12-01", "2026-99-01T00:00:00Z"]) {
      const refused = await kvorum("restore", "--store", store, "--time", bad, "--output", "/x/y");
      assert.equal(refused.code, 2, bad);
    }
  });

  test("becomes a member that serves it, beyond all that clients have seen, with leases running again", async () => {
    const dataDir = join(dir.path, "member");
    mkdirSync(dataDir);
    writeFileSync(join(dataDir, "in-the-way"), "");
    const args = ["--store", store, "--revision", `${last - 1}`, "--data-dir", dataDir];
    const asked = await kvorum("restore", ...args);
    assert.match(asked.err, /there is no terminal to ask at/);
    const { code, out, err } = await kvorum("restore", ...args, "--yes");
    assert.equal(code, 0, err);
    assert.match(out, /LOST: every change after it, up to revision/);
    const aside = readdirSync(dir.path).find((name) => name.startsWith("member.before-"));
    assert.ok(aside !== undefined && existsSync(join(dir.path, aside, "in-the-way")));
    const restored = await startInProcess({ dataDir });
    const reader = new Client({ endpoints: restored.url });
    try {
      const { revision } = await reader.range("first");
      assert.ok(revision > last + 999_999_999, `${revision}`);
      assert.equal((await reader.get("large"))?.version, 1);
      assert.equal(await reader.get("busy"), undefined);
      assert.equal((await reader.leases.timeToLive(lease)).grantedTtl, 500);
      const watcher = reader.watch({ all: true }, { revision: last });
      await assert.rejects(watcher.batches().next(), { code: "ERR_WATCH_COMPACTED" });
    } finally {
      reader.close();
      await restored.close();
    }
  });

  test("shows what is in it, and what differs between two revisions", async () => {
    const cat = await kvorum("backup", "cat", "--store", store, "--revision", `${last}`, "busy");
    assert.equal(cat.out, "busy\nagain\n");
    const gone = await kvorum("backup", "cat", "--store", store, "--revision", `${last - 1}`, "busy");
    assert.equal(gone.code, 1);
    const diff = await kvorum("backup", "diff", "--store", store, "--from-revision", `${first + 2}`);
    assert.deepEqual(
      diff.out.split("\n").filter((line) => line !== "" && !line.includes("early")),
      [
        `+ between  (revision ${first + 7})`,
        `~ busy  (revision ${last}, 5 changes)`,
        `+ large  (revision ${last - 1})`,
        `+ leased  (revision ${last - 2})`,
        `+ t/a  (revision ${last - 3})`,
        `+ t/b  (revision ${last - 3})`,
        `+ timed  (revision ${last - 4})`,
        `+ ÿ  (revision ${last - 3})`,
      ],
    );
    assert.match(diff.out, /- early\/19 {2}/);
  });

  test("names each object that is removed, cut off, changed, or swapped with another", async () => {
    const names = readdirSync(store).filter((name) => name !== "verified.json");
    assert.ok(names.length >= 6, names.join(" "));
    const copy = newStore();
    const verify = async () => {
      const { code, out } = await kvorum("backup", "verify", "--store", copy, "--scratch-dir", dir.path);
      assert.equal(code, 1, out);
      return out;
    };
    const fresh = () => {
      rmSync(copy, { recursive: true, force: true });
      mkdirSync(copy);
      for (const name of names) copyFileSync(join(store, name), join(copy, name));
    };
    for (const name of names) {
      const path = join(copy, name);
      const bytes = readFileSync(join(store, name));
      const changed = Buffer.from(bytes);
      changed[Math.floor(bytes.length / 2)]! ^= 4;
      for (const damage of [undefined, bytes.subarray(0, -1), changed]) {
        fresh();
        if (damage === undefined) rmSync(path);
        else writeFileSync(path, damage);
        const out = await verify();
        assert.ok(out.includes(name), `${name}, ${damage?.length ?? "removed"}:\n${out}`);
      }
    }
    const swap = async (pattern: RegExp) => {
      const [one, two] = names.filter((name) => pattern.test(name)) as [string, string];
      fresh();
      renameSync(join(copy, one), join(copy, "x"));
      renameSync(join(copy, two), join(copy, one));
      renameSync(join(copy, "x"), join(copy, two));
      const out = await verify();
      assert.ok(out.includes(one) && out.includes(two), out);
    };
    await swap(/delta/);
    await swap(/^\d+\.json$/);
  });
});

test("an encrypted backup is read with its key alone, and says so without it", async () => {
  const store = newStore();
  const keys = join(dir.path, "keys.txt");
  writeFileSync(keys, `${IDENTITY}\n`);
  await client.put("secret", "in the clear nowhere");
  const once = await kvorum("backup", "once", "--store", store, ...cluster(), "--recipient", RECIPIENT);
  assert.equal(once.code, 0, once.err);
  for (const name of readdirSync(store)) assert.ok(!readFileSync(join(store, name)).includes("in the clear"), name);
  const cat = ["cat", "--store", store, "secret"];
  assert.match((await kvorum("backup", ...cat)).err, /no key fits: give the --identity file/);
  assert.equal((await kvorum("backup", ...cat, "--identity", keys)).out, "secret\nin the clear nowhere\n");
});

test("a recording goes on where it was, without a gap, and says at once when the cluster has compacted it", async () => {
  const store = newStore();
  let revision = 0;
  await recorded(store, [], async (stored) => {
    ({ revision } = await client.put("resumed", "1"));
    await stored(revision);
  });
  for (let i = 0; i < 3; i++) await client.put("resumed", `while away ${i}`);
  const err = await recorded(store, [], async (stored) => {
    ({ revision } = await client.put("resumed", "2"));
    await stored(revision);
  });
  assert.ok(!err.includes("HOLE"), err);
  assert.deepEqual(await statusOf(store), { ...(await statusOf(store)), holes: 0, fullSnapshots: 1, problems: [] });
  const verified = await kvorum("backup", "verify", "--store", store, "--scratch-dir", dir.path);
  assert.equal(verified.code, 0, verified.out);

  for (let i = 0; i < 3; i++) ({ revision } = await client.put("lost", `${i}`));
  await client.maintenance.compact(revision);
  const again = await recorded(store, [], async (stored) => {
    ({ revision } = await client.put("resumed", "3"));
    await stored(revision);
  });
  assert.match(again, /HOLE: the changes after revision \d+ are lost: the cluster compacted up to/);
  assert.deepEqual(await statusOf(store), { ...(await statusOf(store)), holes: 1, fullSnapshots: 2, problems: [] });
  const inHole = await kvorum("restore", "--store", store, "--revision", `${revision - 3}`, "--output", "/x/y");
  assert.match(inHole.err, /cannot be brought back: stored are revisions/);
});

test("a recording that is stopped at any moment ends", async () => {
  for (const moment of ["", "stored full", "recording changes"]) {
    const running = start("backup", "run", "--store", newStore(), ...cluster(), "--full-every", "1ms");
    let isOver = false;
    void running.ended.then(() => (isOver = true));
    await waitFor(`it says ${moment}`, () => isOver || running.err().includes(moment));
    assert.equal((await running.stop()).code, 0, moment);
  }
});

test("a look at a store while a backup writes into it and removes from it shows no problem", async () => {
  const store = newStore();
  const flags = ["--full-every", "100ms", "--delta-every", "1ms", "--keep-full", "1"];
  await recorded(store, flags, async (stored) => {
    let revision = 0;
    for (let i = 0; i < 15; i++) {
      for (let j = 0; j < 5; j++) ({ revision } = await client.put("looked", `${i} ${j}`));
      const { problems } = await statusOf(store);
      assert.deepEqual(problems, []);
    }
    await stored(revision);
  });
});

test("what processes that were killed have left is removed by the next", async () => {
  const store = newStore();
  const scratch = join(dir.path, "scratch");
  // The number of a process that has ended.
  const { pid } = spawnSync(process.execPath, ["--version"]);
  const left = join(scratch, `kvorum-backup-${hostname()}-${pid}-abc`);
  const [kept, part] = [join(scratch, "kvorum-backup-elsewhere-1-abc"), join(store, ".part-abc")];
  for (const path of [left, kept, store]) mkdirSync(path, { recursive: true });
  writeFileSync(part, "");
  utimesSync(part, 0, 0);
  const once = await kvorum("backup", "once", "--store", store, "--endpoints", server.url, "--scratch-dir", scratch);
  assert.equal(once.code, 0, once.err);
  assert.deepEqual([left, kept, part].map(existsSync), [false, true, false]);
});

test("of two writers into one store, one is refused and stops", async () => {
  const store = newStore();
  const flags = ["--store", store, ...cluster(), "--delta-every", "20ms"];
  const one = start("backup", "run", ...flags);
  await waitFor("the first records", () => one.err().includes("recording changes") || undefined);
  const two = start("backup", "run", ...flags);
  await waitFor("the second records", () => two.err().includes("recording changes") || undefined);
  await client.put("contended", "1");
  const { code, err } = await Promise.race([one.ended, two.ended]);
  assert.equal(code, 1);
  assert.match(err, /does another backup write into/);
  await Promise.all([one.stop(), two.stop()]);
  const { problems } = await statusOf(store);
  assert.deepEqual(problems, []);
});

test("old objects go only as far as nothing that is kept needs them", async () => {
  const store = newStore();
  for (let i = 0; i < 4; i++) {
    await client.put("kept", `${i}`);
    const { code, err } = await kvorum("backup", "once", "--store", store, ...cluster(), "--keep-full", "2");
    assert.equal(code, 0, err);
  }
  const status = await statusOf(store);
  assert.deepEqual([status.fullSnapshots, status.problems], [2, []]);
  const cat = await kvorum("backup", "cat", "--store", store, "kept");
  assert.equal(cat.out, "kept\n3\n");
  const removed = await kvorum("backup", "prune", "--store", store, "--keep-days", "1", "--dry-run");
  assert.deepEqual([removed.code, removed.out], [0, ""]);
});

test("one prefix is put back into the running cluster, and what changes meanwhile is left alone", async () => {
  const store = newStore();
  await client.put("app/same", "1");
  await client.put("app/changed", "old");
  await client.put("app/deleted", "old");
  await client.put("other", "old");
  assert.equal((await kvorum("backup", "once", "--store", store, ...cluster())).code, 0);
  await client.put("app/changed", "new");
  await client.delete("app/deleted");
  await client.put("app/created", "new");
  await client.put("other", "new");
  const flags = ["--store", store, "--prefix", "app/", ...cluster()];
  const plan = await kvorum("restore", ...flags, "--dry-run");
  assert.match(plan.out, /1 keys created, 1 changed, 1 DELETED, 1 are the same/, plan.err);
  assert.equal((await client.get("app/changed"))?.value, "new");
  const { code, out, err } = await kvorum("restore", ...flags, "--yes");
  assert.equal(code, 0, err);
  assert.match(out, /done: 3 keys/);
  const { kvs } = await client.range({ prefix: "app/" });
  assert.deepEqual(
    kvs.map(({ key, value }) => [key, value]),
    [
      ["app/changed", "old"],
      ["app/deleted", "old"],
      ["app/same", "1"],
    ],
  );
  assert.equal((await client.get("other"))?.value, "new");
});
