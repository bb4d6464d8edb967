// Makes images for containers from the archives of `npm run package`, without docker: an OCI archive for each architecture, and a
// list of what is in it (SPDX). The root may be read-only, the user is 65532, and there is no shell; the debug variant has one.
//
//   npm run package && npm run image [-- --arch x64 --arch arm64] [--debug] [--packages DIR] [--out DIR] [--base DIR]
//
// The runtime needs the C and C++ libraries: they are Debian's packages, from apt; --base is a directory to take instead. The same
// archives and libraries give the same image, byte for byte; SOURCE_DATE_EPOCH is the time that it tells.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";
import { tarOf, tarOfFiles } from "./tar.mjs";

const PROGRAMS = ["kvorum", "etcd", "etcdctl", "etcdutl"];
/** Names of Debian and of OCI. */
const ARCHITECTURES = { x64: "amd64", arm64: "arm64" };
const LIBRARIES = ["libc6", "libgcc-s1", "libstdc++6", "gcc-12-base"];
const SHELL = ["busybox-static"];
const APPLETS =
  "sh ash cat cp cut date df du env find free grep head hostname id kill less ln ls mkdir mv nc nslookup ping ps pwd rm sed seq sleep sort stat tail tar tee test touch tr uname vi wc wget which xargs";
const USER = 65532;
const HOME = "usr/lib/kvorum";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const { values } = parseArgs({
  options: {
    arch: { type: "string", multiple: true, default: ["x64", "arm64"] },
    debug: { type: "boolean", default: false },
    packages: { type: "string", default: join(root, "packages") },
    out: { type: "string", default: join(root, "packages") },
    base: { type: "string" },
  },
});
const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const created = new Date(1000 * Number(process.env.SOURCE_DATE_EPOCH ?? 0)).toISOString().replace(".000Z", "Z");
const work = mkdtempSync(join(tmpdir(), "kvorum-image-"));

try {
  mkdirSync(resolve(values.out), { recursive: true });
  for (const arch of values.arch) makeImage(arch);
} catch (error) {
  console.error(`cannot make the image: ${error.message}`);
  process.exitCode = 1;
} finally {
  rmSync(work, { recursive: true, force: true });
}

function makeImage(arch) {
  if (ARCHITECTURES[arch] === undefined) throw new Error(`--arch is x64 or arm64, not ${arch}`);
  const dir = join(work, arch);
  const base = makeBase(join(dir, "base"), arch);
  const programs = join(dir, "programs");
  makePrograms(programs, arch);
  const list = billOfMaterials(arch, base);
  mkdirSync(join(programs, "usr", "share", "doc", "kvorum"), { recursive: true });
  writeFileSync(join(programs, "usr", "share", "doc", "kvorum", "sbom.spdx.json"), list);
  const layers = [
    { from: join(dir, "base"), what: "libraries and users" },
    { from: programs, what: `kvorum ${version}` },
  ];
  const image = ociArchive(layers, ARCHITECTURES[arch]);
  const name = `kvorum-${version}-image-${ARCHITECTURES[arch]}${values.debug ? "-debug" : ""}`;
  const path = join(resolve(values.out), `${name}.tar`);
  writeFileSync(`${path}.new`, image);
  renameSync(`${path}.new`, path);
  writeFileSync(join(resolve(values.out), `${name}.spdx.json`), list);
  const sum = createHash("sha256").update(image).digest("hex");
  console.log(`${path}  ${(image.length / 2 ** 20).toFixed(1)} MiB  sha256:${sum}`);
}

/** What the runtime needs of a system. Gives the packages that it is from. */
function makeBase(dir, arch) {
  for (const each of ["etc", "tmp", "usr/bin", "var/lib/kvorum", "var/lib/etcd"])
    mkdirSync(join(dir, each), { recursive: true });
  const packages = [...LIBRARIES, ...(values.debug ? SHELL : [])];
  const found = values.base === undefined ? packages.map((name) => unpackDebian(name, arch, dir)) : [];
  if (values.base !== undefined) cpSync(values.base, dir, { recursive: true, verbatimSymlinks: true });
  // Documentation, what only a system needs that installs packages, and conversions of character sets.
  for (const each of ["usr/share", "usr/lib/gconv", "etc/ld.so.conf.d"])
    rmSync(join(dir, each), { recursive: true, force: true });
  for (const lib of [`usr/lib/${triplet(arch)}`, `lib/${triplet(arch)}`])
    rmSync(join(dir, lib, "gconv"), { recursive: true, force: true });
  writeFileSync(
    join(dir, "etc", "passwd"),
    `root:x:0:0:root:/root:/sbin/nologin\nkvorum:x:${USER}:${USER}:kvorum:/var/lib/kvorum:/sbin/nologin\n`,
  );
  writeFileSync(join(dir, "etc", "group"), `root:x:0:\nkvorum:x:${USER}:\n`);
  writeFileSync(join(dir, "etc", "nsswitch.conf"), "hosts: files dns\n");
  if (values.debug && values.base === undefined) {
    mkdirSync(join(dir, "bin"), { recursive: true });
    for (const applet of APPLETS.split(" "))
      if (!existsSync(join(dir, "bin", applet))) symlinkSync("busybox", join(dir, "bin", applet));
  }
  return found;
}

