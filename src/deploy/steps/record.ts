/**
 * What an operation leaves beside the inventory: while it is in progress, a record of what was decided and which steps are done,
 * with which a repetition continues; and, for good, a log of every step that was taken. One operation at a time.
 */
import { appendFileSync, rmSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { systemText } from "../../base/system-error.ts";
import { DeployError } from "../common/context.ts";
import { readText, SECRET_MODE, writeWhole } from "../common/files.ts";

export interface Progress<Given> {
  readonly operation: string;
  /** What it was asked to do: a repetition that asks for the same continues it. */
  readonly subject: string;
  /** The command line to repeat. */
  readonly command: string;
  readonly startedMs: number;
  /** What was decided at its beginning. */
  readonly given: Given;
  /** Texts of the steps that are through. */
  readonly done: readonly string[];
}

const recordPath = (inventoryPath: string): string =>
  join(dirname(inventoryPath), `.${basename(inventoryPath)}.operation`);

export const logPath = (inventoryPath: string): string => inventoryPath.replace(/(\.ya?ml)?$/, ".log");

/** Undefined when none is in progress. Throws DeployError. */
export function readProgress<Given>(inventoryPath: string): Progress<Given> | undefined {
  const path = recordPath(inventoryPath);
  const text = readText(path);
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    throw new DeployError(`${path} is damaged: look at ${logPath(inventoryPath)} for what was done, then remove it`);
  }
}

export function writeProgress(inventoryPath: string, progress: Progress<unknown>): void {
  writeWhole(recordPath(inventoryPath), `${JSON.stringify(progress, null, 2)}\n`, SECRET_MODE);
}

export function removeProgress(inventoryPath: string): void {
  rmSync(recordPath(inventoryPath), { force: true });
}

/** One line of JSON. */
export function log(inventoryPath: string, entry: Readonly<Record<string, string>>): void {
  const path = logPath(inventoryPath);
  try {
    appendFileSync(path, `${JSON.stringify(entry)}\n`);
  } catch (error) {
    throw new DeployError(`cannot write the log of what is done, ${path}: ${systemText(error)}`);
  }
}

/** Throws DeployError when one is in progress. */
export function refuseUnfinished(inventoryPath: string): void {
  const progress = readProgress(inventoryPath);
  if (progress !== undefined) throw unfinished(progress);
}

export const unfinished = ({ command, done }: Progress<unknown>): DeployError =>
  new DeployError(
    `an operation is not finished, after ${done.length} ${done.length === 1 ? "step" : "steps"}: "${command}". Repeat that command to finish it; or give it up, when you know why, with "kvorum cluster abandon"`,
  );
