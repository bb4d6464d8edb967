// Bundles each program into one file under dist/, so that a start reads one file instead of hundreds.
// `--if-stale` skips the work when every source is older than the last build.
import { existsSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const stamp = join(root, "dist", ".stamp");

function newestMtimeMs(dir) {
  let newest = 0;
  for (const entry of readdirSync(dir, { withFileTypes: true })) {
    const path = join(dir, entry.name);
    newest = Math.max(newest, entry.isDirectory() ? newestMtimeMs(path) : statSync(path).mtimeMs);
  }
  return newest;
}

function stale() {
  if (!existsSync(stamp)) return true;
  const newest = Math.max(
    newestMtimeMs(join(root, "src")),
    statSync(join(root, "package.json")).mtimeMs,
    statSync(fileURLToPath(import.meta.url)).mtimeMs,
  );
  return newest > statSync(stamp).mtimeMs;
}

if (!process.argv.includes("--if-stale") || stale()) {
  const programs = join(root, "src", "programs");
  // Made beside and put in place at the end: chunks of earlier builds must not stay, and a build that fails changes nothing.
  const made = join(root, `dist-${process.pid}`);
  const entryPoints = readdirSync(programs)
    .filter((name) => name.endsWith(".ts"))
    .map((name) => join(programs, name));
  await build({
    entryPoints,
    outdir: made,
    absWorkingDir: root,
    bundle: true,
    splitting: true,
    chunkNames: "chunks/[name]-[hash]",
    format: "esm",
    platform: "node",
    target: "node20.19",
    packages: "external",
    sourcemap: true,
    logLevel: "warning",
  });
  writeFileSync(join(made, ".stamp"), "");
  rmSync(join(root, "dist"), { recursive: true, force: true });
  renameSync(made, join(root, "dist"));
}