function triplet(arch) {
  return arch === "x64" ? "x86_64-linux-gnu" : "aarch64-linux-gnu";
}

function unpackDebian(name, arch, dir) {
  const cache = join(root, "node_modules", ".cache", "kvorum-image", arch);
  mkdirSync(cache, { recursive: true });
  const isThere = () => readdirSync(cache).find((file) => file.startsWith(`${name}_`) && file.endsWith(".deb"));
  if (isThere() === undefined) run("apt-get", [...aptOptions(arch, cache), "download", name], cache);
  const file = isThere();
  if (file === undefined) throw new Error(`apt-get download ${name} brought nothing`);
  run("dpkg-deb", ["-x", join(cache, file), dir]);
  return { name, version: decodeURIComponent(file.split("_")[1]) };
}

/** Lists of its own for an architecture that this system does not have. */
function aptOptions(arch, cache) {
  if (arch === process.arch) return [];
  const state = join(cache, "apt");
  const options = [
    `APT::Architecture=${ARCHITECTURES[arch]}`,
    `APT::Architectures=${ARCHITECTURES[arch]}`,
    `Dir::State::lists=${state}/lists`,
    `Dir::Cache=${state}/cache`,
  ];
  const flags = options.flatMap((option) => ["-o", option]);
  if (!existsSync(state)) {
    mkdirSync(join(state, "lists", "partial"), { recursive: true });
    mkdirSync(join(state, "cache", "archives", "partial"), { recursive: true });
    run("apt-get", [...flags, "update", "-qq"], cache);
  }
  return flags;
}

