import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";
import { repositoryRoot, run } from "../harness/programs.ts";

const { version } = JSON.parse(readFileSync(join(repositoryRoot, "package.json"), "utf8"));
const LONG = "a".repeat(60);

test("an image is the same each time, of layers that are what its digests say, and for a user that is not root", async () => {
  const directory = mkdtempSync(join(tmpdir(), "kvorum-image-test-"));
  try {
    await makeArchive(directory);
    const base = join(directory, "base");
    mkdirSync(join(base, "lib"), { recursive: true });
    writeFileSync(join(base, "lib", "libc.so.6"), "a library");
    symlinkSync("libc.so.6", join(base, "lib", "libc.so"));
    const make = async (out: string): Promise<Buffer> => {
      const args = ["--packages", directory, "--base", base, "--arch", "x64", "--out", join(directory, out)];
      const { code, stderr } = await run(process.execPath, [join(repositoryRoot, "scripts", "image.mjs"), ...args]);
      assert.equal(code, 0, stderr);
      return readFileSync(join(directory, out, `kvorum-${version}-image-amd64.tar`));
    };
    const image = await make("one");
    assert.ok(image.equals(await make("two")), "the same, byte for byte");

    const files = entriesOf(image);
    const blob = (digest: string): Buffer => {
      const bytes = files.get(`blobs/${digest.replace(":", "/")}`)?.content;
      assert.ok(bytes !== undefined, digest);
      assert.equal(`sha256:${createHash("sha256").update(bytes).digest("hex")}`, digest);
      return bytes;
    };
    assert.equal(JSON.parse(files.get("oci-layout")!.content.toString()).imageLayoutVersion, "1.0.0");
    const [{ digest }] = JSON.parse(files.get("index.json")!.content.toString()).manifests;
    const manifest = JSON.parse(blob(digest).toString());
    const config = JSON.parse(blob(manifest.config.digest).toString());
    assert.deepEqual([config.architecture, config.config.User, config.config.Cmd], ["amd64", "65532:65532", ["etcd"]]);

    const layers = manifest.layers.map((layer: { digest: string }) => gunzipSync(blob(layer.digest)));
    assert.deepEqual(
      config.rootfs.diff_ids,
      layers.map((tar: Buffer) => `sha256:${createHash("sha256").update(tar).digest("hex")}`),
    );
    const inside = new Map<string, Entry>(layers.flatMap((tar: Buffer) => [...entriesOf(tar)]));
    assert.equal(inside.get("lib/libc.so")?.link, "libc.so.6");
    assert.equal(inside.get("tmp/")?.mode, 0o1777);
    assert.equal(inside.get("usr/bin/kvorum")?.link, "/usr/lib/kvorum/bin/kvorum");
    assert.match(inside.get("usr/lib/kvorum/bin/etcd")!.content.toString(), /^#!\/usr\/lib\/kvorum\/node\n/);
    assert.equal(
      inside.get(`usr/lib/kvorum/${LONG}/${LONG}.js`)?.content.toString(),
      "long",
      "a name above a hundred characters",
    );
    for (const name of ["bin/sh", "usr/bin/sh", "bin/busybox"]) assert.ok(!inside.has(name), "there is no shell");
    for (const [name, { mode }] of inside) assert.equal(mode & 0o6000, 0, `${name} gives nobody rights of others`);

    const list = JSON.parse(inside.get("usr/share/doc/kvorum/sbom.spdx.json")!.content.toString());
    const names = list.packages.map(({ name }: { name: string }) => name);
    for (const name of ["kvorum", "node", "yaml", "@grpc/grpc-js"]) assert.ok(names.includes(name), name);
    assert.ok(!names.includes("typescript"), "what only makes it is not in it");
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});

/** As `npm run package` makes it, with next to nothing inside. */
async function makeArchive(directory: string): Promise<void> {
  const name = `kvorum-${version}-linux-x64`;
  const lib = join(directory, name, "lib");
  mkdirSync(join(lib, "bin"), { recursive: true });
  mkdirSync(join(lib, LONG));
  writeFileSync(join(lib, "node"), "the runtime");
  chmodSync(join(lib, "node"), 0o755);
  writeFileSync(join(lib, LONG, `${LONG}.js`), "long");
  for (const program of ["kvorum", "etcd", "etcdctl", "etcdutl"])
    writeFileSync(join(lib, "bin", program), "#!/usr/bin/env node\n");
  const { code, stderr } = await run("tar", ["-czf", join(directory, `${name}.tar.gz`), "-C", directory, name]);
  assert.equal(code, 0, stderr);
}

interface Entry {
  readonly mode: number;
  readonly link: string;
  readonly content: Buffer;
}

/** Of a tar archive, with names of pax. */
function entriesOf(tar: Buffer): Map<string, Entry> {
  const found = new Map<string, Entry>();
  let long: string | undefined;
  for (let at = 0; tar[at] !== 0; ) {
    const text = (from: number, length: number) =>
      tar.toString("utf8", at + from, at + from + length).replace(/\0.*/s, "");
    const size = Number.parseInt(text(124, 12), 8);
    const content = tar.subarray(at + 512, at + 512 + size);
    if (text(156, 1) === "x") long = / path=(.*)\n/.exec(content.toString())?.[1];
    else {
      found.set(long ?? text(0, 100), { mode: Number.parseInt(text(100, 8), 8), link: text(157, 100), content });
      long = undefined;
    }
    at += 512 + 512 * Math.ceil(size / 512);
  }
  return found;
}
