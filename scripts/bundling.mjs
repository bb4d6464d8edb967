// How the programs become files that run: one for each program, with what they share in chunks.
import { readdirSync } from "node:fs";
import { join } from "node:path";

/** The programs of threads: their sources, and the names under which src/base/start-thread.ts finds them when built. */
export const THREADS = [
  { source: "src/bolt/thread.ts", built: "bolt-thread" },
  { source: "src/mvcc/backend/received-thread.ts", built: "received-thread" },
];

/** What programs import, and their names in the package: `kvorum/client` is dist/client.js. */
export const LIBRARIES = [
  { source: "src/embedded/index.ts", built: "index" },
  { source: "src/client/index.ts", built: "client" },
  { source: "src/testing/index.ts", built: "testing" },
  { source: "src/etcd3/index.ts", built: "etcd3" },
];

/** Options of esbuild, without where the result goes and what becomes of packages. */
export function bundling(root) {
  const programs = join(root, "src", "programs");
  const entryPoints = readdirSync(programs)
    .filter((name) => name.endsWith(".ts"))
    .map((name) => ({ in: join(programs, name), out: name.replace(/\.ts$/, "") }));
  for (const { source, built } of LIBRARIES) entryPoints.push({ in: join(root, source), out: built });
  // A thread is a program of its own.
  for (const { source, built } of THREADS) entryPoints.push({ in: join(root, source), out: built });
  return {
    entryPoints,
    absWorkingDir: root,
    bundle: true,
    splitting: true,
    chunkNames: "chunks/[name]-[hash]",
    format: "esm",
    platform: "node",
    target: "node20.19",
    logLevel: "silent",
  };
}

const META = `const __here = require("node:url").pathToFileURL(__filename).href;
const __resolve = (name) => require("node:url").pathToFileURL(require.resolve(name)).href;`;

/**
 * The libraries once more for `require`, where it cannot load modules, as in jest: one file with all of them, and one for
 * each that takes its own from there.
 */
export function bundlingForRequire(root) {
  const all = LIBRARIES.map(({ source, built }) => `export * as ${built} from ${JSON.stringify(join(root, source))};`);
  return {
    stdin: { contents: all.join("\n"), resolveDir: root, sourcefile: "all.ts", loader: "ts" },
    absWorkingDir: root,
    bundle: true,
    format: "cjs",
    platform: "node",
    target: "node20.19",
    define: { "import.meta.url": "__here", "import.meta.resolve": "__resolve" },
    banner: { js: META },
    minifyWhitespace: true,
    logLevel: "silent",
  };
}
