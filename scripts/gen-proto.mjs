// Generates src/proto/*.ts from proto/. `--check` writes nothing and fails when the result would differ.
//
// Fields are camelCase; 64-bit integers are numbers, ids (see isId) bigints; enums are plain numbers with a const
// object of names; a member of a oneof, and a nested message, is undefined when absent. proto3 scalars at their default
// are not written; proto2 scalars always are, as in etcd's log and peer messages.
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import protobuf from "protobufjs";

const { values } = parseArgs({ options: { check: { type: "boolean", default: false } } });

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const protoDir = join(root, "proto");
const outDir = join(root, "src", "proto");
const checkOnly = values.check;
const wide = new Set(["int64", "uint64"]);

/** Random 64-bit identities, which do not fit a number. */
function isId(field) {
  if (!wide.has(field.type)) return false;
  if (field.name === "watch_id") return false;
  return /(^|_)id$|ID$|^(lease|leader|vote|to|from)$|^(voters|learners)/i.test(field.name);
}

function camel(name) {
  const parts = name.split("_").filter(Boolean);
  const words = parts.flatMap((part) => part.match(/[A-Z]+s?(?![a-z])|[A-Z]?[a-z0-9]+|[A-Z]+/g));
  return words
    .map((word) => word.toLowerCase())
    .map((word, i) => (i === 0 ? word : word[0].toUpperCase() + word.slice(1)))
    .join("");
}

const files = new Map(); // "etcdserverpb/rpc.proto" → { ast, syntax, imports }
for (const dir of readdirSync(protoDir).sort()) {
  for (const name of readdirSync(join(protoDir, dir)).sort()) {
    const path = `${dir}/${name}`;
    const text = readFileSync(join(protoDir, path), "utf8");
    const parsed = protobuf.parse(text, new protobuf.Root(), { keepCase: true });
    const syntax = /syntax\s*=\s*"(\w+)"/.exec(text)[1];
    let ns = parsed.root;
    for (const part of parsed.package.split(".")) ns = ns.get(part);
    files.set(path, { path, text, ns, syntax, pkg: parsed.package, imports: parsed.imports ?? [] });
  }
}

/** A package may span several files; each package becomes one module. */
const packages = new Map();
for (const file of files.values()) {
  if (!packages.has(file.pkg))
    packages.set(file.pkg, { name: file.pkg, types: new Map(), services: [], uses: new Set() });
  const pkg = packages.get(file.pkg);
  const add = (object, prefix) => {
    const name = prefix + object.name;
    if (object instanceof protobuf.Enum || object instanceof protobuf.Type) {
      pkg.types.set(name, { object, name, pkg, syntax: file.syntax });
      for (const child of object.nestedArray ?? []) add(child, `${name}_`);
    } else if (object instanceof protobuf.Service) pkg.services.push(object);
  };
  for (const object of file.ns.nestedArray) add(object, "");
}

/** Resolves a type name as written in a field, from the innermost scope outward. */
function lookup(name, scope) {
  if (name.includes(".")) {
    const [pkgName, ...rest] = name.split(".");
    const other = packages.get(pkgName);
    if (other) return other.types.get(rest.join("_"));
    name = rest.length ? name.replaceAll(".", "_") : name;
  }
  for (let prefix = scope.name; ; prefix = prefix.replace(/_?[^_]*$/, "")) {
    const found = scope.pkg.types.get(prefix ? `${prefix}_${name}` : name);
    if (found) return found;
    if (!prefix) throw new Error(`${scope.pkg.name}.${scope.name}: no type ${name}`);
  }
}

const identifier = (name) => (name === "snapshot" ? "SnapshotFile" : name);

function reference(target, from) {
  if (target.pkg === from.pkg) return identifier(target.name);
  from.pkg.uses.add(target.pkg.name);
  return `${target.pkg.name}.${identifier(target.name)}`;
}

