import assert from "node:assert/strict";
import { copyFileSync, existsSync, mkdirSync, readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { crc32c } from "../../src/base/crc32c.ts";
import { systemDisk } from "../../src/base/disk.ts";
import { BoltReader } from "../../src/bolt/reader.ts";
import { clusterId } from "../../src/membership/member.ts";
import { ClusterService, KVService, MaintenanceService } from "../../src/proto/etcdserverpb.ts";
import { damagePage } from "../harness/damaged-page.ts";
import { type InProcess, startInProcess, tempDir } from "../harness/in-process.ts";
import { findProgram, requireStockEtcd, stockEtcd } from "../harness/programs.ts";
import { startServer } from "../harness/server.ts";
import { etcdutl, getText, putText, saveSnapshot } from "./helpers.ts";

/** A backup of a member with 30 keys, one of them with a history and one deleted. */
interface Backup {
  readonly path: string;
  readonly revision: number;
  readonly hash: number;
}

let dir: ReturnType<typeof tempDir>;
let backup: Backup;
let copies = 0;

const pathOf = (name: string): string => join(dir.path, name);

/** A copy that a test may damage. */
function copyOf(path: string): string {
  const copy = pathOf(`copy-${++copies}.db`);
  copyFileSync(path, copy);
  return copy;
}

before(async () => {
  dir = tempDir();
  const server = await startInProcess();
  try {
    for (let i = 0; i < 29; i++) await putText(server.client, `/registry/pods/ns${i % 2}/p${i}`, "x".repeat(2000));
    for (let i = 0; i < 5; i++) await putText(server.client, "busy", `value ${i}`);
    await putText(server.client, "gone", "1");
    await server.client.unary(KVService.DeleteRange, { key: Buffer.from("gone") });
    const path = pathOf("backup.db");
    await saveSnapshot(server.client, path);
    const { hash, header } = await server.client.unary(MaintenanceService.HashKV, {});
    backup = { path, hash, revision: header!.revision };
  } finally {
    await server.close();
  }
});

after(() => dir.remove());

describe("snapshot status", () => {
  test("reports hash, revision, keys, size and version in every format", async () => {
    const reader = new BoltReader({ disk: systemDisk, path: backup.path });
    const pieces: Uint8Array[] = [];
    for (const { name, bucket } of reader.root.buckets()) {
      pieces.push(name);
      for (const { key, value } of bucket.entries()) pieces.push(key, value);
    }
    const { sizeBytes } = reader;
    reader.close();
    const hash = crc32c(Buffer.concat(pieces));
    const expected = { hash, revision: backup.revision, totalKey: 30, totalSize: sizeBytes, version: "3.7.0" };
    const status = (format: string) => etcdutl("snapshot", "status", backup.path, "-w", format);
    assert.deepEqual(JSON.parse((await status("json")).out), expected);
    // Rounded twice, as stock does it: to tenths, then half to even.
    const tenths = Math.floor(sizeBytes / 100 + 0.5);
    const size = `${tenths % 10 === 5 ? 2 * Math.round(tenths / 20) : Math.round(tenths / 10)} kB`;
    assert.equal((await status("simple")).out, `${hash.toString(16)}, ${backup.revision}, 30, ${size}, 3.7.0\n`);
    assert.equal(
      (await status("fields")).out,
      `"Hash" : ${hash}\n"Revision" : ${backup.revision}\n"Keys" : 30\n"Size" : ${sizeBytes}\n"Version" : 3.7.0\n`,
    );
    const table = (await status("table")).out.split("\n");
    assert.match(table[1]!, /│\s+HASH\s+│ REVISION │ TOTAL KEYS │ TOTAL SIZE │ VERSION │/);
    assert.match(table[3]!, new RegExp(`│ +${hash.toString(16)} │ +${backup.revision} │ +30 │ +${size} │ +3.7.0 │`));
    const protobuf = await status("protobuf");
    assert.deepEqual([protobuf.code, protobuf.out], [4, ""]);
    assert.match(protobuf.err, /^Error: marshal unsupported for type snapshot\.Status/);
    assert.deepEqual(await status("xml"), { code: 4, out: "", err: "Error: unsupported output format\n" });
  });

  test("refuses anything but one readable file", async () => {
    const missing = pathOf("missing.db");
    assert.deepEqual(await etcdutl("snapshot", "status", missing), {
      code: 1,
      out: "",
      err: `Error: stat ${missing}: no such file or directory\n`,
    });
    const two = await etcdutl("snapshot", "status", "a", "b");
    assert.deepEqual([two.code, two.err], [128, "Error: snapshot status requires exactly one argument\n"]);
    const text = pathOf("text.db");
    writeFileSync(text, "no database at all".repeat(1000));
    const other = await etcdutl("snapshot", "status", text);
    assert.equal(other.code, 1);
    assert.match(other.err, /is not a bbolt database/);
    const cut = copyOf(backup.path);
    truncateSync(cut, 40_000);
    const short = await etcdutl("snapshot", "status", cut);
    assert.equal(short.code, 1);
    assert.match(short.err, /is cut short: \d+ pages need \d+ bytes, the file has 40000/);
  });

  test("names every damaged page", async () => {
    const damaged = copyOf(backup.path);
    const page = damagePage(damaged);
    const { code, out, err } = await etcdutl("snapshot", "status", damaged);
    assert.deepEqual([code, out], [1, ""]);
    assert.match(err, /^Error: snapshot file integrity check failed\. \d+ errors found\.\n/);
    assert.match(err, new RegExp(`page ${page}: `));
  });
});

describe("hashkv", () => {
  test("is the member's own answer, and the same for the last revision by number", async () => {
    const expected = `${backup.hash}, ${backup.revision}, -1\n`;
    assert.deepEqual(await etcdutl("hashkv", backup.path), { code: 0, out: expected, err: "" });
    assert.equal((await etcdutl("hashkv", backup.path, "--rev", String(backup.revision))).out, expected);
  });

  test("of a compacted database counts what the compaction leaves", async () => {
    const server = await startInProcess();
    try {
      for (let i = 0; i < 20; i++) await putText(server.client, `k${i % 4}`, `value ${i}`);
      await server.client.unary(KVService.DeleteRange, { key: Buffer.from("k1") });
      await server.client.unary(KVService.Compact, { revision: 15, physical: true });
      const path = pathOf("compacted.db");
      await saveSnapshot(server.client, path);
      for (const revision of [17, 22]) {
        const { hash } = await server.client.unary(MaintenanceService.HashKV, { revision });
        assert.equal((await etcdutl("hashkv", path, "--rev", String(revision))).out, `${hash}, ${revision}, 15\n`);
      }
      const compacted = await etcdutl("hashkv", path, "--rev", "14");
      assert.deepEqual([compacted.code, compacted.out], [1, ""]);
      assert.match(compacted.err, /mvcc: required revision has been compacted/);
      const future = await etcdutl("hashkv", path, "--rev", "99");
      assert.deepEqual([future.code, future.out], [1, ""]);
      assert.match(future.err, /mvcc: required revision is a future revision/);
    } finally {
      await server.close();
    }
  });
});

describe("snapshot restore", () => {
  const flags = (dataDir: string) => ["--data-dir", dataDir, "--name", "default"];

  async function withMember(dataDir: string, use: (server: InProcess) => Promise<void>): Promise<void> {
    const server = await startInProcess({ dataDir });
    try {
      await use(server);
      assert.deepEqual(server.failures, []);
    } finally {
      await server.close();
    }
  }

  test("creates a member of a new cluster, with all keys and their history", async () => {
    const dataDir = pathOf("restored");
    const { code, out, err } = await etcdutl("snapshot", "restore", backup.path, ...flags(dataDir));
    assert.deepEqual([code, out], [0, ""]);
    assert.match(err, /added member\t\{"cluster-id": ".*"added-peer-peer-urls": \["http:\/\/localhost:2380"\]/);
    assert.match(err, /restored snapshot/);
    await withMember(dataDir, async ({ client }) => {
      assert.equal(await getText(client, "busy"), "value 4");
      assert.equal(await getText(client, "gone"), undefined);
      const { kvs } = await client.unary(KVService.Range, {
        key: Buffer.from("busy"),
        revision: backup.revision - 4,
      });
      assert.equal(Buffer.from(kvs[0]!.value).toString(), "value 2");
      const { hash } = await client.unary(MaintenanceService.HashKV, { revision: backup.revision });
      assert.equal(hash, backup.hash);
      const { members, header } = await client.unary(ClusterService.MemberList, {});
      assert.deepEqual(
        members.map(({ name, peerUrls }) => [name, peerUrls]),
        [["default", ["http://localhost:2380"]]],
      );
      assert.equal(header!.clusterId, clusterId([members[0]!.id]));
      await putText(client, "after", "1");
      assert.equal(await getText(client, "after"), "1");
    });
    // And again from the restored member's writes.
    await withMember(dataDir, async ({ client }) => assert.equal(await getText(client, "after"), "1"));
  });

  test("creates each member of a larger cluster", async () => {
    const urls = ["http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3"];
    const cluster = urls.map((url, i) => `m${i}=${url}`).join(",");
    const ids = new Set<string>();
    for (const [i, url] of urls.entries()) {
      const dataDir = pathOf(`member-${i}`);
      const given = ["--name", `m${i}`, "--initial-cluster", cluster, "--initial-advertise-peer-urls", url];
      const { code, err } = await etcdutl("snapshot", "restore", backup.path, "--data-dir", dataDir, ...given);
      assert.equal(code, 0, err);
      const reader = new BoltReader({ disk: systemDisk, path: join(dataDir, "member/snap/db") });
      const members = [...reader.bucket(Buffer.from("members"))!.entries()].map(({ value }) =>
        Buffer.from(value).toString(),
      );
      assert.equal(members.length, 3);
      ids.add(members.join());
      const confState = reader.bucket(Buffer.from("meta"))!.get(Buffer.from("confState"))!.toString();
      assert.equal(confState.match(/\d{10,}/g)!.length, 3, "three voters");
      reader.close();
    }
    assert.equal(ids.size, 1, "all come to the same members");
  });

  test("with --bump-revision continues at a higher revision, and everything before is compacted", async () => {
    const dataDir = pathOf("bumped");
    const bump = ["--bump-revision", "1000000", "--mark-compacted"];
    const { code, err } = await etcdutl("snapshot", "restore", backup.path, ...flags(dataDir), ...bump);
    assert.equal(code, 0, err);
    await withMember(dataDir, async ({ client }) => {
      const { header } = await putText(client, "next", "1");
      assert.equal(header!.revision, backup.revision + 1_000_001);
      assert.equal(await getText(client, "busy"), "value 4");
      await assert.rejects(
        client.unary(KVService.Range, { key: Buffer.from("busy"), revision: backup.revision }),
        /mvcc: required revision has been compacted/,
      );
    });
  });

  test("puts the log elsewhere with --wal-dir", async () => {
    const dataDir = pathOf("apart");
    const walDir = pathOf("apart-wal");
    const { code } = await etcdutl("snapshot", "restore", backup.path, ...flags(dataDir), "--wal-dir", walDir);
    assert.equal(code, 0);
    assert.ok(existsSync(join(walDir, "0000000000000000-0000000000000000.wal")));
    assert.ok(!existsSync(join(dataDir, "member/wal")));
    const again = await etcdutl("snapshot", "restore", backup.path, ...flags(pathOf("apart2")), "--wal-dir", walDir);
    assert.deepEqual([again.code, again.err.split("\n").at(-2)], [1, `Error: wal-dir "${walDir}" exists`]);
  });

  test("refuses a damaged or unsuitable file, and changes nothing", async () => {
    const damaged = copyOf(backup.path);
    const bytes = readFileSync(damaged);
    bytes[5000]! ^= 1;
    writeFileSync(damaged, bytes);
    const dataDir = pathOf("refused");
    const wrong = await etcdutl("snapshot", "restore", damaged, ...flags(dataDir));
    assert.equal(wrong.code, 1);
    assert.match(wrong.err, /Error: expected sha256 \[(\d+ ?){32}\], got \[(\d+ ?){32}\]\n$/);
    assert.ok(!existsSync(join(dataDir, "member")));
    const bare = copyOf(backup.path);
    truncateSync(bare, statSync(bare).size - 32);
    const missing = await etcdutl("snapshot", "restore", bare, ...flags(dataDir));
    assert.equal(missing.code, 1);
    assert.match(missing.err, /Error: snapshot missing hash but --skip-hash-check=false\n$/);
    const skipped = await etcdutl("snapshot", "restore", bare, ...flags(dataDir), "--skip-hash-check");
    assert.equal(skipped.code, 0, skipped.err);
  });

  test("refuses a directory in use, and repeats an interrupted restore", async () => {
    const used = pathOf("used");
    mkdirSync(join(used, "member"), { recursive: true });
    const refused = await etcdutl("snapshot", "restore", backup.path, ...flags(used));
    assert.equal(refused.code, 1);
    assert.match(refused.err, new RegExp(`Error: data-dir "${used}" not empty or could not be read\n$`));
    const halfway = pathOf("halfway");
    mkdirSync(join(halfway, "member.part", "snap"), { recursive: true });
    writeFileSync(join(halfway, "member.part", "snap", "db.part"), "half a database");
    const repeated = await etcdutl("snapshot", "restore", backup.path, ...flags(halfway));
    assert.equal(repeated.code, 0, repeated.err);
    assert.ok(!existsSync(join(halfway, "member.part")));
    await withMember(halfway, async ({ client }) => assert.equal(await getText(client, "busy"), "value 4"));
  });

  test("reports invalid flags", async () => {
    const run = async (...given: string[]) => {
      const { code, err } = await etcdutl("snapshot", "restore", backup.path, "--data-dir", pathOf("flags"), ...given);
      return [code, err.split("\n").at(-2)];
    };
    const marks = "Error: --mark-compacted required if --revision-bump > 0";
    assert.deepEqual(await run("--bump-revision", "5"), [128, marks]);
    assert.deepEqual(await run("--mark-compacted"), [128, marks]);
    assert.deepEqual(await run("--name", "other"), [
      1,
      'Error: couldn\'t find local name "other" in the initial cluster configuration',
    ]);
    assert.deepEqual(await run("--initial-advertise-peer-urls", "http://127.0.0.1:7"), [
      1,
      "Error: --initial-cluster has default=http://localhost:2380 but missing from " +
        '--initial-advertise-peer-urls=http://127.0.0.1:7 (resolved urls: "http://127.0.0.1:7" != "http://localhost:2380")',
    ]);
    assert.ok(!existsSync(join(pathOf("flags"), "member")));
  });

  test("stock etcd starts on the restored data", { skip: requireStockEtcd() }, async () => {
    const dataDir = pathOf("for-stock");
    const url = "http://127.0.0.1:23800";
    const given = ["--name", "default", "--initial-cluster", `default=${url}`, "--initial-advertise-peer-urls", url];
    const restored = await etcdutl("snapshot", "restore", backup.path, "--data-dir", dataDir, ...given);
    assert.equal(restored.code, 0, restored.err);
    const server = await startServer(stockEtcd(), { dataDir });
    try {
      assert.equal(await getText(server.client, "busy"), "value 4");
      const { hash } = await server.client.unary(MaintenanceService.HashKV, { revision: backup.revision });
      assert.equal(hash, backup.hash);
      await putText(server.client, "after", "1");
    } finally {
      await server.close();
    }
  });
});

describe("a data directory that no server is using", () => {
  async function restored(name: string): Promise<string> {
    const dataDir = pathOf(name);
    const { code, err } = await etcdutl("snapshot", "restore", backup.path, "--data-dir", dataDir);
    assert.equal(code, 0, err);
    return dataDir;
  }
  const storageVersionOf = (dataDir: string): string | undefined => {
    const reader = new BoltReader({ disk: systemDisk, path: join(dataDir, "member/snap/db") });
    try {
      return reader.bucket(Buffer.from("meta"))!.get(Buffer.from("storageVersion"))?.toString();
    } finally {
      reader.close();
    }
  };

  test("defrag rewrites the database without losing anything", async () => {
    const dataDir = await restored("defrag");
    const statusNow = async (): Promise<Record<string, unknown>> =>
      JSON.parse((await etcdutl("snapshot", "status", join(dataDir, "member/snap/db"), "-w", "json")).out);
    const { totalSize: sizeBefore, ...before } = await statusNow();
    const { code, err } = await etcdutl("defrag", "--data-dir", dataDir);
    assert.equal(code, 0, err);
    const { totalSize, ...after } = await statusNow();
    assert.deepEqual(after, before);
    assert.ok(Number(totalSize) <= Number(sizeBefore), `${totalSize} bytes after ${sizeBefore}`);
    const missing = await etcdutl("defrag", "--data-dir", pathOf("nowhere"));
    assert.equal(missing.code, 1);
    assert.match(
      missing.err,
      /^Error: Failed to defragment etcd data\[.*nowhere\] \(stat .*: no such file or directory\)\n/,
    );
    const without = await etcdutl("defrag");
    assert.equal(without.code, 1);
    assert.match(without.err, /^Error: required flag\(s\) "data-dir" not set\n/);
  });

  test("migrate brings the storage version down and up again", async () => {
    const dataDir = await restored("migrate");
    const migrate = (version: string, ...more: string[]) =>
      etcdutl("migrate", "--data-dir", dataDir, "--target-version", version, ...more);
    assert.equal(storageVersionOf(dataDir), "3.7.0");
    assert.equal((await migrate("3.5")).code, 0);
    assert.equal(storageVersionOf(dataDir), undefined);
    const up = await migrate("3.7");
    assert.equal(up.code, 0);
    assert.match(up.err, /updated storage version\t.*3\.6\.0/);
    assert.equal(storageVersionOf(dataDir), "3.7.0");
    assert.match((await migrate("3.7")).err, /storage version up-to-date/);
    const unknown = await migrate("3.9");
    assert.deepEqual(
      [unknown.code, unknown.err.split("\n").at(-2)],
      [1, 'Error: cannot create migration plan: version "3.8.0" is not supported'],
    );
    assert.equal((await migrate("3.9", "--force")).code, 0);
    assert.equal(storageVersionOf(dataDir), "3.9.0");
    for (const [version, text] of [
      ["3", 'wrong target version format, expected "X.Y", got "3"'],
      ["3.a", 'failed to parse target version: strconv.ParseInt: parsing "a": invalid syntax'],
      ["3.4", 'target version "3.4" not supported. Minimal "3.5"'],
    ] as const) {
      assert.deepEqual(await migrate(version), { code: 128, out: "", err: `Error: ${text}\n` });
    }
  });

  test("is left alone while another process has the database open", { skip: requireStockEtcd() }, async () => {
    const server = await startServer(stockEtcd());
    try {
      const path = join(server.dataDir, "member/snap/db");
      const before = readFileSync(path);
      const { code, err } = await etcdutl("defrag", "--data-dir", server.dataDir, "--timeout", "10ms");
      assert.equal(code, 1);
      assert.match(err, /timeout: process \d+ has .*\/member\/snap\/db open/);
      assert.equal(readFileSync(path).length, before.length);
    } finally {
      await server.close();
    }
  });
});

describe("analyze", () => {
  test("reports the space used, as text and as JSON", async () => {
    const { code, out } = await etcdutl("analyze", backup.path, "-w", "json");
    assert.equal(code, 0);
    const analysis = JSON.parse(out);
    assert.equal(analysis.revision, backup.revision);
    assert.equal(analysis.keys, 30);
    // Four old values of "busy", the value of "gone" and its tombstone.
    assert.equal(analysis.history.rows, 6);
    assert.deepEqual(
      analysis.prefixes.map(({ name, keys }: { name: string; keys: number }) => [name, keys]),
      [
        ["/registry/pods/", 29],
        ["(keys without a prefix)", 1],
      ],
    );
    assert.deepEqual(
      analysis.resources.map(({ name, keys }: { name: string; keys: number }) => [name, keys]),
      [["pods", 29]],
    );
    assert.deepEqual(
      analysis.namespaces.map(({ name, keys }: { name: string; keys: number }) => [name, keys]),
      [
        ["ns0", 15],
        ["ns1", 14],
      ],
    );
    assert.deepEqual([analysis.busiest[0].name, analysis.busiest[0].rows], ["busy", 5]);
    assert.equal(analysis.buckets[0].name, "key");
    assert.equal(analysis.buckets[0].rows, 36);
    const text = (await etcdutl("analyze", backup.path)).out;
    assert.match(text, /History that a compaction can remove: 6 revisions/);
    assert.match(text, /5 revisions +\d+ B {2}busy/);
  });

  test("reports the changes since an earlier file", async () => {
    const server = await startInProcess();
    try {
      const [earlier, later] = [pathOf("earlier.db"), pathOf("later.db")];
      await putText(server.client, "/a/b/1", "x");
      await putText(server.client, "/c/d/1", "x");
      await saveSnapshot(server.client, earlier);
      await putText(server.client, "/a/b/2", "y".repeat(500));
      await putText(server.client, "/e/f/1", "z");
      await saveSnapshot(server.client, later);
      const { change } = JSON.parse((await etcdutl("analyze", later, earlier, "-w", "json")).out);
      assert.equal(change.revisions, 2);
      assert.equal(change.keys, 2);
      assert.deepEqual(
        change.prefixes.map(({ name, rows, isNew }: { name: string; rows: number; isNew: boolean }) => [
          name,
          rows,
          isNew,
        ]),
        [
          ["/a/b/", 1, false],
          ["/e/f/", 1, true],
        ],
      );
      assert.match((await etcdutl("analyze", later, earlier)).out, /\+1 revisions .* new {2}\/e\/f\//);
    } finally {
      await server.close();
    }
  });
});

describe("the program", () => {
  test("prints its version, its commands and its errors", async () => {
    assert.equal((await etcdutl("version")).out, "etcdutl version: 3.7.1\nAPI version: 3.7\n");
    const help = (await etcdutl("--help")).out;
    for (const command of ["completion", "defrag", "hashkv", "migrate", "snapshot", "version"]) {
      assert.match(help, new RegExp(`^  ${command} `, "m"));
    }
    const unknown = await etcdutl("snapshto");
    assert.equal(unknown.code, 1);
    assert.match(unknown.err, /^Error: unknown command "snapshto" for "etcdutl"\n\nDid you mean this\?\n\tsnapshot\n/);
    for (const shell of ["bash", "zsh", "fish", "powershell"]) {
      assert.match((await etcdutl("completion", shell)).out, /snapshot restore/);
    }
    assert.equal((await etcdutl("completion", "tcsh")).code, 128);
  });

  test("prints what stock etcdutl prints", {
    skip: findProgram("etcdutl") === undefined && "etcdutl is not on PATH",
  }, async () => {
    const { execFileSync } = await import("node:child_process");
    for (const format of ["simple", "fields", "json", "table"]) {
      for (const command of [["snapshot", "status"], ["hashkv"]]) {
        const file = copyOf(backup.path);
        const stock = execFileSync("etcdutl", [...command, file, "-w", format], { encoding: "utf8" });
        assert.equal(
          (await etcdutl(...command, copyOf(backup.path), "-w", format)).out,
          stock,
          `${command} -w ${format}`,
        );
      }
    }
  });
});
