import { ConfigError } from "../errors.ts";
import type { Json, JsonObject } from "../values/json.ts";

/** A configuration is a page of text; a megabyte is an error or an attack. */
const YAML_BYTES_MAX = 1024 * 1024;
const ALIASES_MAX = 1000;
const NODES_MAX = 100_000;
const DEPTH_MAX = 1000;

/**
 * Converts a configuration file to plain JSON values, with the rules of etcd's YAML library (go-yaml 2 behind
 * sigs.k8s.io/yaml): YAML 1.1 words for booleans (`yes`, `on`), `010` is octal, the last of two equal keys wins, only
 * the first document counts. Hostile input fails: size, depth and number of aliases are limited.
 */
export async function yamlToJson(bytes: Uint8Array): Promise<Json> {
  const text = decode(bytes);
  const { parseAllDocuments } = await import("yaml");
  try {
    const documents = parseAllDocuments(text, {
      version: "1.1",
      uniqueKeys: false,
      logLevel: "silent",
      prettyErrors: false,
      strict: false,
      // Dates and base-60 numbers stay texts, as in go-yaml.
      customTags: (tags) =>
        tags.filter((tag) => typeof tag === "string" || !NOT_IN_GO.has(tag.tag + (tag.format ?? ""))),
    });
    const document = documents[0];
    if (document === undefined || !("contents" in document)) return null;
    const [error] = document.errors;
    if (error !== undefined) throw yamlError(complaint(error.code, error.message, lineAt(text, error.pos[0])));
    return new JsonMaker().make(document.toJS({ mapAsMap: true, maxAliasCount: ALIASES_MAX }), 0);
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    throw yamlError(thrownComplaint(error as Error));
  }
}

const NOT_IN_GO = new Set(["tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:intTIME", "tag:yaml.org,2002:floatTIME"]);

function decode(bytes: Uint8Array): string {
  if (bytes.length > YAML_BYTES_MAX) throw yamlError(`document is larger than ${YAML_BYTES_MAX} bytes`);
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw yamlError("invalid leading UTF-8 octet");
  }
  // biome-ignore lint/suspicious/noControlCharactersInRegex: go-yaml refuses exactly these.
  if (/[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]/.test(text)) throw yamlError("control characters are not allowed");
  checkDepth(text);
  return text;
}

/** Counts brackets before the parser recurses into them; quotes and comments only make it stricter. */
function checkDepth(text: string): void {
  let depth = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === 0x5b || code === 0x7b) depth++;
    else if ((code === 0x5d || code === 0x7d) && depth > 0) depth--;
    if (depth > DEPTH_MAX) throw yamlError(`exceeded max depth of ${DEPTH_MAX}`);
  }
}

const yamlError = (why: string): ConfigError =>
  new ConfigError(
    "verify",
    why.startsWith("json:") ? `error converting YAML to JSON: ${why}` : `error converting YAML to JSON: yaml: ${why}`,
  );

/** go-yaml's text for the parser's error. */
function complaint(code: string, message: string, line: number): string {
  if (message.startsWith("Maximum call stack")) return `exceeded max depth of ${DEPTH_MAX}`;
  if (message.startsWith("Flow")) return `line ${line}: did not find expected ',' or ']'`;
  const known: Readonly<Record<string, string>> = {
    TAB_AS_INDENT: "found a tab character that violates indentation",
    BLOCK_AS_IMPLICIT_KEY: "mapping values are not allowed in this context",
    MULTILINE_IMPLICIT_KEY: "mapping values are not allowed in this context",
    BAD_INDENT: "did not find expected key",
    MISSING_CHAR: "found unexpected end of stream",
  };
  return `line ${line}: ${known[code] ?? message}`;
}

function thrownComplaint(error: Error): string {
  const alias = /Unresolved alias \(the anchor must be set before the alias\): (.*)/.exec(error.message)?.[1];
  if (alias !== undefined) return `unknown anchor '${alias}' referenced`;
  if (error.message.includes("Excessive alias count")) return "document contains excessive aliasing";
  if (error.message.includes("Merge sources must be")) return "map merge requires map or sequence of maps as the value";
  if (error instanceof RangeError) return `exceeded max depth of ${DEPTH_MAX}`;
  return error.message;
}

function lineAt(text: string, offset: number): number {
  let line = 1;
  for (let i = 0; i < offset && i < text.length; i++) if (text.charCodeAt(i) === 0x0a) line++;
  return line;
}

/** Converts the parser's result to JSON, counting nodes: shared nodes count each time they appear. */
class JsonMaker {
  #nodes = 0;

  make(value: unknown, depth: number): Json {
    if (++this.#nodes > NODES_MAX) throw yamlError("document contains excessive aliasing");
    if (depth > DEPTH_MAX) throw yamlError(`exceeded max depth of ${DEPTH_MAX}`);
    if (value === null || value === undefined) return null;
    if (typeof value === "number") return finite(value);
    if (typeof value === "bigint") return Number(value);
    if (typeof value === "boolean" || typeof value === "string") return value;
    if (value instanceof Uint8Array) return Buffer.from(value).toString();
    if (value instanceof Map) return this.#object(value, depth);
    if (value instanceof Set) return this.#object(new Map([...value].map((key) => [key, null])), depth);
    if (Array.isArray(value)) return value.map((item) => this.make(item, depth + 1));
    return String(value);
  }

  #object(map: ReadonlyMap<unknown, unknown>, depth: number): JsonObject {
    const object: Record<string, Json> = Object.create(null);
    for (const [key, value] of map) {
      if (typeof key === "object" && key !== null) throw yamlError("invalid map key");
      object[String(key)] = this.make(value, depth + 1);
    }
    return object;
  }
}

function finite(value: number): number {
  if (Number.isFinite(value)) return value;
  throw yamlError(`json: unsupported value: ${Number.isNaN(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf"}`);
}
