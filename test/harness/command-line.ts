/** Options of the programs for developers: an unknown one, or one whose value is not usable, is refused by name. */
import { type ParseArgsConfig, parseArgs } from "node:util";

/** `text` takes a value; `number` a whole number from 0 on; `flag` takes none. */
export type OptionKind = "text" | "number" | "flag";

interface Values<Kinds extends Readonly<Record<string, OptionKind>>> {
  text(name: NameOf<Kinds, "text">): string | undefined;
  number(name: NameOf<Kinds, "number">, otherwise: number): number;
  has(name: NameOf<Kinds, "flag">): boolean;
}

type NameOf<Kinds, Kind extends OptionKind> = {
  [Name in keyof Kinds]: Kinds[Name] extends Kind ? Name : never;
}[keyof Kinds];

/** Reads `args`; ends the process with 2 when something is wrong with them. */
export function commandLine<const Kinds extends Readonly<Record<string, OptionKind>>>(
  kinds: Kinds,
  args: readonly string[] = process.argv.slice(2),
): Values<Kinds> {
  try {
    return parse(kinds, args);
  } catch (error) {
    console.error((error as Error).message);
    process.exit(2);
  }
}

/** The same; throws instead. */
export function parse<const Kinds extends Readonly<Record<string, OptionKind>>>(
  kinds: Kinds,
  args: readonly string[],
): Values<Kinds> {
  const options: NonNullable<ParseArgsConfig["options"]> = {};
  for (const [name, kind] of Object.entries(kinds)) options[name] = { type: kind === "flag" ? "boolean" : "string" };
  const known = Object.keys(kinds).map((name) => `--${name}`);
  const { values, positionals } = parseArgs({ args: [...args], options, strict: false, allowPositionals: true });
  for (const [name, value] of Object.entries(values)) {
    const kind = kinds[name];
    if (kind === undefined) throw new Error(`there is no option --${name}; options are ${known.join(", ")}`);
    if (kind === "flag" ? value !== true : typeof value !== "string" || value.startsWith("--"))
      throw new Error(`--${name} ${kind === "flag" ? "takes no value" : "needs a value"}`);
    if (kind === "number" && !/^\d+$/.test(String(value)))
      throw new Error(`--${name} needs a whole number, not ${value}`);
  }
  if (positionals.length > 0) throw new Error(`${positionals[0]} is not an option; options are ${known.join(", ")}`);
  const get = (name: PropertyKey): string | boolean | undefined =>
    values[name as string] as string | boolean | undefined;
  return {
    text: (name) => get(name) as string | undefined,
    number: (name, otherwise) => Number(get(name) ?? otherwise),
    has: (name) => get(name) === true,
  };
}
