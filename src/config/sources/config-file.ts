import { readFile } from "node:fs/promises";
import type { Logger } from "../../base/log.ts";
import { ConfigError } from "../errors.ts";
import { definitions, type SettingName } from "../settings/definitions.ts";
import type { GoType } from "../settings/kinds.ts";
import { Settings } from "../settings/settings.ts";
import { fitsGoInteger, GoValueError } from "../values/go-value.ts";
import type { Json, JsonObject } from "../values/json.ts";
import { fileSchema, type ObjectSchema } from "./file-schema.ts";
import { yamlToJson } from "./yaml.ts";

/**
 * Reads `--config-file`: YAML with the keys of etcd's `etcd.conf.yml.sample`. The file replaces flags and environment,
 * which are ignored. Types are strict; the error texts are etcd's, which come from Go's encoding/json. Durations are
 * whole nanoseconds, as in etcd. An unknown key is ignored, here with a warning.
 */
export async function readConfigFile(path: string, log: Logger): Promise<Settings> {
  const settings = new Settings();
  const root = await yamlToJson(await readBytes(path));
  if (root === null) return settings;
  const reader = new FileReader(settings);
  reader.read(root);
  if (reader.unknown.length > 0) {
    log.warn("the configuration file has keys that etcd does not know; they are ignored", { keys: reader.unknown });
  }
  return settings;
}

async function readBytes(path: string): Promise<Uint8Array> {
  try {
    return await readFile(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const why = { ENOENT: "no such file or directory", EACCES: "permission denied", EISDIR: "is a directory" }[
      code ?? ""
    ];
    throw new ConfigError(
      "verify",
      `${code === "EISDIR" ? "read" : "open"} ${path}: ${why ?? (error as Error).message}`,
    );
  }
}

class FileReader {
  readonly unknown: string[] = [];
  readonly #settings: Settings;
  /** The file's values with checked types, not yet parsed as URLs or gates. */
  readonly #values: { readonly name: SettingName; readonly value: Json }[] = [];

  constructor(settings: Settings) {
    this.#settings = settings;
  }

  /** First the types of the whole file, then the gates, then the rest: etcd's order of detecting errors. */
  read(root: Json): void {
    if (!isObject(root)) throw decodeError(`${describe(root)} into Go value of type embed.configYAML`);
    this.#readObject(root, fileSchema, "");
    for (const { name, value } of this.#values) if (name === "feature-gates") this.#set(name, value);
    // etcd reads this section a second time, and then it must be a section.
    const peer = Object.keys(root).find((key) => key === "peer-transport-security");
    if (peer !== undefined && !isObject(root[peer]!))
      throw new ConfigError("verify", "invalid peer-transport-security");
    for (const { name, value } of this.#values) if (name !== "feature-gates") this.#set(name, value);
  }

  /** Keys are processed in byte order, so that of two errors the same one is reported as in etcd. */
  #readObject(object: JsonObject, schema: ObjectSchema, path: string): void {
    for (const key of Object.keys(object).sort()) {
      const value = object[key]!;
      // Go matches field names case-insensitively.
      const field = schema.fields.get(key) ?? schema.fields.get(key.toLowerCase());
      if (field === undefined) {
        this.unknown.push(path + key);
        continue;
      }
      if (value === null) continue;
      const name = path + (schema.fields.has(key) ? key : key.toLowerCase());
      if ("fields" in field) {
        if (!isObject(value)) throw fieldError(value, schema.goName, name, field.goType);
        this.#readObject(value, field, `${name}.`);
      } else {
        const checked = checkType(value, field.type, schema.goName, name);
        if (field.setting !== undefined) this.#values.push({ name: field.setting, value: checked });
      }
    }
  }

  #set(name: SettingName, value: Json): void {
    try {
      // `checkType` has checked the type.
      this.#settings.setFromFile(name, value as never);
    } catch (error) {
      if (!(error instanceof GoValueError)) throw error;
      const isGates = definitions[name].kind.name === "features";
      throw new ConfigError(
        "verify",
        isGates ? error.message : `unexpected error setting up ${name}: ${error.message}`,
      );
    }
  }
}

const isObject = (value: Json): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value);

function checkType(value: Json, type: GoType, struct: string, path: string): Json {
  switch (type) {
    case "string":
    case "config.V2DeprecationEnum":
      if (typeof value !== "string") throw fieldError(value, struct, path, type);
      return value;
    case "bool":
      if (typeof value !== "boolean") throw fieldError(value, struct, path, type);
      return value;
    case "[]string":
      if (!Array.isArray(value)) throw fieldError(value, struct, path, type);
      return value.map((item) => (item === null ? "" : checkType(item, "string", struct, path)));
    default: {
      if (typeof value !== "number") throw fieldError(value, struct, path, type);
      const integer = type === "time.Duration" ? "int64" : type;
      if (!Number.isInteger(value) || !fitsFile(value, integer)) {
        throw decodeError(`number ${goNumber(value)} into Go struct field ${struct}.${path} of type ${type}`);
      }
      return value;
    }
  }
}

/** Durations are nanoseconds, which need not be exact. */
const fitsFile = (value: number, type: "int" | "int64" | "uint" | "uint64" | "uint32"): boolean =>
  type === "int64" ? Math.abs(value) < 2 ** 63 : fitsGoInteger(BigInt(value), type);

const fieldError = (value: Json, struct: string, path: string, type: string): ConfigError =>
  decodeError(`${describe(value)} into Go struct field ${struct}.${path} of type ${type}`);

const decodeError = (what: string): ConfigError =>
  new ConfigError("verify", `error unmarshaling JSON: while decoding JSON: json: cannot unmarshal ${what}`);

function describe(value: Json): string {
  if (Array.isArray(value)) return "array";
  if (typeof value === "boolean") return "bool";
  return typeof value;
}

/** As Go's encoding/json writes a float. */
function goNumber(value: number): string {
  return Math.abs(value) >= 1e21 ? value.toExponential().replace(/e\+(\d)$/, "e+0$1") : String(value);
}
