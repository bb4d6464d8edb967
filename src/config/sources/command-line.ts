import { quote } from "../../base/quote.ts";
import { ConfigError } from "../errors.ts";
import { findFlag, type NamedSetting } from "../settings/definitions.ts";
import { Settings } from "../settings/settings.ts";
import { GoValueError, parseGoBool } from "../values/go-value.ts";
import { type LegacyFlag, legacyFlags } from "./legacy-flags.ts";

/**
 * Parses the server's command line as Go's flag package does: `-flag` and `--flag` are the same, a value follows `=` or
 * is the next argument, a bool needs none, and `--` or the first argument without a dash ends the flags. Throws
 * `ConfigError` of kind `flags` with Go's text. Pure.
 */
export interface CommandLine {
  readonly settings: Settings;
  readonly help: boolean;
  readonly version: boolean;
  readonly configFile: string;
  /** The first argument that is not a flag, if any: an error that etcd reports only if all flags are valid. */
  readonly stray: string | undefined;
  /** Warnings about flags of older versions, each a sentence for the log. */
  readonly warnings: readonly string[];
  /** Old flags that request removed features: reported after the flags are read, as a failed verification. */
  readonly refusals: readonly string[];
}

export function readCommandLine(argv: readonly string[]): CommandLine {
  return new CommandLineReader(argv).read();
}

class CommandLineReader {
  readonly #argv: readonly string[];
  readonly #settings = new Settings();
  readonly #warnings: string[] = [];
  readonly #refusals: string[] = [];
  #next = 0;
  #version = false;
  #configFile = "";

  constructor(argv: readonly string[]) {
    this.#argv = argv;
  }

  read(): CommandLine {
    let help = false;
    while (!help) {
      const argument = this.#argv[this.#next];
      if (argument === undefined || argument.length < 2 || !argument.startsWith("-")) break;
      this.#next++;
      if (argument === "--") break;
      help = this.#readFlag(argument);
    }
    return {
      settings: this.#settings,
      help,
      version: this.#version,
      configFile: this.#configFile,
      stray: help ? undefined : this.#argv[this.#next],
      warnings: this.#warnings,
      refusals: this.#refusals,
    };
  }

  /** Returns true for a help flag. */
  #readFlag(argument: string): boolean {
    const body = argument.replace(/^--?/, "");
    if (body === "" || body.startsWith("-") || body.startsWith("=")) throw flagError(`bad flag syntax: ${argument}`);
    const equals = body.indexOf("=");
    const name = equals < 0 ? body : body.slice(0, equals);
    const value = equals < 0 ? undefined : body.slice(equals + 1);
    const flag = findFlag(name) ?? legacyFlags.get(name);
    if (flag === undefined && name !== "config-file" && name !== "version") {
      if (name === "help" || name === "h") return true;
      throw flagError(`flag provided but not defined: -${name}`);
    }
    const isBool = flag === undefined ? name === "version" : isBoolFlag(flag);
    if (isBool) this.#setBool(name, value ?? "true", flag);
    else this.#setText(name, value ?? this.#argument(name), flag);
    return false;
  }

  #argument(name: string): string {
    const argument = this.#argv[this.#next++];
    if (argument === undefined) throw flagError(`flag needs an argument: -${name}`);
    return argument;
  }

  #setText(name: string, value: string, flag: Flag | undefined): void {
    this.#try(
      () => {
        if (flag === undefined) this.#configFile = value;
        else this.#set(name, value, flag);
      },
      (why) => `invalid value ${quote(value)} for flag -${name}: ${why}`,
    );
  }

  #setBool(name: string, value: string, flag: Flag | undefined): void {
    this.#try(
      () => {
        if (flag !== undefined && "state" in flag && flag.state === "ignored") return;
        const on = parseGoBool(value);
        if (flag === undefined) this.#version = on;
        else this.#set(name, value, flag);
      },
      (why) => `invalid boolean value ${quote(value)} for -${name}: ${why}`,
    );
  }

  #set(name: string, value: string, flag: Flag): void {
    if ("kind" in flag) this.#settings.set(flag.name, value);
    else this.#setLegacy(name, value, flag);
  }

  #setLegacy(name: string, value: string, legacy: LegacyFlag): void {
    switch (legacy.state) {
      case "ignored":
        return;
      case "renamed":
        this.#settings.set(legacy.to, value);
        this.#warnings.push(`--${name} is a flag of an older etcd; use --${legacy.to}`);
        return;
      case "gate":
        this.#settings.set("feature-gates", `${legacy.to}=${value}`);
        this.#warnings.push(`--${name} is a flag of an older etcd; use --feature-gates=${legacy.to}=${value}`);
        return;
      case "removed":
        if (legacy.harmless !== undefined && !legacy.harmless.includes(value)) {
          this.#refusals.push(`--${name}=${value} is not supported: ${legacy.advice}`);
          return;
        }
        this.#warnNoEffect(name, legacy.advice);
        return;
      case "debug":
        if (!parseGoBool(value)) {
          this.#warnNoEffect(name, "use --log-level=debug");
          return;
        }
        this.#settings.set("log-level", "debug");
        this.#warnings.push("--debug is a flag of an older etcd: the log level is debug now; use --log-level=debug");
    }
  }

  #warnNoEffect(name: string, advice: string): void {
    this.#warnings.push(`--${name} is a flag of an older etcd and has no effect: ${advice}`);
  }

  #try(action: () => void, describe: (why: string) => string): void {
    try {
      action();
    } catch (error) {
      if (error instanceof GoValueError) throw flagError(describe(error.message));
      throw error;
    }
  }
}

type Flag = NamedSetting | LegacyFlag;

const isBoolFlag = (flag: Flag): boolean => ("kind" in flag ? flag.kind.name === "bool" : flag.isBool);

const flagError = (text: string): ConfigError => new ConfigError("flags", text);
