/**
 * Programs with nested commands, in the style of etcdctl and etcdutl: finds the command that a command line names,
 * parses its flags, prints help. Error texts are those of spf13/cobra.
 */
import { KvorumError } from "./errors.ts";
import { describeFlags, type Flag, FlagError, FlagSet } from "./flags.ts";
import { quote } from "./quote.ts";

export interface Command<Context> {
  /** The command's name. */
  readonly name: string;
  /** What follows the name in a usage line: `[options] <key> [range_end]`. */
  readonly usage?: string;
  /** One line. */
  readonly short: string;
  readonly long?: string;
  readonly example?: string;
  /** Heading under which help lists it. */
  readonly group?: string;
  readonly flags?: readonly Flag[];
  /** Names of the required flags. */
  readonly required?: readonly string[];
  /** Flags that its subcommands have too. */
  readonly sharedFlags?: readonly Flag[];
  readonly commands?: readonly Command<Context>[];
  /** Does the work. A command without it prints help. */
  run?(context: Context, invocation: Invocation<Context>): Promise<void> | void;
}

/** The part of a context that commands of every program need. */
export interface Printing {
  readonly io: { out(text: string): void };
}

/** A parsed command line. */
export interface Invocation<Context> {
  /** The program first. */
  readonly path: readonly Command<Context>[];
  readonly command: Command<Context>;
  readonly flags: FlagSet;
  /** Names of the flags that its parent commands define. */
  readonly inherited: readonly string[];
  readonly args: readonly string[];
  /** How many of `args` came before `--`; undefined without it. */
  readonly dash: number | undefined;
  /** Everything after the program's name, as it was given. */
  readonly raw: readonly string[];
  readonly wantsHelp: boolean;
}

/** A command line that cannot be parsed. */
export class UsageError extends KvorumError {
  override name = "UsageError";
  readonly code = "ERR_USAGE";
  /** What to print after the error. */
  readonly hint: string;

  constructor(message: string, hint: string) {
    super(message);
    this.hint = hint;
  }
}

/** Throws UsageError. */
export function understand<Context>(program: Command<Context>, raw: readonly string[]): Invocation<Context> {
  const path = [program];
  let rest = raw;
  for (;;) {
    const at = firstWord(path, rest);
    const next = at === undefined ? undefined : findCommand(path.at(-1)!, rest[at]!);
    if (next === undefined) {
      if (path.length === 1 && at !== undefined) throw unknownCommand(program, rest[at]!);
      break;
    }
    path.push(next);
    rest = rest.toSpliced(at!, 1);
  }
  const command = path.at(-1)!;
  const flags = new FlagSet(flagsOf(path));
  try {
    const { args, dash } = flags.parse(rest);
    const inherited = path.slice(0, -1).flatMap((above) => (above.sharedFlags ?? []).map((flag) => flag.name));
    return { path, command, flags, inherited, args, dash, raw, wantsHelp: flags.bool("help") };
  } catch (error) {
    if (!(error instanceof FlagError)) throw error;
    throw new UsageError(error.message, `${usageText(path)}\n`);
  }
}

/**
 * Position of the first word that is neither a flag nor a flag's value, as far as the last command of `path` knows its
 * flags. An unknown flag may belong to the command that follows, and is assumed to take a value.
 */
function firstWord<Context>(path: readonly Command<Context>[], args: readonly string[]): number | undefined {
  const flags = new FlagSet(flagsOf(path));
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!;
    if (arg === "--") return undefined;
    if (!arg.startsWith("-")) {
      if (arg !== "") return i;
    } else if (!flags.standsAlone(arg)) i++;
  }
  return undefined;
}

function unknownCommand<Context>(program: Command<Context>, word: string): UsageError {
  const hint = `Run '${program.name} --help' for usage.\n`;
  return new UsageError(`unknown command ${quote(word)} for "${program.name}"${suggestion(program, word)}`, hint);
}

