// Generates the tables of docs/configuration.md, between the lines `<!-- begin NAME … -->` and `<!-- end NAME -->`,
// from the definitions of the settings. `--check` writes nothing and fails when the result would differ.
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { goDuration } from "../src/base/duration.ts";
import type { Bounds } from "../src/config/settings/definition.ts";
import { allSettings, type NamedSetting, sections } from "../src/config/settings/definitions.ts";
import { type LegacyFlag, legacyFlags } from "../src/config/sources/legacy-flags.ts";
import { gates } from "../src/config/values/feature-gates.ts";

const { values } = parseArgs({ options: { check: { type: "boolean", default: false } } });

const file = join(dirname(fileURLToPath(import.meta.url)), "..", "docs", "configuration.md");

const parts: Readonly<Record<string, () => string>> = {
  settings: settingsTables,
  "file-only": fileOnlyTable,
  gates: gatesTable,
  "older-flags": olderFlagsTable,
};

function main(): void {
  const before = readFileSync(file, "utf8");
  let after = before;
  for (const [name, make] of Object.entries(parts)) {
    const pattern = new RegExp(`(<!-- begin ${name}[^\n]*-->\n)[^]*?(<!-- end ${name} -->)`);
    if (!pattern.test(after)) throw new Error(`${file} has no place for "${name}"`);
    after = after.replace(pattern, (_, begin: string, end: string) => `${begin}\n${make()}\n${end}`);
  }
  if (after !== before) {
    if (values.check) {
      process.stderr.write('docs/configuration.md does not say what the settings are: run "npm run gen:docs"\n');
      process.exitCode = 1;
    } else writeFileSync(file, after);
  }
}

function table(columns: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |\n`;
  return line(columns) + line(columns.map(() => "---")) + rows.map(line).join("");
}

const code = (text: string): string => (text === "" ? "" : `\`${text}\``);

function settingsTables(): string {
  return sections.map(({ title, settings }) => `### ${title}\n\n${flagsTable(settings)}`).join("\n");
}

function flagsTable(settings: readonly NamedSetting[]): string {
  return table(
    ["flag", "default", "key in the file", "what it does", "here"],
    settings
      .filter(({ flag }) => flag !== false)
      .map((setting) => [
        code(`--${setting.name}`),
        code(setting.default),
        keyText(setting),
        description(setting),
        stateText(setting),
      ]),
  );
}

function fileOnlyTable(): string {
  return table(
    ["key in the file", "default", "what it does"],
    allSettings
      .filter(({ flag }) => flag === false)
      .map((setting) => [code(setting.name), code(setting.default), description(setting)]),
  );
}

function keyText({ name, file = name }: NamedSetting): string {
  if (file === false) return "none";
  return file === name ? "same" : code(file);
}

function stateText({ status }: NamedSetting): string {
  return status === undefined ? "honoured" : `${status.state}: ${status.reason}`;
}

/** The help text, and the numbers it omits. */
function description(setting: NamedSetting): string {
  const help = setting.help.replace(/:$/, ".");
  const numbers = [...boundTexts(setting), ...zeroTexts(setting)];
  return [help, ...numbers].join(" ");
}

const BOUND_WORDS: readonly (readonly [Exclude<keyof Bounds, "reason">, (number: string) => string])[] = [
  ["above", (number) => `More than ${number}.`],
  ["min", (number) => `At least ${number}.`],
  ["max", (number) => `At most ${number}.`],
  ["raisedTo", (number) => `At least ${number}.`],
  ["recommendedMax", (number) => `Above ${number} with a warning.`],
];

function boundTexts({ bounds = {}, help, kind }: NamedSetting): string[] {
  return BOUND_WORDS.flatMap(([bound, words]) => {
    const value = bounds[bound];
    if (value === undefined) return [];
    const number = numberText(value, kind.name);
    return new RegExp(`\\b${number}\\b`).test(help) ? [] : [words(number)];
  });
}

function zeroTexts({ zeroMeans, help, kind }: NamedSetting): string[] {
  if (zeroMeans === undefined || help.includes("0 means")) return [];
  return [`0 means ${numberText(zeroMeans, kind.name)}.`];
}

const numberText = (value: number, kind: string): string =>
  kind === "duration" && value !== 0 ? goDuration(value) : String(value);

function gatesTable(): string {
  return table(
    ["gate", "stage", "default", "what it does", "here"],
    gates.map((gate) => [
      code(gate.name),
      gate.stage.toLowerCase(),
      code(String(gate.default)),
      gate.help,
      gate.noEffect === undefined ? "honoured" : `no effect: ${gate.noEffect}`,
    ]),
  );
}

/** Flags with the same replacement share a row. */
function olderFlagsTable(): string {
  const rows = new Map<string, string[]>();
  for (const [name, flag] of legacyFlags) {
    const fate = fateOf(name, flag);
    const names = rows.get(fate) ?? [];
    names.push(code(`--${name}`));
    rows.set(fate, names);
  }
  return table(
    ["flag", "what happens"],
    [...rows].map(([fate, names]) => [names.join(", "), fate]),
  );
}

function fateOf(name: string, flag: LegacyFlag): string {
  switch (flag.state) {
    case "ignored":
      return "ignored, as etcd itself still does";
    case "renamed":
      return name === `experimental-${flag.to}`
        ? "carried over to the same name without `experimental-`, with a warning"
        : `carried over to \`--${flag.to}\`, with a warning`;
    case "gate":
      return "carried over to the feature gate, with a warning";
    case "debug":
      return "`--log-level=debug`, with a warning";
    case "removed":
      if (flag.harmless === undefined) return `accepted without effect, with a warning: ${flag.advice}`;
      return `refused unless ${harmlessText(flag.harmless)}: ${flag.advice}`;
  }
}

function harmlessText(values: readonly string[]): string {
  if (values.includes("false")) return "`false`";
  return values.includes("") ? "empty" : values.map(code).join(", ");
}

main();
