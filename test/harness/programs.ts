/**
 * Finds the programs that tests drive from outside. A test whose program is missing is skipped with its name, or fails
 * when KVORUM_REQUIRE_ALL=1, as in CI.
 */
import { execFile } from "node:child_process";
import { accessSync, constants, statSync } from "node:fs";
import { delimiter, join } from "node:path";
import { repositoryRoot } from "./repository.ts";
import { patience } from "./wait.ts";

export { repositoryRoot };

/** A program and its fixed first arguments. */
export interface Program {
  readonly file: string;
  readonly args: readonly string[];
}

/**
 * Value of node:test's `skip` option: false when `name` exists, otherwise the reason. Throws instead under
 * KVORUM_REQUIRE_ALL=1.
 */
export function requireProgram(name: string): string | false {
  return requirement(findProgram(name) !== undefined, `${name} is not on PATH`);
}

/** As requireProgram, for any requirement of a test: `reason` says what is missing. */
export function requirement(met: boolean, reason: string): string | false {
  if (met) return false;
  if (process.env["KVORUM_REQUIRE_ALL"] === "1") throw new Error(`${reason}, and KVORUM_REQUIRE_ALL=1 asks for it`);
  return reason;
}

/**
 * As requirement, for what a machine may not permit: with KVORUM_WITHOUT_HOSTS=1 it is skipped even where everything is
 * required.
 */
export function hostRequirement(met: boolean, reason: string): string | false {
  return !met && process.env["KVORUM_WITHOUT_HOSTS"] === "1" ? reason : requirement(met, reason);
}

/** The absolute path of a program on PATH; a name with a slash is taken as a path. */
export function findProgram(name: string): string | undefined {
  const candidates = name.includes("/")
    ? [name]
    : (process.env["PATH"] ?? "").split(delimiter).map((dir) => join(dir, name));
  return candidates.find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return statSync(path).isFile();
    } catch {
      return false;
    }
  });
}

/** This repository's server; KVORUM_SERVER selects another one, such as stock etcd, to test the tests. */
export function ourEtcd(): Program {
  const other = process.env["KVORUM_SERVER"];
  if (other) return { file: other, args: [] };
  return { file: process.execPath, args: [join(repositoryRoot, "bin", "etcd")] };
}

/** Stock etcd: KVORUM_STOCK_ETCD, or `etcd` on PATH. */
export function stockEtcd(): Program {
  return { file: findProgram(process.env["KVORUM_STOCK_ETCD"] || "etcd") ?? "etcd", args: [] };
}

/** Skip reason when stock etcd is missing, see requireProgram. */
export function requireStockEtcd(): string | false {
  return requireProgram(process.env["KVORUM_STOCK_ETCD"] || "etcd");
}

/** Version of stock etcd as one number, 3.7.1 as 3.007; undefined when there is none. */
export async function stockEtcdVersion(): Promise<number | undefined> {
  if (findProgram(stockEtcd().file) === undefined) return undefined;
  const { stdout } = await run(stockEtcd(), ["--version"]);
  const [, major, minor] = /Version: (\d+)\.(\d+)/.exec(stdout.toString()) ?? [];
  return Number(major) + Number(minor) / 1000;
}

export interface Result {
  readonly code: number;
  readonly stdout: Buffer;
  readonly stderr: string;
}

export interface RunOptions {
  readonly input?: string | Uint8Array;
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly cwd?: string;
  /** Milliseconds, on a quiet machine, until the program is killed, with code -1; 20 s when absent. */
  readonly timeoutMs?: number;
}

/** Runs a program to completion; a failing exit code is a result, not an error. */
export function run(program: Program | string, args: readonly string[], options: RunOptions = {}): Promise<Result> {
  const { file, args: first } = typeof program === "string" ? { file: program, args: [] } : program;
  return new Promise((resolve, reject) => {
    const child = execFile(
      file,
      [...first, ...args],
      {
        encoding: "buffer",
        env: { ...process.env, ...options.env },
        maxBuffer: 1 << 28,
        timeout: patience(options.timeoutMs ?? 20_000),
        killSignal: "SIGKILL",
        ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      },
      (error, stdout, stderr) => {
        const code = error === null ? 0 : (error.code ?? -1);
        if (typeof code === "string") reject(error);
        else resolve({ code, stdout, stderr: stderr.toString() });
      },
    );
    child.stdin?.on("error", () => {}); // The program may end before it reads all of its input.
    child.stdin?.end(options.input);
  });
}
