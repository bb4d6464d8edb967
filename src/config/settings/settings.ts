import { quote } from "../../base/quote.ts";
import { FeatureGates } from "../values/feature-gates.ts";
import { type GoIntegerType, GoValueError, parseGoBool, parseGoDuration, parseGoInteger } from "../values/go-value.ts";
import { parseUrls, type Url, urlTexts } from "../values/url.ts";
import type { FlagSpec } from "./flag-spec.ts";
import { flagSpecByName, flagSpecs } from "./flags.ts";

export type SettingValue = string | number | boolean | readonly string[] | readonly Url[] | FeatureGates;

/** Settings that only the configuration file has; no flag may be called so. */
export const FILE_ONLY = {
  clientAllowedCn: "client-transport-security.allowed-cn",
  clientSkipSan: "client-transport-security.skip-client-san-verification",
} as const;

/**
 * One value for each flag, wherever it came from (default, command line, environment, file), and which were set by
 * somebody. Durations are milliseconds. This is the raw material; `Config` is what the server gets.
 */
export class Settings {
  readonly #values = new Map<string, SettingValue>();
  readonly #explicit = new Set<string>();

  constructor() {
    for (const spec of flagSpecs) this.#values.set(spec.name, defaultSetting(spec));
    this.#values.set(FILE_ONLY.clientAllowedCn, []);
    this.#values.set(FILE_ONLY.clientSkipSan, false);
  }

  /** Sets a flag from its text. Throws `GoValueError` with the words of Go's flag package. */
  set(name: string, text: string): void {
    const spec = flagSpecByName.get(name)!;
    this.#explicit.add(name);
    // An empty list of URLs leaves the one before in place, as etcd's own flag does.
    if (spec.kind === "urls" && text === "") return;
    if (spec.kind === "features") this.#values.set(name, this.features().with(text));
    else this.#values.set(name, parseSetting(spec, text));
  }

  /** Sets a flag from a value that was checked already. */
  setValue(name: string, value: SettingValue): void {
    this.#explicit.add(name);
    this.#values.set(name, value);
  }

  /** Changes a value that nobody asked for: a default that depends on other settings. */
  setDefault(name: string, value: SettingValue): void {
    this.#values.set(name, value);
  }

  isSet(name: string): boolean {
    return this.#explicit.has(name);
  }

  /** True when the value differs from the flag's own default. */
  isChanged(spec: FlagSpec): boolean {
    return comparable(this.#get(spec.name)) !== comparable(defaultSetting(spec));
  }

  text(name: string): string {
    return this.#get(name) as string;
  }

  number(name: string): number {
    return this.#get(name) as number;
  }

  bool(name: string): boolean {
    return this.#get(name) as boolean;
  }

  strings(name: string): readonly string[] {
    return this.#get(name) as readonly string[];
  }

  urls(name: string): readonly Url[] {
    return this.#get(name) as readonly Url[];
  }

  features(): FeatureGates {
    return this.#get("feature-gates") as FeatureGates;
  }

  #get(name: string): SettingValue {
    const value = this.#values.get(name);
    if (value === undefined) throw new Error(`no flag is called ${name}`);
    return value;
  }
}

function comparable(value: SettingValue): string {
  if (Array.isArray(value)) return value.map((item) => (typeof item === "string" ? item : item.text)).join(",");
  return String(value);
}

/** An empty default of a list is a list without members; the empty text given by hand is one with an empty member. */
function defaultSetting(spec: FlagSpec): SettingValue {
  const isList = spec.kind === "urls" || spec.kind === "set" || spec.kind === "list";
  return isList && spec.default === "" ? [] : parseSetting(spec, spec.default);
}

function parseSetting(spec: FlagSpec, text: string): SettingValue {
  switch (spec.kind) {
    case "text":
      return text;
    case "bool":
      return parseGoBool(text);
    case "duration":
      return parseFlagDuration(text);
    case "int":
    case "int64":
    case "uint":
    case "uint64":
      return parseGoInteger(text, spec.kind satisfies GoIntegerType);
    case "uint32":
      return parseUint32(text);
    case "urls":
      return parseUniqueUrls(text);
    case "origins":
      return text === "*" ? ["*"] : urlTexts(parseUniqueUrls(text));
    case "set":
      return parseSet(text);
    case "list":
      return text.split(",");
    case "choice":
      if (!spec.choices!.includes(text)) throw new GoValueError("invalid value");
      return text;
    case "choices":
      return parseChoices(spec, text);
    case "features":
      return new FeatureGates().with(text);
  }
}

/** Go's flag package hides why a duration is wrong. */
function parseFlagDuration(text: string): number {
  try {
    return parseGoDuration(text);
  } catch {
    throw new GoValueError("parse error");
  }
}

/** etcd's own kind of flag, which shows the error of strconv as it is. */
function parseUint32(text: string): number {
  try {
    return parseGoInteger(text, "uint32");
  } catch (error) {
    const why = (error as Error).message === "parse error" ? "invalid syntax" : (error as Error).message;
    throw new GoValueError(`strconv.ParseUint: parsing ${quote(text)}: ${why}`);
  }
}

function parseUniqueUrls(text: string): Url[] {
  const seen = new Set<string>();
  return parseUrls(text).filter((url) => !seen.has(url.text) && seen.add(url.text));
}

/** Sorted by bytes, each once; the empty text is a member too. */
export function parseSet(text: string): string[] {
  return [...new Set(text.split(","))].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
}

function parseChoices(spec: FlagSpec, text: string): string {
  for (const part of text.split(",")) {
    if (!spec.choices!.includes(part)) throw new GoValueError(`invalid value ${quote(part)}`);
  }
  return text;
}
