import { spawn } from "node:child_process";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { systemClock } from "../../src/base/clock.ts";
import { systemDisk } from "../../src/base/disk.ts";
import { encodeLossless } from "../../src/base/lossless-text.ts";
import { systemRandom } from "../../src/base/random.ts";
import type { Io } from "../../src/ctl/io.ts";
import { main } from "../../src/ctl/main.ts";
import { repositoryRoot } from "../harness/repository.ts";

export interface CtlRun {
  readonly code: number;
  readonly stdout: Buffer;
  readonly stderr: string;
}

export interface CtlOptions {
  readonly input?: string | Uint8Array | AsyncIterable<Uint8Array>;
  readonly env?: Readonly<Record<string, string>>;
  /** Passwords to enter at the prompt. */
  readonly passwords?: string[];
  /** Called after each print, with the output so far. */
  readonly onOutput?: (stdout: string) => void;
  /** Resolves when more may be printed. */
  readonly drained?: () => Promise<void>;
  /** Resolves when the command should be interrupted. */
  readonly interrupt?: Promise<void>;
}

async function* once(data: string | Uint8Array): AsyncGenerator<Uint8Array> {
  if (data.length > 0) yield Buffer.from(data);
}

/** Runs our etcdctl within this process. */
export async function ctl(args: readonly string[], options: CtlOptions = {}): Promise<CtlRun> {
  const out: Buffer[] = [];
  const err: string[] = [];
  const input = options.input ?? "";
  const io: Io = {
    args,
    env: options.env ?? {},
    stdin: typeof input === "string" || input instanceof Uint8Array ? once(input) : input,
    stdinIsTerminal: false,
    errIsTerminal: false,
    out(data) {
      out.push(typeof data === "string" ? encodeLossless(data) : Buffer.from(data));
      options.onOutput?.(Buffer.concat(out).toString());
    },
    drained: options.drained ?? (() => Promise.resolve()),
    err: (text) => void err.push(text),
    clock: systemClock,
    disk: systemDisk,
    random: systemRandom,
    interrupted: () => options.interrupt ?? new Promise(() => {}),
    async askPassword(prompt) {
      io.out(prompt);
      return options.passwords?.shift() ?? "";
    },
    fetchText: async (url) => (await fetch(url)).text(),
    async runProgram(file, programArgs, env) {
      const { execFile } = await import("node:child_process");
      return new Promise((resolve, reject) => {
        execFile(file, programArgs, { env: { ...process.env, ...env } }, (error, stdout, stderr) => {
          if (stdout !== "") io.out(stdout);
          if (stderr !== "") io.err(stderr);
          if (error === null) resolve(0);
          else if (typeof error.code === "number") resolve(error.code);
          else if (error.signal != null) resolve(error.signal);
          else reject(new Error(`exec: "${file}": executable file not found in $PATH`));
        });
      });
    },
  };
  const code = await main(io);
  return { code, stdout: Buffer.concat(out), stderr: err.join("") };
}

export interface CtlProcess {
  /** Standard output so far. */
  printed(): string;
  write(input: string): void;
  end(): void;
  /** The exit code; -1 after a signal. */
  readonly code: Promise<number>;
  stderr(): string;
  signal(name: NodeJS.Signals): void;
  kill(): Promise<unknown>;
}

/** Runs our etcdctl as a separate process, for commands that end only with it. */
export function ctlProcess(args: readonly string[]): CtlProcess {
  const program = pathToFileURL(join(repositoryRoot, "src", "programs", "etcdctl.ts")).href;
  const code = `import { main } from ${JSON.stringify(program)}; await main(process.argv.slice(1), process.env);`;
  const child = spawn(process.execPath, ["--import", "tsx", "--input-type=module", "-e", code, "--", ...args], {
    cwd: repositoryRoot,
  });
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (chunk) => (stdout += chunk));
  child.stderr.on("data", (chunk) => (stderr += chunk));
  const ended = new Promise<number>((resolve) => child.once("close", (status) => resolve(status ?? -1)));
  return {
    printed: () => stdout,
    write: (input) => void child.stdin.write(input),
    end: () => void child.stdin.end(),
    code: ended,
    stderr: () => stderr,
    signal: (name) => void child.kill(name),
    kill() {
      child.kill("SIGKILL");
      return ended;
    },
  };
}
