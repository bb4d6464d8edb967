/**
 * Checks the layering of src/: imports point downward only, and no files import each other in a circle.
 *
 * A folder may import itself and the folders above it in `floors`. The same holds for the subfolders (`rooms`) of a
 * folder: each may import itself and those before it; the folder's own files have their place among them.
 */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";

const floors = [
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
  ["embedded"],
  ["testing", "etcd3"],
  ["ctl", "utl", "proxy"],
  ["doctor"],
  ["backup"],
  ["deploy"],
  ["pod"],
  ["console"],
  ["programs"],
];

/** From bottom to top; "." are the files of the folder itself. */
const rooms = {
  config: ["values", "settings", ".", "sources", "machine", "checks", "load"],
  mvcc: ["model", "backend", "index", "store", "watch"],
  server: ["contract", "log", "apply", "snapshot", "start", "replication", "duties", "."],
  api: ["tracing", "listeners", "calls", "audit", "http", "range", "services", "gateway", "."],
  deploy: ["common", "pki", "inventory", "render", "steps", "cluster", "hosts", "operations", "local", "commands", "."],
};

/** Pure: no I/O, no clock, and no randomness except what is passed in. */
const pure = { raft: ["base", "proto", "raft"] };

/** Permitted circles of type imports, each with its reason. At run time no file depends on one that depends on it. */
const explainedCircles = [
  {
    why: "the state of a raft node, and functions over it by theme: one class in several files",
    files: "describe membership proposal raft ready replication status".split(" ").map((name) => `raft/${name}.ts`),
  },
  {
    why: "a connection of HTTP/2 with its streams and its sender, which hold each other",
    files: "call connection giving-up incoming intake keepalive packing plain receiving sender stream-table stream"
      .split(" ")
      .map((name) => `rpc/${name}.ts`),
  },
  {
    why: "a client's calls and what makes them, which hold each other",
    files: "caller stream-call tokens unary-call".split(" ").map((name) => `client/${name}.ts`),
  },
  {
    why: "a namespace of the etcd3 surface, and the elections in it",
    files: "election namespace".split(" ").map((name) => `etcd3/${name}.ts`),
  },
  {
    why: "a client's connection of HTTP/2 with its calls, which hold each other",
    files: "call connection sender".split(" ").map((name) => `client/transport/${name}.ts`),
  },
];

const src = join(dirname(fileURLToPath(import.meta.url)), "..", "src");
const rank = new Map(floors.flatMap((folders, floor) => folders.map((folder) => [folder, floor])));
const problems = [];
/** File -> files that it imports, as paths below src/; and those it needs at run time, not only for types. */
const imports = new Map();
const needs = new Map();

function roomOf(path) {
  const parts = path.split(sep);
  return parts.length > 2 ? parts[1] : ".";
}

function checkRooms(file, target) {
  const folder = file.split(sep)[0];
  const order = rooms[folder];
  if (order === undefined) return;
  const [from, to] = [roomOf(file), roomOf(target)];
  for (const room of [from, to]) {
    if (!order.includes(room))
      problems.push(`${file}: room ${folder}/${room} has no place in scripts/check-imports.mjs`);
  }
  if (order.indexOf(to) > order.indexOf(from)) problems.push(`${file}: ${from}/ may not import ${to}/ (${target})`);
}

function check(file) {
  const folder = file.split(sep)[0];
  const imported = new Set();
  const needed = new Set();
  imports.set(file, imported);
  needs.set(file, needed);
  if (!rank.has(folder)) problems.push(`${file}: folder ${folder} has no floor in scripts/check-imports.mjs`);
  const text = readFileSync(join(src, file), "utf8");
  const types = new Set([...text.matchAll(/^import type [^;]*?from "([^"]+)"/gm)].map((match) => match[1]));
  for (const [, specifier] of text.matchAll(/(?:from|import)\s*\(?\s*"([^"]+)"/g)) {
    if (!specifier.startsWith(".")) {
      if (pure[folder]) problems.push(`${file}: ${folder}/ is pure and may not import ${specifier}`);
      continue;
    }
    const target = relative(src, resolve(src, dirname(file), specifier));
    const other = target.split(sep)[0];
    imported.add(target);
    if (!types.has(specifier)) needed.add(target);
    if (other === folder) checkRooms(file, target);
    else if (
      !rank.has(other) ||
      rank.get(other) >= rank.get(folder) ||
      (pure[folder] && !pure[folder].includes(other))
    ) {
      problems.push(`${file}: ${folder}/ may not import ${other}/ (${specifier})`);
    }
  }
}

/** Tarjan's strongly connected components; a component of more than one file is a circle. */
function circlesOf(graph) {
  const found = [];
  const order = new Map();
  const low = new Map();
  const stack = [];
  const onStack = new Set();
  const visit = (file) => {
    order.set(file, order.size);
    low.set(file, order.get(file));
    stack.push(file);
    onStack.add(file);
    for (const next of graph.get(file) ?? []) {
      if (!graph.has(next)) continue;
      if (!order.has(next)) {
        visit(next);
        low.set(file, Math.min(low.get(file), low.get(next)));
      } else if (onStack.has(next)) low.set(file, Math.min(low.get(file), order.get(next)));
    }
    if (low.get(file) !== order.get(file)) return;
    const component = [];
    for (let member; member !== file; component.push(member)) {
      member = stack.pop();
      onStack.delete(member);
    }
    if (component.length > 1) found.push(component.sort());
  };
  for (const file of graph.keys()) if (!order.has(file)) visit(file);
  return found;
}

for (const entry of readdirSync(src, { withFileTypes: true, recursive: true })) {
  if (entry.isFile() && entry.name.endsWith(".ts"))
    check(relative(src, join(entry.parentPath ?? entry.path, entry.name)));
}
const explained = new Set(explainedCircles.map(({ files }) => files.join(" ")));
const found = circlesOf(imports).map((circle) => circle.join(" "));
for (const circle of found) if (!explained.has(circle)) problems.push(`a circle of imports: ${circle}`);
for (const circle of explained)
  if (!found.includes(circle)) problems.push(`a circle is gone, explain it no more: ${circle}`);
for (const circle of circlesOf(needs)) problems.push(`a circle of what the program runs: ${circle.join(" ")}`);
for (const problem of problems) console.error(problem);
process.exit(problems.length === 0 ? 0 : 1);
