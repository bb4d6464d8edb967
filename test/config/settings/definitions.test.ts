import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { TURNS_DEFAULTS } from "../../../src/base/turns.ts";
import { defaultConfig } from "../../../src/config/config.ts";
import { defaultOf } from "../../../src/config/settings/definition.ts";
import { allSettings, sections } from "../../../src/config/settings/definitions.ts";
import { repositoryRoot } from "../../harness/repository.ts";

test("a setting gives one field of the configuration, in the unit of the field", () => {
  const fields = new Set<string>();
  for (const setting of allSettings) {
    if (setting.field === undefined) continue;
    assert.ok(!fields.has(setting.field), `${setting.field} is given twice`);
    fields.add(setting.field);
    const value = setting.field
      .split(".")
      .reduce<unknown>((at, key) => (at as Record<string, unknown>)[key], defaultConfig);
    const usual = defaultOf(setting);
    const expected = typeof usual === "number" ? (usual || (setting.zeroMeans ?? 0)) * (setting.times ?? 1) : usual;
    assert.deepEqual(value, expected, setting.name);
  }
});

test("each setting's field is used, unless the setting says that it has no effect", () => {
  const source = sourceOfReaders();
  for (const { name, field, status } of allSettings) {
    if (field === undefined || status !== undefined) continue;
    const isRead = field.split(".").every((key) => new RegExp(`\\b${key}\\b`).test(source));
    assert.ok(isRead, `--${name} gives ${field}, which nothing reads`);
  }
});

test("every setting is in one section of the help, and its default is within its own bounds", () => {
  const listed = sections.flatMap(({ settings }) => settings.map(({ name }) => name));
  assert.deepEqual([...listed].sort(), allSettings.map(({ name }) => name).sort());
  for (const setting of allSettings) {
    const { above, min, max, raisedTo } = setting.bounds ?? {};
    const value = defaultOf(setting) as number;
    assert.ok(above === undefined || value > above, setting.name);
    for (const least of [min, raisedTo]) assert.ok(least === undefined || value >= least, setting.name);
    assert.ok(max === undefined || value <= max, setting.name);
  }
});

test("long work without settings has the members' default limits", () => {
  assert.deepEqual({ ...TURNS_DEFAULTS, ...defaultConfig.turns }, TURNS_DEFAULTS);
});

/** All except the definitions and generated files. */
function sourceOfReaders(): string {
  const root = join(repositoryRoot, "src");
  return readdirSync(root, { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts") && !/^(config.settings|proto)\b/.test(file))
    .map((file) => readFileSync(join(root, file), "utf8"))
    .join("\n");
}
