/**
 * Flags of a command line in the style of etcdctl and etcdutl: `--name value`, `--name=value`, `-n value`, anywhere between
 * the arguments, until `--`. Error texts are those of spf13/pflag.
 */

import { goDuration } from "./duration.ts";
import { KvorumError } from "./errors.ts";
import { clampToSafe, ParseError, parseBool, parseDuration, parseInt64, parseUint64 } from "./number-text.ts";
import { quote } from "./quote.ts";

interface FlagBase {
  readonly name: string;
  /** One letter. */
  readonly shorthand?: string;
  /** One sentence without a full stop. */
  readonly usage: string;
  /** Accepted, but not listed. */
  readonly hidden?: boolean;
}

export type Flag =
  | (FlagBase & { readonly kind: "bool"; readonly value: boolean })
  | (FlagBase & { readonly kind: "string"; readonly value: string })
  /** A comma-separated list, which may also be given several times. */
  | (FlagBase & { readonly kind: "strings"; readonly value: readonly string[] })
  | (FlagBase & { readonly kind: "int" | "uint"; readonly value: number })
  /** Milliseconds. */
  | (FlagBase & { readonly kind: "duration"; readonly value: number });

/** The command line is wrong; the text says what is wrong. */
export class FlagError extends KvorumError {
  override name = "FlagError";
  readonly code = "ERR_FLAG";
}

export class FlagSet {
  readonly flags: readonly Flag[];
  readonly #values = new Map<string, Flag["value"]>();
  readonly #changed = new Set<string>();

  constructor(flags: readonly Flag[]) {
    this.flags = flags;
    for (const flag of flags) this.#values.set(flag.name, flag.value);
  }

  /**
   * Removes the flags from `args` and returns the rest. `dash` is how many of the rest came before `--`. Throws
   * FlagError.
   */
  parse(args: readonly string[]): { readonly args: readonly string[]; readonly dash: number | undefined } {
    const rest: string[] = [];
    for (let i = 0; i < args.length; i++) {
      const arg = args[i]!;
      if (arg === "--") return { args: [...rest, ...args.slice(i + 1)], dash: rest.length };
      if (arg.startsWith("--")) i += this.#long(arg, args[i + 1]);
      else if (arg.startsWith("-") && arg.length > 1) i += this.#short(arg, args[i + 1]);
      else rest.push(arg);
    }
    return { args: rest, dash: undefined };
  }

  /** Whether a token that starts with a dash takes no following token as its value. An unknown flag may take one. */
  standsAlone(token: string): boolean {
    if (token.includes("=")) return true;
    if (token.startsWith("--")) return this.flags.some(({ name, kind }) => `--${name}` === token && kind === "bool");
    if (token.length !== 2) return true;
    return this.flags.some(({ shorthand, kind }) => shorthand === token[1] && kind === "bool");
  }

  #long(token: string, next: string | undefined): number {
    const equals = token.indexOf("=");
    const name = equals < 0 ? token.slice(2) : token.slice(2, equals);
    if (name === "" || name.startsWith("-")) throw new FlagError(`bad flag syntax: ${token}`);
    const flag = this.flags.find((candidate) => candidate.name === name);
    if (flag === undefined) throw new FlagError(`unknown flag: --${name}`);
    if (equals >= 0) return this.#set(flag, token.slice(equals + 1), 0);
    if (flag.kind === "bool") return this.#set(flag, "true", 0);
    if (next === undefined) throw new FlagError(`flag needs an argument: --${name}`);
    return this.#set(flag, next, 1);
  }

  #short(token: string, next: string | undefined): number {
    for (let i = 1; i < token.length; i++) {
      const flag = this.flags.find(({ shorthand }) => shorthand === token[i]);
      const where = `in ${token}`;
      if (flag === undefined) throw new FlagError(`unknown shorthand flag: '${token[i]}' ${where}`);
      const rest = token.slice(i + 1);
      if (rest.startsWith("=")) return this.#set(flag, rest.slice(1), 0);
      if (flag.kind === "bool") this.#set(flag, "true", 0);
      else if (rest !== "") return this.#set(flag, rest, 0);
      else if (next === undefined) throw new FlagError(`flag needs an argument: '${token[i]}' ${where}`);
      else return this.#set(flag, next, 1);
    }
    return 0;
  }

  #set<T>(flag: Flag, text: string, result: T): T {
    try {
      this.assign(flag.name, text);
    } catch (error) {
      if (!(error instanceof ParseError)) throw error;
      const name = flag.shorthand === undefined ? `--${flag.name}` : `-${flag.shorthand}, --${flag.name}`;
      throw new FlagError(`invalid argument ${quote(text)} for "${name}" flag: ${error.message}`);
    }
    return result;
  }

  /** Sets an existing flag from text. Throws ParseError. */
  assign(name: string, text: string): void {
    const flag = this.#flag(name);
    let value: Flag["value"];
    if (flag.kind === "bool") value = parseBool(text);
    else if (flag.kind === "int") value = clampToSafe(parseInt64(text, 0));
    else if (flag.kind === "uint") value = clampToSafe(parseUint64(text, 0));
    else if (flag.kind === "duration") value = parseDuration(text);
    else if (flag.kind === "strings") {
      const earlier = this.#changed.has(name) ? (this.#values.get(name) as readonly string[]) : [];
      value = [...earlier, ...(text === "" ? [] : text.split(","))];
    } else value = text;
    this.#values.set(name, value);
    this.#changed.add(name);
  }

  /** Whether the flag was given. */
  changed(name: string): boolean {
    return this.#changed.has(name);
  }

  bool(name: string): boolean {
    return this.#values.get(this.#flag(name).name) as boolean;
  }

  string(name: string): string {
    return this.#values.get(this.#flag(name).name) as string;
  }

  strings(name: string): readonly string[] {
    return this.#values.get(this.#flag(name).name) as readonly string[];
  }

  /** An int, a uint, or a duration in milliseconds. */
  number(name: string): number {
    return this.#values.get(this.#flag(name).name) as number;
  }

  /** The value as text. */
  text(name: string): string {
    return valueText(this.#flag(name), this.#values.get(name)!);
  }

  #flag(name: string): Flag {
    const flag = this.flags.find((candidate) => candidate.name === name);
    if (flag === undefined) throw new Error(`no flag is named ${name}`);
    return flag;
  }
}

function valueText(flag: Flag, value: Flag["value"]): string {
  if (flag.kind === "duration") return goDuration(value as number);
  if (flag.kind === "strings") return `[${(value as readonly string[]).join(",")}]`;
  return String(value);
}

const KIND_WORDS = {
  bool: "",
  string: " string",
  strings: " strings",
  int: " int",
  uint: " uint",
  duration: " duration",
};

/** One line for each flag, sorted by name. */
export function describeFlags(flags: readonly Flag[]): string {
  const listed = flags.filter((flag) => !flag.hidden).sort((a, b) => (a.name < b.name ? -1 : 1));
  const lines = listed.map((flag) => {
    const left = `${flag.shorthand ? `  -${flag.shorthand}, ` : "      "}--${flag.name}${KIND_WORDS[flag.kind]}`;
    return { left, flag };
  });
  const columns = Math.max(0, ...lines.map(({ left }) => left.length));
  return lines.map(({ left, flag }) => `${left.padEnd(columns)}   ${flag.usage}${defaultText(flag)}\n`).join("");
}

function defaultText(flag: Flag): string {
  const { value } = flag;
  if (value === false || value === "" || value === 0 || (Array.isArray(value) && value.length === 0)) return "";
  return ` (default ${flag.kind === "string" ? quote(flag.value) : valueText(flag, value)})`;
}
