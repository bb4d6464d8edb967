/**
 * Reads and runs scenario files: commands with the exact output that each must give.
 *
 *   # A comment.
 *   command argument key=value key=(value,value)
 *   further input, over any number of lines
 *   ----
 *   the output, up to a blank line
 *
 * With KVORUM_REWRITE_SCENARIOS=1 our own files are rewritten with the current output; review the difference before
 * keeping it. The format is that of github.com/cockroachdb/datadriven.
 */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

export interface Argument {
  readonly key: string;
  /** Empty for an argument that is only a key. */
  readonly values: readonly string[];
}

export interface Command {
  readonly name: string;
  readonly args: readonly Argument[];
  readonly input: string;
  /** Ends with a line feed unless it is empty. */
  readonly expected: string;
  /** Line number in the file. */
  readonly line: number;
  /** The file from the previous command's end to this one's output. */
  readonly source: string;
}

/** Output of one command. Reported errors are part of it; exceptions fail the test. */
export type Handler = (command: Command) => string;

/**
 * Scenarios of etcd's own raft (github.com/etcd-io/raft), which are not part of this repository: in the folder named by
 * KVORUM_RAFT_SCENARIOS, or beside the repository. test/raft/coverage.ts says which of ours covers which of theirs.
 */
export const sharedScenarios =
  process.env["KVORUM_RAFT_SCENARIOS"] ?? fileURLToPath(new URL("../../../../shared/raft-scenarios/", import.meta.url));
export const ownScenarios = fileURLToPath(new URL("../scenarios/", import.meta.url));

/**
 * One test for each file of a folder, each with a fresh handler. A folder that is missing is one skipped test that
 * names it; with KVORUM_REQUIRE_ALL=1 it is a failing test, unless KVORUM_WITHOUT_RAFT_SCENARIOS=1.
 */
export function testScenarios(folder: string, newHandler: () => Handler, env = process.env): void {
  if (!existsSync(folder)) {
    const missing = missingScenarios(folder, env);
    test(`scenarios of ${folder}`, missing.isFault ? {} : { skip: missing.message }, () =>
      assert.fail(missing.message),
    );
    return;
  }
  for (const file of readdirSync(folder).sort()) {
    if (file.endsWith(".txt")) test(`${basename(folder)}/${file}`, () => runScenario(join(folder, file), newHandler()));
  }
}

export function missingScenarios(folder: string, env: NodeJS.ProcessEnv): { isFault: boolean; message: string } {
  const isFault = env["KVORUM_REQUIRE_ALL"] === "1" && env["KVORUM_WITHOUT_RAFT_SCENARIOS"] !== "1";
  if (!isFault) return { isFault, message: `the folder ${folder} is missing` };
  const message =
    `the folder ${folder} is missing, and KVORUM_REQUIRE_ALL=1 asks for it. It holds the scenarios of github.com/etcd-io/raft: ` +
    "its folder testdata as interaction/, quorum/testdata as quorum/ and confchange/testdata as confchange/. Put them there, " +
    "or name their folder in KVORUM_RAFT_SCENARIOS; KVORUM_WITHOUT_RAFT_SCENARIOS=1 does without them";
  return { isFault, message };
}

export function runScenario(path: string, handle: Handler): void {
  const commands = parseScenario(readFileSync(path, "utf8"));
  const rewrite = process.env["KVORUM_REWRITE_SCENARIOS"] === "1" && path.startsWith(ownScenarios);
  let rewritten = "";
  for (const command of commands) {
    const output = handle(command);
    const actual = output === "" || output.endsWith("\n") ? output : `${output}\n`;
    rewritten += `${command.source}${actual}`;
    if (!rewrite) assert.equal(actual, command.expected, `${path}:${command.line}: ${command.name}`);
  }
  if (rewrite) writeFileSync(path, rewritten);
}

export function parseScenario(text: string): Command[] {
  const commands: Command[] = [];
  const lines = text.split("\n");
  // The last line feed ends a line, it does not start one.
  if (lines.at(-1) === "") lines.pop();
  let at = 0;
  let sourceStart = 0;
  while (at < lines.length) {
    if (lines[at] === "" || lines[at]!.startsWith("#")) {
      at++;
      continue;
    }
    const line = at + 1;
    const [name, ...args] = parseArguments(lines[at++]!);
    const inputStart = at;
    while (at < lines.length && lines[at] !== "----") at++;
    if (at === lines.length) throw new SyntaxError(`line ${line}: no output`);
    const input = lines.slice(inputStart, at).join("\n");
    const outputStart = ++at;
    while (at < lines.length && lines[at] !== "") at++;
    commands.push({
      name: name!.key,
      args,
      input,
      expected: joinLines(lines.slice(outputStart, at)),
      line,
      source: joinLines(lines.slice(sourceStart, outputStart)),
    });
    sourceStart = at;
  }
  return commands;
}

function joinLines(lines: readonly string[]): string {
  return lines.map((line) => `${line}\n`).join("");
}

function parseArguments(text: string): Argument[] {
  return [...text.matchAll(/([^\s=]+)(?:=(?:\(([^)]*)\)|(\S*)))?/g)].map(([, key, list, value]) => {
    if (list !== undefined) return { key: key!, values: list.split(",").map((item) => item.trim()) };
    return { key: key!, values: value === undefined ? [] : [value] };
  });
}

/** The values of the argument with a key; empty if absent. */
export function valuesOf(command: Command, key: string): readonly string[] {
  return command.args.find((arg) => arg.key === key)?.values ?? [];
}
