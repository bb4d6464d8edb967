// The project's rules that neither the compiler nor the linter checks. Exceptions, with their reasons, are in
// scripts/style.json; its numbers may only decrease: `node scripts/check-style.mjs --lower` writes the lower ones.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, relative, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { tokensOf } from "./tokens.mjs";

const { values } = parseArgs({ options: { lower: { type: "boolean", default: false } } });

// The formatter limits code to 120; a comment may end a little later.
const LINE_LENGTH_MAX = 130;
const FILE_LINES_MAX = 500;

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const allowedPath = join(root, "scripts", "style.json");
const allowed = JSON.parse(readFileSync(allowedPath, "utf8"));
const problems = [];
const files = ["src", "test", "bench", "scripts"].flatMap((dir) => sourcesUnder(join(root, dir)).map(read));
const sources = files.filter(({ path }) => path.startsWith("src/") && !path.startsWith("src/proto/"));
const tests = files.filter(({ path }) => path.startsWith("test/"));
/** A request and its answer are typed from the call to the applied entry and back. */
const REQUEST_PATH = ["src/api/calls/", "src/api/range/", "src/api/services/", "src/server/apply/", "src/server/log/"];

noClockOutsideTheSeams();
noSleepInTests();
everyExpectedErrorIsNamed();
everyFileSaysWhatItOwns();
linesAreShort();
filesAreShort();
exportsAreImported();
castsOnlyFall();
wordsArePlain();

for (const problem of problems) console.error(problem);
process.exit(problems.length === 0 ? 0 : 1);

/** A simulation is only as good as its control: time and randomness must come through Clock and Random. */
function noClockOutsideTheSeams() {
  const seams = /^(Date\.now|performance\.now|process\.hrtime|setTimeout|setInterval|setImmediate|Math\.random)$/;
  const random = /^(randomBytes|randomInt|randomUUID|getRandomValues|randomFillSync)$/;
  for (const { path, words, lineOf } of sources) {
    for (const { name, start } of words) {
      if (seams.test(name) || random.test(name)) {
        if (allowed.seams[path] === undefined)
          problems.push(`${path}:${lineOf(start)}: ${name} is outside the seams; take Clock or Random`);
      }
    }
  }
  unusedReasons("seams", (path) => sources.some((each) => each.path === path));
}

/**
 * A test waits for a condition (test/harness/wait.ts) or advances a virtual clock; a fixed time is too short on a busy
 * machine.
 */
function noSleepInTests() {
  for (const { path, text, lineOf } of tests) {
    if (path === "test/harness/wait.ts" || Object.keys(allowed.sleeps).some((prefix) => path.startsWith(prefix)))
      continue;
    for (const { index } of text.matchAll(
      /=> setTimeout\(resolve|setTimeout( as \w+)? \} from "node:timers\/promises"/g,
    )) {
      problems.push(`${path}:${lineOf(index)}: sleeps; wait for a condition or turn a virtual clock`);
    }
  }
  unusedReasons("sleeps", (prefix) => tests.some(({ path }) => path.startsWith(prefix)));
}

/** A test that accepts any failure as the expected one passes when the code fails for another reason. */
function everyExpectedErrorIsNamed() {
  for (const { path, text, tokens, lineOf } of tests) {
    const at = (i) => text.slice(tokens[i].start, tokens[i].end);
    for (let i = 0; i + 1 < tokens.length; i++) {
      if (!["rejects", "throws"].includes(at(i)) || at(i + 1) !== "(") continue;
      let depth = 0;
      let commas = 0;
      for (let j = i + 1; ; j++) {
        if ("([{".includes(at(j))) depth++;
        else if (")]}".includes(at(j)) && --depth === 0) break;
        else if (at(j) === "," && depth === 1 && at(j + 1) !== ")") commas++;
      }
      if (commas === 0) problems.push(`${path}:${lineOf(tokens[i].start)}: say which error is expected`);
    }
  }
}

