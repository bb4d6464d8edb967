// Generates docs/api/*.md, a page for each library, from the declarations that the compiler makes of them and the comments
// in these. `--check` writes nothing, and fails when a page would differ or an exported symbol has no comment.
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const { values } = parseArgs({ options: { check: { type: "boolean", default: false } } });
const root = join(dirname(fileURLToPath(import.meta.url)), "..");

const PAGES = [
  {
    name: "client",
    module: "kvorum/client",
    source: "client",
    about: "The client: [client.md](../client.md) says how it behaves.",
  },
  {
    name: "embedded",
    module: "kvorum",
    source: "embedded",
    about:
      "etcd inside the process ([embedded.md](../embedded.md)). It also exports all of [`kvorum/client`](client.md).",
  },
  {
    name: "testing",
    module: "kvorum/testing",
    source: "testing",
    about: "For files of tests. It also exports all of [`kvorum`](embedded.md).",
  },
  {
    name: "etcd3",
    module: "kvorum/etcd3",
    source: "etcd3",
    about:
      "The surface of the npm package `etcd3` ([client-etcd3.md](../client-etcd3.md)), which documents it in full.",
  },
] as const;

/** A declaration: its comment, and its text without the comments in it. */
interface Symbol {
  readonly name: string;
  readonly doc: string;
  readonly code: string;
  readonly members: readonly { readonly name: string; readonly doc: string }[];
}

const problems: string[] = [];

function main(): void {
  const dir = mkdtempSync(join(root, "node_modules", ".api-"));
  try {
    declarations(dir);
    for (const page of PAGES) {
      const file = join(root, "docs", "api", `${page.name}.md`);
      const text = pageOf(page, symbolsOf(join(dir, page.source, "index.d.ts"), join(dir, page.source)));
      if (existsSync(file) && readFileSync(file, "utf8") === text) continue;
      if (values.check) problems.push(`docs/api/${page.name}.md is not what the libraries are: run "npm run gen:api"`);
      else {
        mkdirSync(dirname(file), { recursive: true });
        writeFileSync(file, text);
      }
    }
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
  for (const problem of problems) console.error(problem);
  if (problems.length > 0) process.exitCode = 1;
}

/** The declarations of the libraries and all that they need, below `dir`. */
function declarations(dir: string): void {
  const settings = join(dir, "tsconfig.json");
  const compilerOptions = {
    noEmit: false,
    declaration: true,
    emitDeclarationOnly: true,
    outDir: dir,
    rootDir: join(root, "src"),
    typeRoots: [join(root, "node_modules", "@types")],
  };
  const files = PAGES.map(({ source }) => join(root, "src", source, "index.ts"));
  writeFileSync(
    settings,
    JSON.stringify({ extends: join(root, "tsconfig.json"), compilerOptions, files, include: [] }),
  );
  execFileSync(process.execPath, [join(root, "node_modules", "typescript", "bin", "tsc"), "-p", settings], {
    stdio: "inherit",
  });
}

/** What a module exports itself, in order of names; what it passes on from another library stands on that one's page. */
function symbolsOf(file: string, folder: string): Symbol[] {
  const text = readFileSync(file, "utf8");
  const own = declared(text).filter(({ name }) => exported(text, name));
  for (const [, names, from] of text.matchAll(/^export (?:type )?\{([^}]*)\} from "(\.[^"]+)";/gm)) {
    const there = join(dirname(file), from!.replace(/\.ts$/, ".d.ts"));
    const all = declared(readFileSync(there, "utf8"));
    for (const each of names!.split(",")) {
      const name = each.trim().replace(/^type /, "");
      const found = all.find((symbol) => symbol.name === name);
      if (found !== undefined) own.push(found);
      else if (name !== "") problems.push(`${there} has no ${name}`);
    }
  }
  for (const [, from] of text.matchAll(/^export (?:type )?\* from "(\.[^"]+)";/gm)) {
    const there = join(dirname(file), from!.replace(/\.ts$/, ".d.ts"));
    if (dirname(there) === folder) own.push(...symbolsOf(there, folder));
  }
  return own.sort((a, b) => a.name.localeCompare(b.name, "en"));
}

