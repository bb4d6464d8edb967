/**
 * Checks the documents against the repository. Every file and folder named in them or in comments exists, links have
 * targets, tables have headings, every npm script, option and metric exists, CONTRIBUTING.md has every script and every
 * KVORUM_ variable. Prints violations and then fails.
 *
 *   npm run check:docs
 *   node scripts/check-docs.mjs DIR      another tree, for the test of this check
 */
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = resolve(process.argv[2] ?? join(dirname(fileURLToPath(import.meta.url)), ".."));
const CODE = ["src", "test", "bench", "scripts", "bin", "examples", ".ci"];
/** Names of other programs: Node, npm, git, docker and the system. */
const OTHERS_OPTIONS = new Set(
  "cpu-prof cpu-prof-dir inspect inspect-brk import test-name-pattern test-only privileged rm version help user now global".split(
    " ",
  ),
);
/** The files that must contain the options of a command. */
const PROGRAMS = [
  [/kvorum (up|ps|down|cert|cluster)\b/, ["src/deploy"]],
  [/kvorum (backup|restore)\b/, ["src/backup", "src/utl/commands/snapshot.ts"]],
  [/kvorum pod\b/, ["src/pod", "src/config"]],
  [/npm run bench -- stalls/, ["bench/stalls"]],
  [/npm run bench -- database/, ["bench/database"]],
  [/npm run bench -- client/, ["bench/client"]],
  [/npm run bench\b/, ["bench/main.ts"]],
  [/npm run sim(:coverage)?\b/, ["test/sim/main.ts"]],
  [/npm run soak\b/, ["test/client/soak"]],
  [/npm run faults\b/, ["test/faults/main.ts"]],
  [/npm run tla\b/, ["test/raft/tla/main.ts"]],
  [/npm (test|run test)\b/, ["scripts/test.mjs"]],
  [/(^|[\s/"'=(])kvorum doctor\b/, ["src/doctor", "src/ctl"]],
  [/\betcd (gateway|grpc-proxy)\b/, ["src/proxy"]],
  [/(^|[\s/"'=(])etcdctl\b/, ["src/ctl"]],
  [/(^|[\s/"'=(])etcdutl\b/, ["src/utl"]],
  [/(^|[\s/"'=(])etcd\b|npm start\b/, ["src/config", "src/programs"]],
];

/** File names in comments; of documents and contracts only our own, because standards are named too. */
const NAMED_FILE =
  /(?<![\w/.:@~-])(?:(?:[\w.-]+\/)*[\w-][\w.-]*\.(?:ts|mjs|sh)|(?:docs|proto|examples)\/[\w./-]+\.(?:md|proto)|(?:README|CONTRIBUTING)\.md)(?![\w/(-])/g;

const problems = [];
const texts = new Map();
const files = filesUnder("");
const folders = new Set(files.flatMap(ancestors));
const tops = new Set([...folders].filter((path) => !path.includes("/")));
const rooms = new Set([...folders].filter((path) => /^src\/[^/]+$/.test(path)).map((path) => path.slice(4)));
const scripts = Object.keys(JSON.parse(readFileSync(join(root, "package.json"), "utf8")).scripts);

for (const file of files) {
  if (isDocument(file)) checkDocument(file);
  else if (isCode(file)) checkComments(file);
}
checkContributing();
for (const problem of problems) console.error(problem);
process.exit(problems.length === 0 ? 0 : 1);

function filesUnder(folder) {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = folder === "" ? entry.name : `${folder}/${entry.name}`;
    if (["node_modules", ".git", "coverage"].includes(entry.name) || /^dist|\.etcd$/.test(entry.name)) return [];
    return entry.isDirectory() ? filesUnder(path) : [path];
  });
}

function ancestors(path) {
  const parts = path.split("/");
  return parts.slice(1).map((_, i) => parts.slice(0, i + 1).join("/"));
}

/** CHANGELOG.md may name what existed earlier. */
function isDocument(file) {
  return file.endsWith(".md") && file !== "CHANGELOG.md";
}

function isCode(file) {
  return CODE.includes(file.split("/")[0]) && !/\.(json|txt|pem)$/.test(file);
}

function checkDocument(file) {
  const text = readFileSync(join(root, file), "utf8");
  for (const [, target] of text.matchAll(/\]\(([^)\s]+)\)/g)) checkLink(file, target);
  for (const [, first, second] of text.matchAll(/(?:^|\n)\n(\|.*)\n(.*)/g)) {
    if (!/^\|[ :|-]+$/.test(second)) problems.push(`${file}: a table begins without its head: ${first.slice(0, 80)}`);
  }
  for (const code of codeOf(text)) {
    for (const token of code.split(/[\s,;()"'=<>|]+/)) checkPath(file, token);
    checkScripts(file, code);
    checkOptions(file, code);
    checkMetrics(file, code);
  }
}

/** Text between backticks, and each line of a block. */
function codeOf(text) {
  const blocks = [...text.matchAll(/^```\w*\n([\s\S]*?)^```/gm)].flatMap(([, block]) => linesOf(block));
  const indented = text.split("\n").filter((line) => /^ {4}\S/.test(line));
  const spans = [...text.replaceAll(/^```[\s\S]*?^```/gm, "").matchAll(/`([^`]+)`/g)].map(([, span]) => span);
  return [...blocks, ...indented, ...spans];
}

/** A line that ends with a backslash continues in the next one. */
function linesOf(block) {
  return block.replaceAll(/\\\n\s*/g, "").split("\n");
}

function checkLink(file, target) {
  if (/^[a-z]+:/.test(target) || target.startsWith("#")) return;
  if (!existsSync(join(root, dirname(file), target.split("#")[0]))) problems.push(`${file}: no file ${target}`);
}

/** A path below the root or src/, the name of a source file, or a prefix of a test's path as npm test accepts it. */
function checkPath(file, token) {
  const path = token
    .replace(/^\.\//, "")
    .replace(/[.:,]+$/, "")
    .replace(/\/$/, "");
  const isSource = /^[\w-]+(\.[\w-]+)*\.(ts|mjs)$/.test(path);
  const first = path.split("/")[0];
  const isPath = path.includes("/") && /^[\w.@*-]+(\/[\w.@*-]+)+$/.test(path) && (tops.has(first) || rooms.has(first));
  if (!isSource && !isPath) return;
  if (!isThere(path, file)) problems.push(`${file}: ${token} is not there`);
}

function isThere(path, from) {
  const pattern = new RegExp(
    `(^|/)${path.replaceAll(".", "\\.").replaceAll("*", "[^/]*")}${/\.\w+$/.test(path) ? "$" : ""}`,
  );
  const isKnown = (each) =>
    pattern.test(each) && (path.split("/").length > 1 || each.endsWith(`/${path}`) || each === path);
  return files.some(isKnown) || existsSync(join(root, dirname(from), path));
}

function checkScripts(file, text) {
  for (const [, name] of text.matchAll(/npm run ([a-z][\w:-]*)/g)) {
    if (!scripts.includes(name)) problems.push(`${file}: package.json has no script ${name}`);
  }
}

function checkOptions(file, code) {
  const options = [...code.matchAll(/(?<=^|[\s`"'(|[])--([a-z][\w-]*)/g)].map(([, name]) => name);
  if (options.length === 0) return;
  const program = PROGRAMS.find(([pattern]) => pattern.test(code));
  const places = program === undefined ? PROGRAMS.flatMap(([, each]) => each) : program[1];
  for (const option of options) {
    if (OTHERS_OPTIONS.has(option) || isKnownOption(option, places)) continue;
    problems.push(`${file}: nobody knows the option --${option} (${code.trim().slice(0, 80)})`);
  }
}

function isKnownOption(option, places) {
  const named = new RegExp(`["'\`](--)?${option}["'\`]|--${option}(?![\\w-])|\\b${option}: `);
  return files.some(
    (file) => places.some((place) => file === place || file.startsWith(`${place}/`)) && named.test(read(file)),
  );
}

/** A star stands for the rest of several names. */
function checkMetrics(file, code) {
  for (const [, name] of code.matchAll(/\b(kvorum_[a-z_]+)/g)) {
    const isKnown = files.some((each) => each.startsWith("src/") && read(each).includes(name));
    if (!isKnown) problems.push(`${file}: the server has no metric ${name}`);
  }
}

function read(file) {
  if (!texts.has(file)) texts.set(file, readFileSync(join(root, file), "utf8"));
  return texts.get(file);
}

/** Comments name files more loosely: relative to their own folder, or only by name. */
function checkComments(file) {
  if (statSync(join(root, file)).size > 1 << 20) return;
  for (const comment of commentsOf(read(file))) {
    checkScripts(file, comment);
    for (const [path] of comment.matchAll(NAMED_FILE)) {
      if (!isThere(path, file)) problems.push(`${file}: a comment names ${path}, which is not there`);
    }
  }
}

function commentsOf(text) {
  return [...text.matchAll(/\/\*[\s\S]*?\*\/|(?<=^|\s)\/\/ .*|(?<=^|\s)# .*/gm)].map(([comment]) => comment);
}

function checkContributing() {
  const file = "CONTRIBUTING.md";
  const text = files.includes(file) ? read(file) : "";
  for (const script of scripts) {
    const named = script === "test" || script === "start" ? `npm ${script}` : `npm run ${script}`;
    if (!/^(pre|post)/.test(script) && !new RegExp(`${named}(?![\\w:-])`).test(text))
      problems.push(`${file}: does not name "${named}"`);
  }
  const rows = new Set([...text.matchAll(/^\| (`KVORUM_.*?) \|/gm)].flatMap(([, cell]) => cell.match(/KVORUM_\w+/g)));
  const used = new Set(files.filter(isCode).flatMap(variablesOf));
  for (const name of used) if (!rows.has(name)) problems.push(`${file}: the table of variables lacks ${name}`);
  for (const name of rows) if (!used.has(name)) problems.push(`${file}: nothing reads ${name}`);
}

function variablesOf(file) {
  const reads = /\.(ts|mjs)$/.test(file) ? /\benv(?:\["|\.)(KVORUM_\w+)/g : /\$\{?(KVORUM_\w+)/g;
  return [...read(file).matchAll(reads)].map(([, name]) => name);
}
