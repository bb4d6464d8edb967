/** The environment of etcdctl as a process: its arguments, streams, signals and children. */
import { systemClock } from "../base/clock.ts";
import { systemDisk } from "../base/disk.ts";
import { encodeLossless, isText } from "../base/lossless-text.ts";
import { systemRandom } from "../base/random.ts";
import type { TlsOptions } from "../client/raw.ts";
import { type ReadProc, trueArguments, trueEnvironment } from "./arguments.ts";
import { badArgs } from "./exit.ts";
import { type Io, readLines } from "./io.ts";

const readProc: ReadProc = (name) => systemDisk.readFile(`/proc/self/${name}`);

export function processIo(args: Io["args"], env: Io["env"]): Io {
  const { stdin, stdout, stderr } = process;
  // The reader of our output may close it early.
  stdout.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 141 : 1));
  const lines = readLines(stdin);
  return {
    get args() {
      return trueArguments(args, readProc);
    },
    env: trueEnvironment(env, readProc),
    stdin,
    stdinIsTerminal: stdin.isTTY === true,
    errIsTerminal: process.stderr.isTTY === true,
    out: (data) => void stdout.write(typeof data === "string" ? encodeLossless(data) : data),
    drained: () =>
      stdout.writableNeedDrain ? new Promise((resolve) => stdout.once("drain", resolve)) : Promise.resolve(),
    err: (text) => void stderr.write(encodeLossless(text)),
    clock: systemClock,
    disk: systemDisk,
    random: systemRandom,
    interrupted() {
      return new Promise((resolve) => {
        for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => resolve());
      });
    },
    async askPassword(prompt) {
      stdout.write(prompt);
      if (stdin.isTTY) return readHidden();
      const { value } = await lines.next();
      stdout.write("\n");
      return value.toString().replace(/\r$/, "");
    },
    fetchText,
    async runProgram(file, programArgs, variables) {
      if (![file, ...programArgs, ...Object.values(variables)].every(isText)) {
        throw badArgs("what is not UTF-8 cannot be handed on to a program");
      }
      const { spawn } = await import("node:child_process");
      return new Promise((resolve, reject) => {
        const child = spawn(file, programArgs, {
          stdio: ["ignore", "inherit", "inherit"],
          env: { ...env, ...variables },
        });
        child.on("error", (error: NodeJS.ErrnoException) => {
          reject(error.code === "ENOENT" ? new Error(`exec: "${file}": executable file not found in $PATH`) : error);
        });
        child.on("exit", (code, signal) => resolve(code ?? signal ?? 1));
      });
    },
  };
}

/** Resolves once all output has left the process: ending earlier would cut off what a pipe has not taken. */
export async function flushOutput(): Promise<void> {
  for (const stream of [process.stdout, process.stderr]) {
    await new Promise<void>((resolve) => stream.write("", () => resolve()));
  }
}

const ENTER = new Set([10, 13]);
const BACKSPACE = new Set([8, 127]);
const INTERRUPT = 3;

/** A line typed at the terminal without echo. */
function readHidden(): Promise<string> {
  const { stdin, stdout } = process;
  return new Promise((resolve) => {
    const typed: number[] = [];
    stdin.setRawMode(true);
    stdin.resume();
    const onData = (chunk: Buffer) => {
      for (const byte of chunk) {
        if (byte === INTERRUPT) {
          stdin.setRawMode(false);
          process.exit(130);
        }
        if (ENTER.has(byte)) {
          stdin.off("data", onData);
          stdin.setRawMode(false);
          stdin.pause();
          stdout.write("\n");
          resolve(Buffer.from(typed).toString());
          return;
        }
        if (BACKSPACE.has(byte)) typed.pop();
        else typed.push(byte);
      }
    };
    stdin.on("data", onData);
  });
}

async function fetchText(url: string, tls: TlsOptions | undefined): Promise<string> {
  const secure = url.startsWith("https:");
  const { get } = secure ? await import("node:https") : await import("node:http");
  const pem = (bytes: Uint8Array | undefined) => (bytes === undefined ? undefined : Buffer.from(bytes));
  const options = {
    ca: pem(tls?.ca),
    cert: pem(tls?.cert),
    key: pem(tls?.key),
    rejectUnauthorized: !tls?.insecureSkipVerify,
  };
  return new Promise((resolve, reject) => {
    const request = get(url, secure ? options : {}, async (response) => {
      try {
        const chunks: Buffer[] = [];
        for await (const chunk of response) chunks.push(chunk as Buffer);
        resolve(Buffer.concat(chunks).toString());
      } catch (error) {
        reject(error);
      }
    });
    request.on("error", reject);
  });
}
