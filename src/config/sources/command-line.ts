import { quote } from "../../base/quote.ts";
import { ConfigError } from "../errors.ts";
import { flagSpecByName } from "../settings/flags.ts";
import { Settings } from "../settings/settings.ts";
import { GoValueError, parseGoBool } from "../values/go-value.ts";
import { type LegacyFlag, legacyFlags } from "./legacy-flags.ts";

/**
 * Reads the command line of the server the way Go's flag package does: `-flag` and `--flag` are the same, a value comes
 * after `=` or as the next argument, a bool needs none, and `--` or the first word without a dash ends the flags.
 * Throws `ConfigError` of kind `flags` with Go's text. Pure: reads nothing but its argument.
 */
export interface CommandLine {
  readonly settings: Settings;
  readonly help: boolean;
  readonly version: boolean;
  readonly configFile: string;
  /** The first argument that is no flag, if any: an error that etcd reports only when all flags were good. */
  readonly stray: string | undefined;
  /** Flags of older versions that were given, each a sentence for the log. */
  readonly warnings: readonly string[];
  /** Old flags that ask for what is gone: told after the flags are read, as a failed verification. */
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

  /** Returns true when help was asked for. */
  #readFlag(argument: string): boolean {
    const body = argument.replace(/^--?/, "");
    if (body === "" || body.startsWith("-") || body.startsWith("=")) throw flagError(`bad flag syntax: ${argument}`);
    const equals = body.indexOf("=");
    const name = equals < 0 ? body : body.slice(0, equals);
    const value = equals < 0 ? undefined : body.slice(equals + 1);
    const legacy = legacyFlags.get(name);
    const isText = name === "config-file" || (flagSpecByName.has(name) && flagSpecByName.get(name)!.kind !== "bool");
    const isKnown = isText || flagSpecByName.has(name) || name === "version" || legacy !== undefined;
    if (!isKnown) {
      if (name === "help" || name === "h") return true;
      throw flagError(`flag provided but not defined: -${name}`);
    }
    if (isText || legacy?.isBool === false) this.#setText(name, value ?? this.#argument(name), legacy);
    else this.#setBool(name, value ?? "true", legacy);
    return false;
  }

  #argument(name: string): string {
    const argument = this.#argv[this.#next++];
    if (argument === undefined) throw flagError(`flag needs an argument: -${name}`);
    return argument;
  }

  #setText(name: string, value: string, legacy: LegacyFlag | undefined): void {
    this.#try(
      () => {
        if (legacy !== undefined) this.#setLegacy(name, value, legacy);
        else if (name === "config-file") this.#configFile = value;
        else this.#settings.set(name, value);
      },
      (why) => `invalid value ${quote(value)} for flag -${name}: ${why}`,
    );
  }

  #setBool(name: string, value: string, legacy: LegacyFlag | undefined): void {
    this.#try(
      () => {
        if (legacy?.state === "ignored") return;
        const on = parseGoBool(value);
        if (legacy !== undefined) this.#setLegacy(name, value, legacy);
        else if (name === "version") this.#version = on;
        else this.#settings.setValue(name, on);
      },
      (why) => `invalid boolean value ${quote(value)} for -${name}: ${why}`,
    );
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
        if (name === "debug" && parseGoBool(value)) {
          this.#settings.set("log-level", "debug");
          this.#warnings.push("--debug is a flag of an older etcd: the log level is debug now; use --log-level=debug");
          return;
        }
        this.#warnings.push(`--${name} is a flag of an older etcd and has no effect: ${legacy.advice}`);
    }
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

const flagError = (text: string): ConfigError => new ConfigError("flags", text);
