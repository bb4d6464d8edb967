// How the programs become files that run: one for each program, with what they share in chunks.
import { readdirSync } from "node:fs";
import { join } from "node:path";

/** Options of esbuild, without where the result goes and what becomes of packages. */
export function bundling(root) {
  const programs = join(root, "src", "programs");
  const entryPoints = readdirSync(programs)
    .filter((name) => name.endsWith(".ts"))
    .map((name) => ({ in: join(programs, name), out: name.replace(/\.ts$/, "") }));
  entryPoints.push({ in: join(root, "src", "client", "index.ts"), out: "client" });
  // A thread is a program of its own.
  entryPoints.push({ in: join(root, "src", "bolt", "thread.ts"), out: "bolt-thread" });
  entryPoints.push({ in: join(root, "src", "mvcc", "backend", "received-thread.ts"), out: "received-thread" });
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
