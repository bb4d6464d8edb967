/** The flags that commands of clusters share. */
import type { Flag } from "../../base/flags.ts";
import { type DeployCommand, DeployError } from "./context.ts";

export type GivenFlags = Parameters<NonNullable<DeployCommand["run"]>>[1]["flags"];

export const INVENTORY_FILE: Flag = {
  name: "file",
  shorthand: "f",
  kind: "string",
  value: "cluster.yml",
  usage: "the inventory",
};

export const FORMAT: Flag = {
  name: "write-out",
  shorthand: "w",
  kind: "string",
  value: "simple",
  usage: "simple or json",
};

/** What FORMAT asks for. Throws when it is neither. */
export function isJson(flags: GivenFlags): boolean {
  const format = flags.string(FORMAT.name);
  if (format !== "simple" && format !== "json") throw new DeployError(`it prints simple or json, not ${format}`);
  return format === "json";
}