const scalars = {
  bool: { ts: "boolean", zero: "false", read: "bool", write: "bool", wire: 0 },
  int32: { ts: "number", zero: "0", read: "int32", write: "int32", wire: 0 },
  uint32: { ts: "number", zero: "0", read: "uint32", write: "uint32", wire: 0 },
  int64: { ts: "number", zero: "0", read: "int64", write: "int64", wire: 0 },
  uint64: { ts: "number", zero: "0", read: "uint64", write: "uint64", wire: 0 },
  double: { ts: "number", zero: "0", read: "double", write: "double", wire: 1 },
  bytes: { ts: "Uint8Array", zero: "EMPTY_BYTES", read: "bytes", write: "bytes", wire: 2 },
  string: { ts: "string", zero: '""', read: "string", write: "string", wire: 2 },
};
const idScalars = {
  int64: { ts: "bigint", zero: "0n", read: "int64Big", write: "int64Big", wire: 0 },
  uint64: { ts: "bigint", zero: "0n", read: "uint64Big", write: "int64Big", wire: 0 },
};

function describe(field, owner) {
  const name = camel(field.name);
  let kind = scalars[field.type];
  if (isId(field)) kind = idScalars[field.type];
  let message;
  if (!kind) {
    const target = lookup(field.type, owner);
    const ref = reference(target, owner);
    if (target.object instanceof protobuf.Enum)
      kind = { ts: ref, zero: "0", read: "int32", write: "int32", wire: 0, cast: ref };
    else {
      // Functions in the same module call each other directly.
      const near = target.pkg === owner.pkg;
      message = near ? { read: `read${ref}`, write: `write${ref}` } : { read: `${ref}.read`, write: `${ref}.write` };
      kind = { ts: ref, wire: 2 };
    }
  }
  const absent = !field.repeated && (message || Boolean(field.partOf));
  const rivals = (field.partOf?.fieldsArray ?? []).filter((other) => other !== field).map((other) => camel(other.name));
  return { field, name, kind, message, repeated: field.repeated, absent, rivals };
}

