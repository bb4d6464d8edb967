// Bundles each program into one file under dist/, so that a start reads one file instead of hundreds. `--if-stale`
// skips the work when every source is older than the last build. A packed package has no sources and is already built:
// then there is nothing to do.
import { spawnSync } from "node:child_process";
import { cpSync, existsSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const { values } = parseArgs({ options: { "if-stale": { type: "boolean", default: false } } });

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const stamp = join(root, "dist", ".stamp");
const programs = join(root, "src", "programs");

function newestMtimeMs(dir) {
  let newest = 0;
  for (const entry of readdirSync(dir, { withFileTypes: true })) {
    const path = join(dir, entry.name);
    newest = Math.max(newest, entry.isDirectory() ? newestMtimeMs(path) : statSync(path).mtimeMs);
  }
  return newest;
}

function stale() {
  if (!existsSync(programs)) return false;
  if (!existsSync(stamp)) return true;
  const newest = Math.max(
    newestMtimeMs(join(root, "src")),
    statSync(join(root, "package.json")).mtimeMs,
    statSync(fileURLToPath(import.meta.url)).mtimeMs,
  );
  return newest > statSync(stamp).mtimeMs;
}

async function bundle() {
  const [{ build }, { bundling, bundlingForRequire, LIBRARIES }] = await Promise.all([
    import("esbuild"),
    import("./bundling.mjs"),
  ]);
  // Built beside dist/ and moved into place at the end: chunks of earlier builds must not remain, and a failed build
  // changes nothing.
  const made = join(root, `dist-${process.pid}`);
  try {
    await build({ ...bundling(root), outdir: made, packages: "external", sourcemap: true });
    await build({ ...bundlingForRequire(root), outfile: join(made, "cjs", "all.cjs"), packages: "external" });
    for (const { built } of LIBRARIES) {
      writeFileSync(join(made, "cjs", `${built}.cjs`), `module.exports = require("./all.cjs").${built};\n`);
    }
    emitTypes(made, LIBRARIES);
    writeFileSync(join(made, ".stamp"), "");
    rmSync(join(root, "dist"), { recursive: true, force: true });
    renameSync(made, join(root, "dist"));
  } finally {
    if (existsSync(made)) rmSync(made, { recursive: true, force: true });
  }
}

/**
 * Declarations of the libraries and of all that their types name, once for modules and once for `require`. Errors of
 * types do not stop a build: `npm run typecheck` reports them.
 */
function emitTypes(dir, libraries) {
  const compiler = join(root, "node_modules", "typescript", "bin", "tsc");
  const settings = join(dir, "tsconfig.json");
  const compilerOptions = {
    rootDir: join(root, "src"),
    outDir: join(dir, "types"),
    stripInternal: true,
    noEmit: false,
    declaration: true,
    emitDeclarationOnly: true,
    typeRoots: [join(root, "node_modules", "@types")],
  };
  const files = libraries.map(({ source }) => join(root, source));
  writeFileSync(
    settings,
    JSON.stringify({ extends: join(root, "tsconfig.json"), compilerOptions, include: [], files }),
  );
  spawnSync(process.execPath, [compiler, "-p", settings], { cwd: root, stdio: "ignore" });
  rmSync(settings);
  keepReachable(join(dir, "types"), libraries);
  // The same texts are types of CommonJS below a package.json that says so.
  const forRequire = join(dir, "cjs", "types");
  cpSync(join(dir, "types"), forRequire, { recursive: true });
  writeFileSync(join(forRequire, "package.json"), '{ "type": "commonjs" }\n');
}

/** Deletes the declarations that no library's types lead to: most of the server is nobody's type. */
function keepReachable(types, libraries) {
  const kept = new Set();
  const visit = (file) => {
    if (kept.has(file) || !existsSync(file)) return;
    kept.add(file);
    for (const [, path] of readFileSync(file, "utf8").matchAll(/(?:from|import\()\s*"(\.[^"]+)\.ts"/g)) {
      visit(join(dirname(file), `${path}.d.ts`));
    }
  };
  for (const { source } of libraries) visit(join(types, source.replace(/^src\//, "").replace(/\.ts$/, ".d.ts")));
  for (const entry of readdirSync(types, { recursive: true, withFileTypes: true })) {
    const file = join(entry.parentPath ?? entry.path, entry.name);
    if (entry.isFile() && !kept.has(file)) rmSync(file);
  }
}

/** The cause and the advice, instead of a library's stack. */
function complaint(error) {
  if (error.code === "ERR_MODULE_NOT_FOUND") {
    return `${error.message.split("\n")[0]}\nThe packages that the build needs are not installed: run "npm ci" in ${root}`;
  }
  // esbuild wraps the system's error text in its own.
  const denied = /EACCES|EPERM|EROFS|permission denied|read-only/i.exec(`${error.code} ${error.message}`);
  if (denied) {
    return (
      `${existsSync(stamp) ? "dist/ is older than the sources, and" : "dist/ is not built, and"} this user may not write in ${root}.\n` +
      'Run "npm run build" as the owner of that directory first.' +
      (existsSync(stamp) ? " To run what was built before, start bin/etcd itself." : "")
    );
  }
  return error.message;
}

if (!values["if-stale"] || stale()) {
  try {
    await bundle();
  } catch (error) {
    process.stderr.write(`cannot build: ${complaint(error)}\n`);
    process.exit(1);
  }
}
