// Prints where Node's CPU profiles spent their time: the functions with the largest self time, by location in src/. Idle
// time is excluded. Each thread of a process leaves a profile of its own. Usage:
// node scripts/profile-top.mjs FILE.cpuprofile … [COUNT]
import { existsSync, readFileSync } from "node:fs";
import { SourceMap } from "node:module";
import { relative } from "node:path";
import { fileURLToPath } from "node:url";

const args = process.argv.slice(2);
const files = args.filter((arg) => !/^\d+$/.test(arg));
const count = Number(args.find((arg) => /^\d+$/.test(arg)) ?? 30);
if (files.length === 0) {
  console.error("usage: node scripts/profile-top.mjs FILE.cpuprofile … [COUNT]");
  process.exit(2);
}
const maps = new Map();

/** The bundles in dist/ have source maps beside them. */
function mapOf(path) {
  if (!maps.has(path)) {
    const known = existsSync(`${path}.map`);
    maps.set(path, known ? new SourceMap(JSON.parse(readFileSync(`${path}.map`, "utf8"))) : undefined);
  }
  return maps.get(path);
}

function nameOf({ functionName, url, lineNumber, columnNumber }) {
  const name = functionName || "(anonymous)";
  if (!url.startsWith("file:")) return url === "" ? name : `${name} ${url}`;
  const path = fileURLToPath(url);
  const source = mapOf(path)?.findEntry(lineNumber, columnNumber);
  if (source?.originalSource === undefined) return `${name} ${relative(process.cwd(), path)}:${lineNumber + 1}`;
  return `${name} ${source.originalSource.replace(/^(\.\.\/)+/, "")}:${source.originalLine + 1}`;
}

function printTop(file) {
  const { nodes, samples, timeDeltas } = JSON.parse(readFileSync(file, "utf8"));
  const frames = new Map(nodes.map(({ id, callFrame }) => [id, callFrame]));
  const self = new Map();
  let total = 0;
  samples.forEach((id, i) => {
    const name = nameOf(frames.get(id));
    if (name === "(idle)") return;
    self.set(name, (self.get(name) ?? 0) + timeDeltas[i]);
    total += timeDeltas[i];
  });
  console.log(`${file}: ${(total / 1000).toFixed(0)} ms of work`);
  for (const [name, micros] of [...self].sort((a, b) => b[1] - a[1]).slice(0, count)) {
    console.log(
      `${((100 * micros) / total).toFixed(1).padStart(5)} %  ${(micros / 1000).toFixed(0).padStart(7)} ms  ${name}`,
    );
  }
}

for (const file of files) printTop(file);
