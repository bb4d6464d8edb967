// Makes archives of the programs that run on a host without Node: etcd, etcdctl, etcdutl and kvorum, the runtime that they
// need, and the two native libraries. One archive for each architecture (glibc), with checksums, signed if a key is given.
//
//   npm run package [-- --arch x64 --arch arm64] [--out DIR] [--key PRIVATE-KEY.pem]
//
// The runtime is Node's own build, unchanged, from npm's packages node-linux-ARCH; what is downloaded must have the checksums
// that stand here and in package-lock.json. An archive beside what was there before is the same, byte for byte.
import { spawnSync } from "node:child_process";
import { createHash, createPrivateKey, sign } from "node:crypto";
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { bundling } from "./bundling.mjs";

/** A release line with long-term support. */
const NODE = {
  version: "24.22.3",
  integrity: {
    x64: "sha512-KHsob+Fv9YerATvYujMbiyJqnRCvLtrcr/eTNqRqiOSGp97EOiRP1yP47+knGgQ/xnc3XY8xzkW587dlZzNqRA==",
    arm64: "sha512-IZx0J52/1NDwAsY2iyWR9nlPIYuYviTWetjj8+ElvYQh2+XRhLfCfkbFEF/2O5vGI2hcUbyPNHV+nz342FbJXw==",
  },
};
const PROGRAMS = ["etcd", "etcdctl", "etcdutl", "kvorum"];
/** Cannot be bundled: each loads a library of its own for the architecture. */
const NATIVE = (arch) => [
  { name: "koffi", library: `@koromix/koffi-linux-${arch}` },
  { name: "@node-rs/crc32", library: `@node-rs/crc32-linux-${arch}-gnu` },
];

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const { values } = parseArgs({
  options: {
    arch: { type: "string", multiple: true, default: ["x64", "arm64"] },
    out: { type: "string", default: join(root, "packages") },
    key: { type: "string" },
  },
});
const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const [, etcdVersion] = /ETCD_VERSION = "([^"]+)"/.exec(readFileSync(join(root, "src", "base", "versions.ts"), "utf8"));
const locked = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")).packages;
const cache = join(root, "node_modules", ".cache", "kvorum-package");
const work = mkdtempSync(join(tmpdir(), "kvorum-package-"));

try {
  for (const arch of values.arch) {
    if (NODE.integrity[arch] === undefined) throw new Error(`--arch is x64 or arm64, not ${arch}`);
  }
  const key = values.key === undefined ? undefined : createPrivateKey(readFileSync(values.key));
  if (key !== undefined && key.asymmetricKeyType !== "ed25519")
    throw new Error(`${values.key} is not an Ed25519 key: openssl genpkey -algorithm ed25519 makes one`);
  const bundle = join(work, "dist");
  await makeBundle(bundle);
  const out = resolve(values.out);
  mkdirSync(out, { recursive: true });
  const sums = [];
  for (const arch of values.arch) {
    const name = `kvorum-${version}-linux-${arch}`;
    makeTree(join(work, name), bundle, arch);
    if (arch === process.arch) tryOut(join(work, name));
    const archive = archived(work, name);
    writeFileSync(join(work, "archive"), archive);
    const path = join(out, `${name}.tar.gz`);
    copyFileSync(join(work, "archive"), `${path}.new`);
    renameSync(`${path}.new`, path);
    sums.push(`${createHash("sha256").update(archive).digest("hex")}  ${name}.tar.gz\n`);
    console.log(`${path}  ${(archive.length / 2 ** 20).toFixed(1)} MiB`);
    rmSync(join(work, name), { recursive: true });
  }
  const list = Buffer.from(sums.join(""));
  writeFileSync(join(out, "SHA256SUMS"), list);
  rmSync(join(out, "SHA256SUMS.sig"), { force: true });
  if (key !== undefined) writeFileSync(join(out, "SHA256SUMS.sig"), `${sign(null, list, key).toString("base64")}\n`);
} catch (error) {
  console.error(`cannot package: ${error.message}`);
  process.exitCode = 1;
} finally {
  rmSync(work, { recursive: true, force: true });
}

/** With every package inside, but the native ones: a start reads a few files, and nothing is missing on a host. */
async function makeBundle(outdir) {
  await build({
    ...bundling(root),
    outdir,
    external: ["koffi", "@node-rs/crc32"],
    minifyWhitespace: true,
    // A package in CommonJS that is imported when it is needed would only have its default export.
    mainFields: ["module", "main"],
    alias: { yaml: "./node_modules/yaml/browser/index.js" },
    // Packages in CommonJS ask for Node's modules by `require`.
    banner: {
      js: 'import{createRequire as kvorumRequire}from"node:module";var require=kvorumRequire(import.meta.url);',
    },
  });
}