function makePrograms(dir, arch) {
  const archive = join(resolve(values.packages), `kvorum-${version}-linux-${arch}.tar.gz`);
  if (!existsSync(archive)) throw new Error(`${archive} is not there: npm run package -- --arch ${arch}`);
  const home = join(dir, HOME);
  mkdirSync(home, { recursive: true });
  const unpacked = join(work, `${arch}-archive`);
  mkdirSync(unpacked);
  run("tar", ["-xzf", archive, "-C", unpacked, "--strip-components=1"]);
  cpSync(join(unpacked, "lib"), home, { recursive: true });
  mkdirSync(join(dir, "usr", "bin"), { recursive: true });
  for (const program of PROGRAMS) {
    const path = join(home, "bin", program);
    // There is no env, and no shell: the kernel starts the runtime.
    writeFileSync(path, readFileSync(path, "utf8").replace(/^#!.*/, `#!/${HOME}/node`));
    chmodSync(path, 0o755);
    symlinkSync(`/${HOME}/bin/${program}`, join(dir, "usr", "bin", program));
  }
}

/** The archive of an OCI image layout. */
function ociArchive(layers, architecture) {
  const blobs = new Map();
  const add = (bytes, mediaType) => {
    const digest = createHash("sha256").update(bytes).digest("hex");
    blobs.set(`blobs/sha256/${digest}`, bytes);
    return { mediaType, digest: `sha256:${digest}`, size: bytes.length };
  };
  const json = (value, mediaType) => add(Buffer.from(JSON.stringify(value)), mediaType);
  const made = layers.map(({ from, what }) => {
    const tar = tarOf(from);
    return {
      what,
      id: `sha256:${createHash("sha256").update(tar).digest("hex")}`,
      descriptor: add(gzipSync(tar, { level: 9 }), "application/vnd.oci.image.layer.v1.tar+gzip"),
    };
  });
  const labels = {
    "org.opencontainers.image.title": "kvorum",
    "org.opencontainers.image.description": "etcd in TypeScript, its tools, and kvorum pod for Kubernetes",
    "org.opencontainers.image.version": version,
    "org.opencontainers.image.licenses": "Apache-2.0",
  };
  const config = json(
    {
      created,
      architecture,
      os: "linux",
      config: {
        User: `${USER}:${USER}`,
        Env: ["PATH=/usr/bin:/bin", "HOME=/var/lib/kvorum"],
        Cmd: ["etcd"],
        WorkingDir: "/",
        ExposedPorts: { "2379/tcp": {}, "2380/tcp": {} },
        Labels: labels,
      },
      rootfs: { type: "layers", diff_ids: made.map(({ id }) => id) },
      history: made.map(({ what }) => ({ created, created_by: what })),
    },
    "application/vnd.oci.image.config.v1+json",
  );
  const manifest = json(
    {
      schemaVersion: 2,
      mediaType: "application/vnd.oci.image.manifest.v1+json",
      config,
      layers: made.map(({ descriptor }) => descriptor),
      annotations: labels,
    },
    "application/vnd.oci.image.manifest.v1+json",
  );
  const index = {
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.index.v1+json",
    manifests: [
      {
        ...manifest,
        platform: { architecture, os: "linux" },
        annotations: { "org.opencontainers.image.ref.name": `kvorum:${version}${values.debug ? "-debug" : ""}` },
      },
    ],
  };
  return tarOfFiles([
    ["oci-layout", Buffer.from('{"imageLayoutVersion":"1.0.0"}')],
    ["index.json", Buffer.from(JSON.stringify(index))],
    ...[...blobs].sort(([a], [b]) => (a < b ? -1 : 1)),
  ]);
}

/** SPDX 2.3: what npm, Node and Debian contribute. */
function billOfMaterials(arch, debian) {
  const { packages: locked } = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8"));
  const npm = Object.entries(locked)
    .filter(([path, { dev, os, cpu }]) => path !== "" && !dev && fits(os, "linux") && fits(cpu, arch))
    .map(([path, { version: found, license, integrity }]) => {
      const name = path.slice(path.lastIndexOf("node_modules/") + "node_modules/".length);
      const sum = integrity?.startsWith("sha512-")
        ? Buffer.from(integrity.slice(7), "base64").toString("hex")
        : undefined;
      return { name, found, license, sum, locator: `pkg:npm/${name.replace("@", "%40")}@${found}` };
    });
  const node = /NODE = \{\s*version: "([^"]+)"/.exec(readFileSync(join(root, "scripts", "package.mjs"), "utf8"))?.[1];
  const all = [
    ...npm,
    { name: "node", found: node, license: "MIT", locator: `pkg:generic/node@${node}` },
    ...debian.map(({ name, version: found }) => ({
      name,
      found,
      locator: `pkg:deb/debian/${name}@${found}?arch=${ARCHITECTURES[arch]}`,
    })),
  ].sort((a, b) => (a.locator < b.locator ? -1 : 1));
  const own = {
    SPDXID: "SPDXRef-kvorum",
    name: "kvorum",
    versionInfo: version,
    downloadLocation: "NOASSERTION",
    licenseConcluded: "Apache-2.0",
    licenseDeclared: "Apache-2.0",
  };
  const packages = all.map(({ name, found, license, sum, locator }, i) => ({
    SPDXID: `SPDXRef-${i}`,
    name,
    versionInfo: found,
    downloadLocation: "NOASSERTION",
    licenseConcluded: "NOASSERTION",
    licenseDeclared: license ?? "NOASSERTION",
    ...(sum === undefined ? {} : { checksums: [{ algorithm: "SHA512", checksumValue: sum }] }),
    externalRefs: [{ referenceCategory: "PACKAGE-MANAGER", referenceType: "purl", referenceLocator: locator }],
  }));
  const content = JSON.stringify(packages);
  const digest = createHash("sha256").update(content).digest("hex");
  const document = {
    spdxVersion: "SPDX-2.3",
    dataLicense: "CC0-1.0",
    SPDXID: "SPDXRef-DOCUMENT",
    name: `kvorum-${version}-${ARCHITECTURES[arch]}`,
    documentNamespace: `urn:kvorum:sbom:${digest}`,
    creationInfo: { created, creators: ["Tool: kvorum scripts/image.mjs"] },
    packages: [own, ...packages],
    relationships: [
      { spdxElementId: "SPDXRef-DOCUMENT", relationshipType: "DESCRIBES", relatedSpdxElement: "SPDXRef-kvorum" },
      ...packages.map(({ SPDXID }) => ({
        spdxElementId: "SPDXRef-kvorum",
        relationshipType: "CONTAINS",
        relatedSpdxElement: SPDXID,
      })),
    ],
  };
  return `${JSON.stringify(document, undefined, 1)}\n`;
}

function fits(list, mine) {
  return list === undefined || list.includes(mine);
}

function run(command, args, cwd = work) {
  const { status, stderr, error } = spawnSync(command, args, { cwd, encoding: "utf8", maxBuffer: 2 ** 26 });
  if (error) throw new Error(`${command}: ${error.message}`);
  if (status !== 0) throw new Error(`${command} ${args.join(" ")}: ${stderr.trim() || `exit code ${status}`}`);
}