function emitMessage(type, out) {
  const { object, syntax } = type;
  const name = identifier(type.name);
  const fields = object.fieldsArray.map((f) => describe(f, type)).sort((a, b) => a.field.id - b.field.id);
  const tsType = (f) => (f.repeated ? `${f.kind.ts}[]` : f.kind.ts);

  out.push(`export interface ${name} {`);
  for (const f of fields) out.push(f.absent ? `  ${f.name}: ${tsType(f)} | undefined;` : `  ${f.name}: ${tsType(f)};`);
  out.push("}", "");

  out.push(`function create${name}(fields?: Partial<${name}>): ${name} {`);
  const zero = (f) => (f.repeated ? "[]" : f.absent ? "undefined" : f.kind.zero);
  out.push(`  const m: ${name} = { ${fields.map((f) => `${f.name}: ${zero(f)}`).join(", ")} };`);
  out.push("  return fields === undefined ? m : Object.assign(m, fields);", "}", "");

  const readOne = (f) =>
    f.message
      ? `${f.message.read}(r, r.nested()${f.repeated ? "" : `, m.${f.name}`})`
      : `r.${f.kind.read}()${f.kind.cast ? ` as ${f.kind.cast}` : ""}`;
  out.push(`function read${name}(r: Reader, end: number, m: ${name} = create${name}()): ${name} {`);
  out.push("  const outer = r.end;", "  r.end = end;");
  out.push("  while (r.pos < end) {", "    const tag = r.tag();", "    switch (tag) {");
  for (const f of fields) {
    out.push(`      case ${f.field.id * 8 + f.kind.wire}:`);
    if (f.repeated) {
      out.push(`        m.${f.name}.push(${readOne(f)});`, "        break;");
      if (f.kind.wire === 0) {
        out.push(`      case ${f.field.id * 8 + 2}:`, "        {", "          const stop = r.nested();");
        out.push(
          `          while (r.pos < stop) m.${f.name}.push(${readOne(f)});`,
          "          r.leave(stop);",
          "        }",
          "        break;",
        );
      }
      continue;
    }
    out.push(`        m.${f.name} = ${readOne(f)};`);
    // The last member of a oneof wins.
    for (const rival of f.rivals) out.push(`        m.${rival} = undefined;`);
    out.push("        break;");
  }
  out.push("      default:", "        r.skip(tag);", "    }", "  }");
  out.push("  if (r.pos !== end) r.overrun(end);");
  out.push("  r.end = outer;", "  r.depth--;", "  return m;", "}", "");

  const unused = fields.length === 0 ? "_" : "";
  out.push(`function write${name}(${unused}w: Writer, ${unused}m: ${name}): void {`);
  const writeOne = (f, value, indent) => {
    const tag = f.field.id * 8 + f.kind.wire;
    if (f.message) {
      out.push(
        `${indent}const mark = w.length;`,
        `${indent}${f.message.write}(w, ${value});`,
        `${indent}w.uint32(w.length - mark);`,
        `${indent}w.tag(${tag});`,
      );
    } else out.push(`${indent}w.${f.kind.write}(${value});`, `${indent}w.tag(${tag});`);
  };
  for (const f of [...fields].reverse()) {
    const value = `m.${f.name}`;
    if (f.repeated) {
      const packed = f.kind.wire === 0 && syntax === "proto3" && !f.message;
      if (packed) {
        out.push(`  if (${value}.length > 0) {`, "    const mark = w.length;");
        out.push(`    for (let i = ${value}.length - 1; i >= 0; i--) w.${f.kind.write}(${value}[i]!);`);
        out.push("    w.uint32(w.length - mark);", `    w.tag(${f.field.id * 8 + 2});`, "  }");
      } else {
        out.push(`  for (let i = ${value}.length - 1; i >= 0; i--) {`);
        writeOne(f, `${value}[i]!`, "    ");
        out.push("  }");
      }
    } else {
      const test = f.absent
        ? `${value} !== undefined`
        : f.kind.ts === "Uint8Array"
          ? `${value}.length > 0`
          : syntax === "proto2"
            ? undefined
            : f.kind.ts === "boolean"
              ? value
              : `${value} !== ${f.kind.zero}`;
      if (test) out.push(`  if (${test}) {`);
      writeOne(f, value, test ? "    " : "  ");
      if (test) out.push("  }");
    }
  }
  out.push("}", "");
  out.push(
    `export const ${name}: Codec<${name}> = codec("${type.pkg.name}.${type.name.replaceAll("_", ".")}", create${name}, read${name}, write${name});`,
    "",
  );
}

function emitEnum(type, out) {
  const name = identifier(type.name);
  out.push(`export const ${name} = {`);
  for (const [key, value] of Object.entries(type.object.values)) out.push(`  ${key}: ${value},`);
  out.push("} as const;", `export type ${name} = (typeof ${name})[keyof typeof ${name}];`, "");
}

function emitService(service, pkg, out) {
  out.push(`export const ${service.name}Service = {`);
  for (const method of service.methodsArray) {
    const scope = { pkg, name: "" };
    const path = `/${pkg.name}.${service.name}/${method.name}`;
    const http = (method.parsedOptions ?? []).find((o) => o["(google.api.http)"])?.["(google.api.http)"];
    const paths = http ? [http.post, ...[http.additional_bindings ?? []].flat().map((b) => b.post)] : [];
    out.push(`  ${method.name}: {`, `    name: "${method.name}",`, `    path: "${path}",`);
    out.push(
      `    request: ${reference(lookup(method.requestType, scope), scope)},`,
      `    response: ${reference(lookup(method.responseType, scope), scope)},`,
    );
    out.push(
      `    requestStream: ${Boolean(method.requestStream)},`,
      `    responseStream: ${Boolean(method.responseStream)},`,
      `    httpPaths: ${JSON.stringify(paths)},`,
      "  },",
    );
  }
  out.push("} as const;", "");
}

