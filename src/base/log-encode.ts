import type { LogFields, LogLevel } from "./log.ts";

/**
 * Turns one log record into one line, in the two shapes of `--log-format` that etcd's zap prints: `json` and `console`.
 * Pure text work: no clock, no file. Tools that read etcd's logs (jq filters, log shippers) read these.
 *
 * Field values: strings, numbers, booleans, bigints (as numbers), errors (their message), bytes (base64), arrays, plain
 * objects and null; `undefined` leaves the field out, as zap leaves out a nil error. Pass durations as Go texts.
 */
export interface LogRecord {
  readonly level: LogLevel;
  /** Milliseconds since the Unix epoch; a fraction counts down to microseconds. */
  readonly wallMs: number;
  /** zap's logger name, such as "raft"; empty for none. */
  readonly name: string;
  /** Where the line comes from, such as "etcdmain/etcd"; empty for none. */
  readonly caller: string;
  readonly message: string;
  readonly fields: LogFields | undefined;
}

export type LogFormat = "json" | "console";

export function encodeRecord(record: LogRecord, format: LogFormat): string {
  return format === "json" ? encodeJson(record) : encodeConsole(record);
}

/** Deepest nesting printed; a deeper value is cut to its type, so that a cycle cannot hang the logger. */
const FIELD_DEPTH_MAX = 8;

function encodeJson(record: LogRecord): string {
  let line = `{"level":"${record.level}","ts":"${timestamp(record.wallMs)}"`;
  if (record.name !== "") line += `,"logger":${JSON.stringify(record.name)}`;
  if (record.caller !== "") line += `,"caller":${JSON.stringify(record.caller)}`;
  line += `,"msg":${JSON.stringify(record.message)}`;
  const { fields } = record;
  for (const key in fields) {
    const value = fields[key];
    if (value !== undefined) line += `,${JSON.stringify(key)}:${encodeValue(value, false, 0)}`;
  }
  return `${line}}\n`;
}

function encodeConsole(record: LogRecord): string {
  let line = `${timestamp(record.wallMs)}\t${record.level}`;
  if (record.name !== "") line += `\t${record.name}`;
  if (record.caller !== "") line += `\t${record.caller}`;
  line += `\t${record.message}`;
  let fields = "";
  for (const key in record.fields) {
    const value = record.fields[key];
    if (value === undefined) continue;
    fields += `${fields === "" ? "" : ", "}${JSON.stringify(key)}: ${encodeValue(value, true, 0)}`;
  }
  return fields === "" ? `${line}\n` : `${line}\t{${fields}}\n`;
}

function encodeValue(value: unknown, spaced: boolean, depth: number): string {
  switch (typeof value) {
    case "string":
      return JSON.stringify(value);
    case "number":
      return Number.isFinite(value) ? String(value) : `"${goFloat(value)}"`;
    case "boolean":
    case "bigint":
      return String(value);
    case "object":
      if (value === null) return "null";
      return encodeObject(value, spaced, depth);
    default:
      return JSON.stringify(String(value));
  }
}

function encodeObject(value: object, spaced: boolean, depth: number): string {
  if (value instanceof Error) return JSON.stringify(value.message);
  if (value instanceof Uint8Array) return `"${Buffer.from(value).toString("base64")}"`;
  if (depth >= FIELD_DEPTH_MAX) return Array.isArray(value) ? '"[…]"' : '"{…}"';
  const comma = spaced ? ", " : ",";
  if (Array.isArray(value)) return `[${value.map((item) => encodeValue(item, spaced, depth + 1)).join(comma)}]`;
  const entries = value instanceof Map ? [...value].map(([key, item]) => [String(key), item]) : Object.entries(value);
  const colon = spaced ? ": " : ":";
  const texts = entries
    .filter(([, item]) => item !== undefined)
    .map(([key, item]) => `${JSON.stringify(key)}${colon}${encodeValue(item, spaced, depth + 1)}`);
  return `{${texts.join(comma)}}`;
}

function goFloat(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  return value > 0 ? "+Inf" : "-Inf";
}

let cachedSecond = Number.NaN;
let cachedPrefix = "";
let cachedZone = "";

/**
 * Local time as `2006-01-02T15:04:05.000000Z0700`: six decimals, then `Z` for UTC or an offset such as `+0800`. The
 * part that changes once a second is cached between lines.
 */
export function timestamp(wallMs: number): string {
  const second = Math.floor(wallMs / 1000);
  if (second !== cachedSecond) {
    const date = new Date(second * 1000);
    const day = `${pad(date.getFullYear(), 4)}-${pad(date.getMonth() + 1, 2)}-${pad(date.getDate(), 2)}`;
    cachedPrefix = `${day}T${pad(date.getHours(), 2)}:${pad(date.getMinutes(), 2)}:${pad(date.getSeconds(), 2)}.`;
    cachedZone = zone(-date.getTimezoneOffset());
    cachedSecond = second;
  }
  const micros = Math.floor((wallMs - second * 1000) * 1000);
  return `${cachedPrefix}${pad(micros, 6)}${cachedZone}`;
}

function zone(offsetMinutes: number): string {
  if (offsetMinutes === 0) return "Z";
  const size = Math.abs(offsetMinutes);
  return `${offsetMinutes < 0 ? "-" : "+"}${pad(Math.floor(size / 60), 2)}${pad(size % 60, 2)}`;
}

const pad = (value: number, width: number): string => String(value).padStart(width, "0");