function everyFileSaysWhatItOwns() {
  // The comment is at the top, or before the first statement that is not an import.
  const without = sources.filter(({ text }) => !/^(?:#!.*\n)?(?:import [\s\S]*?;\n|\n)*\/(?:\*\*|\/)/.test(text));
  atMost("filesWithoutHeadComment", without.length, () => without.map(({ path }) => path).join(", "));
}

function linesAreShort() {
  for (const { path, text } of files) {
    if (path.startsWith("src/proto/")) continue;
    text.split("\n").forEach((line, i) => {
      if (line.length > LINE_LENGTH_MAX && !/["`/]/.test(line))
        problems.push(`${path}:${i + 1}: ${line.length} characters`);
    });
  }
}

function filesAreShort() {
  for (const { path, text } of sources) {
    const lines = text.split("\n").length - 1;
    const limit = allowed.longFiles[path] ?? FILE_LINES_MAX;
    if (lines > limit) problems.push(`${path}: ${lines} lines, ${limit} are allowed; split it by what it is about`);
    if (allowed.longFiles[path] !== undefined)
      lower(allowed.longFiles, path, lines <= FILE_LINES_MAX ? undefined : lines);
  }
  unusedReasons("longFiles", (path) => sources.some((each) => each.path === path));
}

/**
 * Types may be exported for documentation; an exported value that is never imported is dead, and one imported only by
 * tests is counted.
 */
function exportsAreImported() {
  const program = importedBy(files.filter(({ path }) => !path.startsWith("test/")));
  const everything = importedBy(files);
  let forTests = 0;
  const dead = [];
  const value = /^export (?:abstract )?(?:async )?(?:const|let|function\*?|class) (\w+)/gm;
  for (const { path, text } of sources) {
    if (path.startsWith("src/programs/") || program.has(`${path}:*`)) continue;
    for (const [, name] of text.matchAll(value)) {
      if (program.has(`${path}:${name}`)) continue;
      if (everything.has(`${path}:${name}`) || everything.has(`${path}:*`)) forTests++;
      else dead.push(`${path} ${name}`);
    }
  }
  atMost("unusedExports", dead.length, () => dead.join("\n  "));
  atMost("exportsForTestsAlone", forTests, () => "import it somewhere, or test it through what uses it");
}

function importedBy(importers) {
  const imported = new Set();
  const statement = /(?:import|export) (?:type )?(\*(?: as \w+)?|\w+|(?:\w+, )?\{[^}]*\}) from "(\.[^"]*)"/g;
  for (const { path, text } of importers) {
    const target = (from) =>
      relative(root, resolve(root, dirname(path), from))
        .split(sep)
        .join("/");
    for (const [, names, from] of text.matchAll(statement)) {
      if (names.startsWith("*")) imported.add(`${target(from)}:*`);
      for (const [, name] of names.matchAll(/(\w+)(?: as \w+)?\s*[,}]/g)) imported.add(`${target(from)}:${name}`);
    }
    for (const [, from] of text.matchAll(/import\(\s*"(\.[^"]*)"/g)) imported.add(`${target(from)}:*`);
  }
  return imported;
}

/** At each cast the compiler relies on us. */
function castsOnlyFall() {
  const counts = {};
  const onRequestPath = new Set();
  for (const { path, text, tokens } of sources) {
    const folder = path.split("/").slice(0, 2).join("/");
    let inImport = false;
    for (const [i, { start, end }] of tokens.entries()) {
      const token = text.slice(start, end);
      if (token === "import" || (token === "export" && text[end + 1] === "{")) inImport = true;
      else if (token === ";") inImport = false;
      else if (token === "as" && !inImport && text.slice(tokens[i + 1].start, tokens[i + 1].end) !== "const") {
        counts[folder] = (counts[folder] ?? 0) + 1;
        if (REQUEST_PATH.some((prefix) => path.startsWith(prefix))) onRequestPath.add(path);
      }
    }
  }
  for (const path of onRequestPath)
    if (allowed.castsOnRequestPath[path] === undefined) problems.push(`${path}: a cast on the path of a request`);
  unusedReasons("castsOnRequestPath", (path) => onRequestPath.has(path));
  for (const folder of Object.keys({ ...counts, ...allowed.casts })) {
    const [count, limit] = [counts[folder] ?? 0, allowed.casts[folder] ?? 0];
    if (count > limit) problems.push(`${folder}: ${count} casts, ${limit} are allowed; let the types say it`);
    lower(allowed.casts, folder, count === 0 ? undefined : count);
  }
}

function atMost(what, count, which) {
  if (count > allowed[what]) problems.push(`${what}: ${count}, ${allowed[what]} are allowed:\n  ${which()}`);
  lower(allowed, what, count);
}

/** Comments, test names and messages use present-day English. These words made readers stop. */
function wordsArePlain() {
  const quaint = /\b(whoever|nobody's|lest|hand(s|ed)? in|mended|under way|anew|in the place of|thrown on)\b/i;
  for (const { path, text } of files) {
    if (path.startsWith("src/proto/") || path === "scripts/check-style.mjs") continue;
    text.split("\n").forEach((line, i) => {
      const found = quaint.exec(line)?.[0];
      if (found !== undefined) problems.push(`${path}:${i + 1}: "${found}": say it in plainer words`);
    });
  }
}

/** With --lower, a lower number becomes the limit. */
function lower(limits, key, count) {
  if (!values.lower || !(key in limits) || (count ?? 0) >= limits[key]) return;
  if (count === undefined) delete limits[key];
  else limits[key] = count;
  writeFileSync(allowedPath, `${JSON.stringify(allowed, null, 2)}\n`);
}

function unusedReasons(list, isThere) {
  for (const path of Object.keys(allowed[list])) {
    if (!isThere(path)) problems.push(`scripts/style.json: ${list} has ${path}, which is not there`);
  }
}

function read(absolute) {
  const path = relative(root, absolute).split(sep).join("/");
  const text = readFileSync(absolute, "utf8");
  const tokens = path.startsWith("src/proto/") ? [] : tokensOf(text);
  // Words, with the name before a dot: a rule looks for one word or two.
  const words = tokens.flatMap(({ kind, start, end }, i) => {
    if (kind !== "word") return [];
    const word = text.slice(start, end);
    const before = tokens[i - 2];
    if (text[start - 1] !== ".") return [{ name: word, start }];
    return before === undefined ? [] : [{ name: `${text.slice(before.start, before.end)}.${word}`, start }];
  });
  return { path, text, tokens, words, lineOf: (at) => text.slice(0, at).split("\n").length };
}

function sourcesUnder(dir) {
  return readdirSync(dir, { withFileTypes: true })
    .flatMap((entry) => {
      const path = join(dir, entry.name);
      if (entry.isDirectory()) return sourcesUnder(path);
      return entry.name.endsWith(".ts") ? [path] : [];
    })
    .sort();
}
