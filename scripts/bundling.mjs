// How the programs become files that run: one for each program, with what they share in chunks.
import { readdirSync } from "node:fs";
import { join } from "node:path";

/** The programs of threads: their sources, and the names under which src/base/start-thread.ts finds them when built. */
export const THREADS = [
  { source: "src/bolt/thread.ts", built: "bolt-thread" },
  { source: "src/mvcc/backend/received-thread.ts", built: "received-thread" },
];

/** Options of esbuild, without where the result goes and what becomes of packages. */
export function bundling(root) {
  const programs = join(root, "src", "programs");
  const entryPoints = readdirSync(programs)
    .filter((name) => name.endsWith(".ts"))
    .map((name) => ({ in: join(programs, name), out: name.replace(/\.ts$/, "") }));
  entryPoints.push({ in: join(root, "src", "client", "index.ts"), out: "client" });
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