/** The subcommand of that name, or the only one whose name starts with it. */
export function findCommand<Context>(command: Command<Context>, word: string): Command<Context> | undefined {
  const commands = command.commands ?? [];
  const exact = commands.find(({ name }) => name === word);
  if (exact !== undefined) return exact;
  const starting = commands.filter(({ name }) => name.startsWith(word));
  return starting.length === 1 ? starting[0] : undefined;
}

/** A program's command `help`: prints the help of the command that its arguments name. Throws UsageError. */
export function helpCommand<Context extends Printing>(): Command<Context> {
  return {
    name: "help",
    usage: "[command]",
    short: "Help about any command",
    run({ io }, { path: [program], args }) {
      const path = [program!];
      for (const word of args) {
        const next = findCommand(path.at(-1)!, word);
        if (next === undefined) {
          throw new UsageError(`no command is called ${args.join(" ")}`, `Run '${program!.name} --help' for usage.\n`);
        }
        path.push(next);
      }
      io.out(helpText(path));
    },
  };
}

function flagsOf<Context>(path: readonly Command<Context>[]): Flag[] {
  const command = path.at(-1)!;
  const help: Flag = { name: "help", shorthand: "h", kind: "bool", value: false, usage: `help for ${command.name}` };
  return [help, ...(command.flags ?? []), ...path.flatMap(({ sharedFlags }) => sharedFlags ?? [])];
}

/** The text that `--help` prints. */
export function helpText<Context>(path: readonly Command<Context>[]): string {
  const command = path.at(-1)!;
  const shared = path.slice(0, -1).flatMap(({ sharedFlags }) => sharedFlags ?? []);
  const global = shared.length === 0 ? "" : `\nGlobal flags:\n${describeFlags(shared)}`;
  return `${(command.long ?? command.short).trimEnd()}\n\n${usageText(path)}${global}`;
}

/** Usage, subcommands and flags of the last command in `path`. */
export function usageText<Context>(path: readonly Command<Context>[]): string {
  const command = path.at(-1)!;
  const words = path.map(({ name }) => name).join(" ");
  const sections: string[] = [];
  const usage = command.run ? [words, command.usage, "[flags]"].filter(Boolean).join(" ") : `${words} [command]`;
  sections.push(`Usage:\n  ${usage}\n`);
  if (command.example !== undefined) {
    sections.push(`Examples:\n${command.example.trim().replace(/^(?=.)/gm, "  ")}\n`);
  }
  const commands = [...(command.commands ?? [])].sort((a, b) => (a.name < b.name ? -1 : 1));
  const columns = Math.max(11, ...commands.map(({ name }) => name.length));
  const list = (some: readonly Command<Context>[]) =>
    some.map(({ name, short }) => `  ${name.padEnd(columns)} ${short}\n`).join("");
  for (const group of new Set((command.commands ?? []).map(({ group }) => group))) {
    const title = group ?? "Available commands:";
    sections.push(`${title}\n${list(commands.filter((listed) => listed.group === group))}`);
  }
  const own = flagsOf(path.slice(-1)).filter(({ name }) => path.length > 1 || !isShared(command, name));
  if (own.length > (path.length > 1 ? 0 : 1)) sections.push(`Flags:\n${describeFlags(own)}`);
  if (commands.length > 0) sections.push(`Use "${words} [command] --help" for more about a command.\n`);
  return sections.join("\n");
}

const isShared = <Context>(command: Command<Context>, flag: string) =>
  (command.sharedFlags ?? []).some(({ name }) => name === flag);

/** Words that the user may have meant. */
function suggestion<Context>(program: Command<Context>, word: string): string {
  const typed = word.toLowerCase();
  const near = (program.commands ?? [])
    .filter(({ name }) => distance(name, typed) <= 2 || name.startsWith(typed))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
  if (near.length === 0) return "";
  return `\n\nDid you mean this?\n${near.map(({ name }) => `\t${name}\n`).join("")}`;
}

/** Levenshtein distance. */
function distance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = previous[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      row.push(Math.min(replaced, previous[j]! + 1, row[j - 1]! + 1));
    }
    previous = row;
  }
  return previous[b.length]!;
}
