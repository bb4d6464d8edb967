import type { LogLevel } from "../base/log.ts";
import type { LogFormat } from "../base/log-encode.ts";
import type { LogRotation } from "../base/log-rotation.ts";
import { quote } from "../base/quote.ts";
import { ConfigError } from "./errors.ts";
import type { Settings } from "./settings/settings.ts";

export interface LogConfig {
  readonly level: LogLevel;
  readonly format: LogFormat;
  /** `stderr`, `stdout`, `systemd/journal`, or file paths. */
  readonly outputs: readonly string[];
  /** Present when the only file among the outputs is rotated. */
  readonly rotation?: LogRotation;
}

/** Reads and checks the log flags, with etcd's error texts. Throws `ConfigError` of kind `verify`. */
export function readLogSettings(settings: Settings): LogConfig {
  checkLogger(settings.get("logger"));
  const given = settings.get("log-outputs");
  const outputs = given.length === 0 ? ["default"] : given;
  if (outputs.length > 1 && outputs.includes("default")) fail(`multi logoutput for "default" is not supported yet`);
  const rotates = settings.get("enable-log-rotation");
  const rotation = rotates ? readRotation(outputs, settings.get("log-rotation-config-json")) : undefined;
  if (outputs.includes("systemd/journal") && outputs.length > 1) {
    const list = `[${outputs.map(quote).join(" ")}]`;
    fail(
      `running with systemd/journal but other '--log-outputs' values (${list}) are configured with 'default'; ` +
        "override 'default' value with something else",
    );
  }
  return {
    level: readLevel(settings.get("log-level")),
    format: readFormat(settings.get("log-format")),
    outputs: mergeOutputs(outputs),
    ...(rotation === undefined ? {} : { rotation }),
  };
}

function fail(why: string): never {
  throw new ConfigError("verify", why);
}

function checkLogger(logger: string): void {
  if (logger === "capnslog") fail("--logger=capnslog is removed in v3.5");
  if (logger !== "zap") fail(`unknown logger option ${quote(logger)}`);
}

const LEVELS: readonly LogLevel[] = ["debug", "info", "warn", "error", "dpanic", "panic", "fatal"];

function readLevel(text: string): LogLevel {
  if (text === "") return "info";
  const level = LEVELS.find((name) => name === text || name.toUpperCase() === text);
  return level ?? fail(`unrecognized level: ${quote(text)}`);
}

function readFormat(text: string): LogFormat {
  if (text === "" || text === "json") return "json";
  if (text === "console") return "console";
  return fail(`unknown log format: ${text}, supported values json, console`);
}

/** Without duplicates; `/dev/null` disables all others. */
function mergeOutputs(outputs: readonly string[]): string[] {
  if (outputs.includes("/dev/null")) return ["/dev/null"];
  return [...new Set(outputs.map((output) => (output === "default" ? "stderr" : output)))].sort();
}

const STANDARD = new Set(["default", "stderr", "stdout"]);

function readRotation(outputs: readonly string[], text: string): LogRotation {
  const files = outputs.filter((output) => !STANDARD.has(output));
  if (files.length > 1 || (outputs.length === 1 && files.length === 0)) {
    fail("--log-outputs requires a single file path when --log-rotate-config-json is defined");
  }
  const json = parseRotation(text);
  const unknown = [...json.keys()].filter((key) => !ROTATION_KEYS.has(key));
  if (unknown.length > 0) {
    fail(
      `invalid log rotation config: unknown ${unknown.length === 1 ? "key" : "keys"} ${unknown.map(quote).join(", ")}; ` +
        "there are maxsize, maxage, maxbackups, localtime and compress",
    );
  }
  return {
    maxSizeMb: integer(json, "maxsize"),
    maxAgeDays: integer(json, "maxage"),
    maxBackups: integer(json, "maxbackups"),
    localTime: flag(json, "localtime"),
    compress: flag(json, "compress"),
  };
}

/** As in etcd, case-insensitive. The file name is that of `--log-outputs`. */
const ROTATION_KEYS: ReadonlySet<string> = new Set([
  "filename",
  "maxsize",
  "maxage",
  "maxbackups",
  "localtime",
  "compress",
]);

function parseRotation(text: string): ReadonlyMap<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    fail(`improperly formatted log rotation config: ${syntaxComplaint(text, error as Error)}`);
  }
  if (value === null) return new Map();
  if (typeof value !== "object" || Array.isArray(value)) {
    const found = Array.isArray(value) ? "array" : goType(value);
    fail(`invalid log rotation config: json: cannot unmarshal ${found} into Go value of type embed.logRotationConfig`);
  }
  return new Map(Object.entries(value as object).map(([key, item]) => [key.toLowerCase(), item]));
}

/** Go's error text for invalid JSON. */
function syntaxComplaint(text: string, error: Error): string {
  if (text.trim() === "" || /end of JSON input|Unterminated|Expected .* at position (\d+)$/.test(error.message)) {
    const at = /at position (\d+)/.exec(error.message)?.[1];
    if (at === undefined || Number(at) >= text.length) return "unexpected end of JSON input";
  }
  const position = Number(/at position (\d+)/.exec(error.message)?.[1] ?? text.search(/\S/));
  const where = error.message.includes("after JSON") ? "after top-level value" : "looking for beginning of value";
  return `invalid character '${text.charAt(Math.max(position, 0))}' ${where}`;
}

function goType(value: unknown): string {
  return typeof value === "boolean" ? "bool" : typeof value;
}

function integer(json: ReadonlyMap<string, unknown>, key: string): number {
  const value = json.get(key) ?? 0;
  const into = `into Go struct field logRotationConfig.Logger.${key} of type int`;
  if (typeof value !== "number") fail(`invalid log rotation config: json: cannot unmarshal ${goType(value)} ${into}`);
  if (!Number.isSafeInteger(value)) {
    fail(`invalid log rotation config: json: cannot unmarshal number ${value} ${into}`);
  }
  return Math.max(value, 0);
}

function flag(json: ReadonlyMap<string, unknown>, key: string): boolean {
  const value = json.get(key) ?? false;
  if (typeof value === "boolean") return value;
  const into = `into Go struct field logRotationConfig.Logger.${key} of type bool`;
  return fail(`invalid log rotation config: json: cannot unmarshal ${goType(value)} ${into}`);
}
