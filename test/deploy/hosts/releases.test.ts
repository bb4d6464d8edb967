import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash, generateKeyPairSync, sign } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { installScript, linkScript, releaseFor } from "../../../src/deploy/hosts/releases.ts";
import { type Inventory, parseInventory } from "../../../src/deploy/inventory/inventory.ts";
import { tempDir } from "../../harness/in-process.ts";

let root: ReturnType<typeof tempDir>;
before(() => (root = tempDir()));
after(() => root.remove());

let count = 0;
/** A directory with a program and an inventory that copies it. */
function released(more = ""): { dir: string; inventory: Inventory } {
  const dir = join(root.path, `${++count}`);
  mkdirSync(join(dir, "hosts"), { recursive: true });
  const content = Buffer.from(`#!/bin/sh\necho ${count}\n`);
  writeFileSync(join(dir, "etcd-x64"), content);
  const sums = `${createHash("sha256").update(content).digest("hex")}  etcd-x64\n`;
  writeFileSync(join(dir, "SHA256SUMS"), sums);
  const { publicKey, privateKey } = generateKeyPairSync("ed25519");
  writeFileSync(join(dir, "release.pub"), publicKey.export({ type: "spki", format: "pem" }));
  writeFileSync(join(dir, "SHA256SUMS.sig"), sign(null, Buffer.from(sums), privateKey).toString("base64"));
  const hosts = join(dir, "hosts");
  const text = `cluster: x
members: [{ name: a, address: 10.0.0.1 }]
copy: ./etcd-{arch}
program: ${hosts}/bin/etcd
directories: { releases: ${hosts}/releases }
${more}`;
  return { dir, inventory: parseInventory(text, join(dir, "cluster.yml")) };
}

test("a program is taken only when its checksum, and its signature where one is asked for, are right", () => {
  assert.match(releaseFor(released("signed-by: release.pub\n").inventory, "x64")!.id, /^[0-9a-f]{16}$/);
  const changed = released();
  writeFileSync(join(changed.dir, "etcd-x64"), "other");
  assert.throws(
    () => releaseFor(changed.inventory, "x64"),
    /etcd-x64 is not what .*SHA256SUMS promises: its checksum is/,
  );
  const forged = released("signed-by: release.pub\n");
  writeFileSync(join(forged.dir, "etcd-x64"), "other");
  writeFileSync(join(forged.dir, "SHA256SUMS"), `${createHash("sha256").update("other").digest("hex")}  etcd-x64\n`);
  assert.throws(() => releaseFor(forged.inventory, "x64"), /SHA256SUMS was not signed with the key .*release\.pub/);
  const unsigned = released("signed-by: release.pub\n");
  writeFileSync(join(unsigned.dir, "SHA256SUMS"), "");
  assert.throws(() => releaseFor(unsigned.inventory, "x64"), /was not signed with the key/);
  assert.throws(() => releaseFor(released().inventory, "arm64"), /the program to copy: .*etcd-arm64/);
});

test("a release is complete on its host or not there, and the program's path leads to it", {
  skip: process.getuid?.() !== 0 ? "files on hosts belong to root" : false,
}, () => {
  const { dir, inventory } = released();
  const release = releaseFor(inventory, "x64")!;
  const script = installScript(inventory, release);
  const install = (input: Uint8Array) => spawnSync("sh", ["-euc", script], { input, encoding: "utf8" });
  const cut = install(release.content.subarray(0, 5));
  assert.match(cut.stderr, /the program arrived damaged/);
  const at = join(dir, "hosts", "releases");
  assert.deepEqual(readdirSync(at), [`${release.id}.new`]);
  assert.equal(install(release.content).status, 0);
  assert.deepEqual(readdirSync(at), [release.id]);
  const linked = spawnSync("sh", ["-eu"], { input: linkScript(inventory, release), encoding: "utf8" });
  assert.equal(linked.status, 0, linked.stderr);
  const program = join(dir, "hosts", "bin", "etcd");
  assert.equal(readlinkSync(program), join(at, release.id, "bin", "etcd"));
  assert.deepEqual(readFileSync(program), release.content);
});
