import type { FlagSpec } from "../../src/config/settings/flag-spec.ts";
import { fileSchema, type ObjectSchema } from "../../src/config/sources/file-schema.ts";

/** The row of docs/configuration.md that a flag has to have. */
export function flagRow(spec: FlagSpec): string {
  const key = fileKey(spec.name);
  const text = spec.default === "" ? "" : `\`${spec.default}\``;
  return `| \`--${spec.name}\` | ${text} | ${keyText(spec.name, key)} | ${spec.help.replaceAll("|", "\\|")} | ${state(spec)} |`;
}

function keyText(flag: string, key: string | undefined): string {
  if (key === undefined) return "none";
  return key === flag ? "same" : `\`${key}\``;
}

function state({ status }: FlagSpec): string {
  if (status === undefined || status.state === "honoured") return "honoured";
  return status.state === "not built" ? `refused: ${status.reason} is not built yet` : `no effect: ${status.reason}`;
}

/** Where a flag stands in the file, as a path of keys; undefined when it cannot be set there. */
function fileKey(flag: string): string | undefined {
  return findKey(fileSchema, flag, "");
}

function findKey(schema: ObjectSchema, flag: string, path: string): string | undefined {
  for (const [key, field] of Object.entries(schema.fields)) {
    if (!("fields" in field)) {
      if (field.flag === flag) return path + key;
      continue;
    }
    const found = findKey(field, flag, `${path}${key}.`);
    if (found !== undefined) return found;
  }
  return undefined;
}
