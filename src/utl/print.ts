/** The output formats of etcdutl. Source: etcd `etcdutl/etcdutl/printer*.go`. */
import { renderTable } from "../base/table.ts";
import { EXIT, ExitError, type Utl } from "./utl.ts";

/** One result in each format that can show it. */
export interface Shown {
  /** Names and values for `fields`. */
  readonly fields: readonly (readonly [name: string, value: string | number])[];
  readonly headings: readonly string[];
  readonly row: readonly string[];
  readonly json: unknown;
  /** The name of etcd's type, for the error that it has no protobuf form. */
  readonly goType: string;
  readonly goValue: string;
}

/** Prints in the format given by `--write-out`. Throws ExitError for an unknown one. */
export function print({ io, flags }: Utl, shown: Shown): void {
  switch (flags.string("write-out")) {
    case "simple":
      return io.out(`${shown.row.join(", ")}\n`);
    case "fields":
      return io.out(shown.fields.map(([name, value]) => `"${name}" : ${value}\n`).join(""));
    case "json":
      return io.out(`${JSON.stringify(shown.json)}\n`);
    case "table":
      return io.out(renderTable(shown.headings, [shown.row]));
    case "protobuf":
      throw new ExitError(EXIT.badFeature, `marshal unsupported for type ${shown.goType} (${shown.goValue})`);
    default:
      throw new ExitError(EXIT.badFeature, "unsupported output format");
  }
}

/** Checks `--write-out` before any work is done. Throws ExitError. */
export function checkFormat({ flags }: Utl): void {
  if (!["simple", "fields", "json", "table", "protobuf"].includes(flags.string("write-out"))) {
    throw new ExitError(EXIT.badFeature, "unsupported output format");
  }
}