const STARTS = /^export (?:declare )?(?:abstract )?(?:class|interface|type|const|function) (\w+)/;

const exported = (text: string, name: string): boolean =>
  text.split("\n").some((line) => STARTS.exec(line)?.[1] === name);

/** All declarations of a file. The compiler begins each, and the comment before it, at the beginning of a line. */
function declared(text: string): Symbol[] {
  const found: Symbol[] = [];
  let comment: string[] = [];
  let lines: string[] = [];
  const end = () => {
    const name = STARTS.exec(lines[0] ?? "")?.[1];
    if (name !== undefined) found.push({ name, doc: docOf(comment), ...inside(lines) });
    comment = [];
    lines = [];
  };
  let isComment = false;
  for (const line of text.split("\n")) {
    if (line.startsWith("/**") || /^(?:export|import|declare|\/\/)/.test(line)) {
      if (lines.length > 0) end();
      isComment = line.startsWith("/**");
    }
    (isComment ? comment : lines).push(line);
    if (isComment && line.endsWith("*/")) isComment = false;
  }
  end();
  return found;
}

/** A declaration without its comments, and the members that have some. */
function inside(lines: readonly string[]): Pick<Symbol, "code" | "members"> {
  const code: string[] = [];
  const members: { name: string; doc: string }[] = [];
  let comment: string[] = [];
  let isComment = false;
  for (const line of lines) {
    if (/^\s+\/\*\*/.test(line)) {
      isComment = true;
      comment = [];
    }
    if (isComment) {
      comment.push(line);
      if (line.endsWith("*/")) isComment = false;
      continue;
    }
    const doc = docOf(comment);
    comment = [];
    if (isInternal(doc) || /^ {4}#private;/.test(line)) continue;
    code.push(line.replace(/^(?: {4})+/, (indent) => indent.slice(indent.length / 2)));
    const name = /^ {4}(?:readonly |static |get |set |\| \{ readonly )*(\[?[\w.]+\]?)/.exec(line)?.[1];
    if (doc !== "" && name !== undefined) members.push({ name, doc });
  }
  const text = code
    .join("\n")
    .trimEnd()
    .replace(/^export (?:declare )?/, "");
  return { code: text, members };
}

const docOf = (comment: readonly string[]): string =>
  comment
    .map((line) => line.replace(/^\s*\/?\*+\/? ?/, "").replace(/ ?\*\/$/, ""))
    .join("\n")
    .trim();

const isInternal = (doc: string): boolean => /@internal\b/.test(doc);

function pageOf({ module, about }: (typeof PAGES)[number], symbols: readonly Symbol[]): string {
  const shown = symbols.filter(({ doc }) => !isInternal(doc));
  for (const { name, doc } of shown)
    if (doc === "" && module !== "kvorum/etcd3") problems.push(`${module}: ${name} has no comment`);
  const head = [`# ${module}`, "", about, "", 'Generated from the sources by "npm run gen:api".', ""];
  return `${[...head, ...shown.map(sectionOf)].join("\n").trimEnd()}\n`;
}

function sectionOf({ name, doc, code, members }: Symbol): string {
  const parts = [`## ${name}`, "", ...textOf(doc), "```ts", code, "```", ""];
  for (const member of members) {
    const [text, ...examples] = textOf(member.doc, true);
    parts.push(`- \`${member.name}\`: ${text!.replaceAll("\n", " ")}`, ...examples);
  }
  return [...parts, ""].join("\n");
}

/** The words, then the examples as code; `indented` for those below an item of a list. */
function textOf(doc: string, indented = false): string[] {
  if (doc === "") return [];
  const [words, ...examples] = doc.split(/^@example\n?/m);
  const text = words!.replaceAll(/^@param (\w+)/gm, "`$1`:").trim();
  const lines = examples.flatMap((each) => ["", "```ts", ...each.trim().split("\n"), "```", ""]);
  return indented ? [text, ...lines.map((line) => (line === "" ? "" : `  ${line}`))] : [text, "", ...lines];
}

main();