const outputs = new Map();
for (const pkg of packages.values()) {
  const out = [];
  for (const type of pkg.types.values()) {
    if (type.object instanceof protobuf.Enum) emitEnum(type, out);
    else emitMessage(type, out);
  }
  for (const service of pkg.services) emitService(service, pkg, out);
  const body = out.join("\n");
  const runtime = ["EMPTY_BYTES", "ProtobufError", "codec"].filter((n) => new RegExp(`\\b${n}\\b`).test(body));
  const types = ["Codec", "Reader", "Writer"].filter((n) => new RegExp(`\\b${n}\\b`).test(body));
  const head = [
    "// Generated by scripts/gen-proto.mjs from proto/. Do not edit: change the .proto file and run `npm run gen:proto`.",
  ];
  head.push(`import { ${[...runtime, ...types.map((t) => `type ${t}`)].join(", ")} } from "../base/protobuf.ts";`);
  for (const use of [...pkg.uses].sort()) head.push(`import * as ${use} from "./${use}.ts";`);
  outputs.set(`${pkg.name}.ts`, `${head.join("\n")}\n\n${body.trimEnd()}\n`);
}

/** The JSON gateway's knowledge of messages: those of services, and all nested ones. */
const shapes = new Map();
const enums = new Map();
const shapeName = (type) => `${type.pkg.name}.${type.name.replaceAll("_", ".")}`;
function addShape(type) {
  const name = shapeName(type);
  if (type.object instanceof protobuf.Enum) enums.set(name, type.object.values);
  if (type.object instanceof protobuf.Enum || shapes.has(name)) return name;
  const rows = [];
  // Registered before its fields: a transaction contains transactions.
  shapes.set(name, rows);
  for (const field of type.object.fieldsArray) {
    if (field instanceof protobuf.MapField) throw new Error(`map field ${field.fullName}: the gateway has no maps yet`);
    const kind = scalars[field.type] ? field.type : addShape(lookup(field.type, type));
    const oneof = field.partOf ? `${name}.${field.partOf.name}` : "";
    rows.push([field.name, field.id, kind, field.repeated, oneof]);
  }
  return name;
}
for (const pkg of packages.values()) {
  for (const method of pkg.services.flatMap((service) => service.methodsArray)) {
    for (const type of [method.requestType, method.responseType]) addShape(lookup(type, { pkg, name: "" }));
  }
}
const table = (entries, value) =>
  [...entries].map(([name, content]) => `  ${JSON.stringify(name)}: ${value(content)},`).join("\n");
outputs.set(
  "shapes.ts",
  `// Generated by scripts/gen-proto.mjs from proto/. Do not edit.

/** A field: its name, its number, its kind or the full name of its message or enum, whether it is repeated, and its oneof. */
export type FieldRow = readonly [name: string, number: number, type: string, repeated: boolean, oneof: string];

/** The fields of each message that a service takes or gives, or that is inside of one, in the order of the .proto file. */
export const messageShapes: Readonly<Record<string, readonly FieldRow[]>> = {
${table(shapes, (rows) => (rows.length === 0 ? "[]" : `[\n${rows.map((row) => `    ${JSON.stringify(row)},`).join("\n")}\n  ]`))}
};

/** The numbers of their enums, by name. */
export const enumShapes: Readonly<Record<string, Readonly<Record<string, number>>>> = {
${table(enums, (values) => JSON.stringify(values))}
};
`,
);

/** Descriptors for server reflection: the .proto texts themselves. */
const texts = [...files.values()].map((f) => `  ${JSON.stringify(f.path)}: ${JSON.stringify(f.text)},`);
outputs.set(
  "sources.ts",
  `// Generated by scripts/gen-proto.mjs from proto/. Do not edit.\n\n/** Text of every .proto file by its path. */\nexport const protoSources: Readonly<Record<string, string>> = {\n${texts.join("\n")}\n};\n`,
);

mkdirSync(outDir, { recursive: true });
let different = 0;
for (const [name, text] of outputs) {
  const path = join(outDir, name);
  if (existsSync(path) && readFileSync(path, "utf8") === text) continue;
  different++;
  if (checkOnly) console.error(`src/proto/${name} is not what proto/ generates: run npm run gen:proto`);
  else writeFileSync(path, text);
}
process.exit(checkOnly && different > 0 ? 1 : 0);
