// Imports point downward only: a folder of src/ may import itself and the folders named before it.
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";

const layers = [
  ["base"],
  ["config"],
  ["proto"],
  ["raft"],
  ["wal", "bolt"],
  ["mvcc"],
  ["lease", "auth", "membership"],
  ["server"],
  ["rpc"],
  ["peer"],
  ["api"],
  ["client"],
  ["ctl", "utl"],
  ["deploy"],
  ["console"],
  ["programs"],
];
// raft/ is pure: no I/O, no clock, no randomness but what is passed in.
const pure = { raft: ["base", "proto", "raft"] };

const rank = new Map(layers.flatMap((folders, i) => folders.map((folder) => [folder, i])));
const src = join(dirname(fileURLToPath(import.meta.url)), "..", "src");
const problems = [];

function check(file) {
  const folder = relative(src, file).split(sep)[0];
  if (!rank.has(folder)) problems.push(`${file}: folder ${folder} has no layer in scripts/check-imports.mjs`);
  for (const match of readFileSync(file, "utf8").matchAll(/(?:from|import)\s*\(?\s*"([^"]+)"/g)) {
    const target = match[1];
    if (!target.startsWith(".")) {
      if (pure[folder]) problems.push(`${relative(src, file)}: ${folder}/ is pure and may not import ${target}`);
      continue;
    }
    const other = relative(src, resolve(dirname(file), target)).split(sep)[0];
    if (other === folder) continue;
    if (!rank.has(other) || rank.get(other) >= rank.get(folder) || (pure[folder] && !pure[folder].includes(other))) {
      problems.push(`${relative(src, file)}: ${folder}/ may not import ${other}/ (${target})`);
    }
  }
}

for (const entry of readdirSync(src, { withFileTypes: true, recursive: true })) {
  if (entry.isFile() && entry.name.endsWith(".ts")) check(join(entry.parentPath ?? entry.path, entry.name));
}
for (const problem of problems) console.error(problem);
process.exit(problems.length === 0 ? 0 : 1);