function makeTree(tree, bundle, arch) {
  const lib = join(tree, "lib");
  mkdirSync(join(tree, "bin"), { recursive: true });
  mkdirSync(join(lib, "bin"), { recursive: true });
  cpSync(bundle, join(lib, "dist"), { recursive: true });
  writeFileSync(join(lib, "package.json"), `${JSON.stringify({ name: "kvorum", version, type: "module" })}\n`);
  for (const program of PROGRAMS) {
    copyFileSync(join(root, "bin", program), join(lib, "bin", program));
    writeFileSync(join(tree, "bin", program), starter(program));
    chmodSync(join(tree, "bin", program), 0o755);
  }
  copyFileSync(join(root, "bin", "launch.mjs"), join(lib, "bin", "launch.mjs"));
  const runtime = unpacked(`node-linux-${arch}`, NODE.version, NODE.integrity[arch]);
  copyFileSync(join(runtime, "bin", "node"), join(lib, "node"));
  chmodSync(join(lib, "node"), 0o755);
  copyFileSync(join(runtime, "LICENSE"), join(tree, "LICENSE.node"));
  for (const { name, library } of NATIVE(arch)) {
    for (const each of [name, library]) {
      const lock = locked[`node_modules/${each}`];
      cpSync(unpacked(each, lock.version, lock.integrity), join(lib, "node_modules", each), {
        recursive: true,
        // Sources, documentation and types are of no use on a host.
        filter: (path) =>
          statSync(path).isDirectory()
            ? !/\/(doc|vendor|musl_\w+)$/.test(path)
            : /\.(c?js|json|node)$|LICENSE/.test(path),
      });
    }
  }
  // The version of etcd that it is, for those who compare before they run it.
  writeFileSync(join(tree, "VERSION"), `${etcdVersion}\n`);
  for (const name of ["LICENSE", "NOTICE"]) copyFileSync(join(root, name), join(tree, name));
}

/** What is missing in an archive shows on a host only when it is too late. */
function tryOut(tree) {
  const loads = `for (const name of ${JSON.stringify(NATIVE(process.arch).map(({ name }) => name))}) require(name)`;
  run(join(tree, "lib", "node"), ["-e", loads], join(tree, "lib"));
  for (const program of PROGRAMS) run(join(tree, "bin", program), [program === "etcd" ? "--version" : "version"]);
}

/** It is also reached by a link, such as /usr/local/bin/etcd. */
function starter(program) {
  return `#!/bin/sh
self=$(readlink -f "$0")
root=\${self%/bin/*}
exec "$root/lib/node" "$root/lib/bin/${program}" "$@"
`;
}

/** A package of npm as published, checked, in a directory. */
function unpacked(name, packageVersion, integrity) {
  const dir = join(cache, `${name.replace("/", "+")}-${packageVersion}`);
  const archive = `${dir}.tgz`;
  mkdirSync(cache, { recursive: true });
  if (!existsSync(archive)) {
    const into = mkdtempSync(join(cache, "download-"));
    try {
      const listed = run("npm", [
        "pack",
        "--json",
        "--silent",
        "--pack-destination",
        into,
        `${name}@${packageVersion}`,
      ]);
      renameSync(join(into, JSON.parse(listed)[0].filename.replace("@", "").replace("/", "-")), archive);
    } finally {
      rmSync(into, { recursive: true, force: true });
    }
  }
  const found = `sha512-${createHash("sha512").update(readFileSync(archive)).digest("base64")}`;
  if (found !== integrity) {
    rmSync(archive);
    throw new Error(`${name}@${packageVersion} is not what it was: its checksum is ${found}, expected ${integrity}`);
  }
  rmSync(dir, { recursive: true, force: true });
  mkdirSync(dir, { recursive: true });
  run("tar", ["-xzf", archive, "-C", dir, "--strip-components=1"]);
  return dir;
}

/** Names in order, no times and no owners: the same contents are the same archive. */
function archived(dir, name) {
  const path = join(dir, "tar");
  run("chmod", ["-R", "u=rwX,go=rX", join(dir, name)]);
  run("tar", ["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "-cf", path, "-C", dir, name]);
  if (statSync(path).size === 0) throw new Error("tar made an empty archive");
  return gzipSync(readFileSync(path), { level: 9 });
}

function run(command, args, cwd = root) {
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd, encoding: "utf8", maxBuffer: 2 ** 26 });
  if (error) throw error;
  if (status !== 0) throw new Error(`${command} ${args.join(" ")}: ${stderr.trim() || `exit code ${status}`}`);
  return stdout;
}
