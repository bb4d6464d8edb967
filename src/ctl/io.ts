/** The environment that etcdctl needs. The program passes the real one; tests pass one they can inspect. */
import type { Clock } from "../base/clock.ts";
import type { Disk } from "../base/disk.ts";
import type { Random } from "../base/random.ts";
import type { TlsOptions } from "../client/raw.ts";

export interface Io {
  /** The arguments after the program's name. */
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly stdin: AsyncIterable<Uint8Array>;
  /** Whether standard input is a terminal. */
  readonly stdinIsTerminal: boolean;
  /** Whether standard error is one. */
  readonly errIsTerminal: boolean;
  out(data: string | Uint8Array): void;
  /** Resolves once the reader has taken enough output for more. */
  drained(): Promise<void>;
  err(text: string): void;
  readonly clock: Clock;
  readonly disk: Disk;
  readonly random: Random;
  /** Resolves at the first SIGINT or SIGTERM. From the call on, these signals no longer end the program themselves. */
  interrupted(): Promise<void>;
  /** Prompts at the terminal without echo; without a terminal, reads a line. */
  askPassword(prompt: string): Promise<string>;
  /** The text at a URL. Rejects when there is none. */
  fetchText(url: string, tls: TlsOptions | undefined): Promise<string>;
  /** Runs a program with this one's output streams; resolves when it ends, rejects when it cannot start. */
  runProgram(file: string, args: readonly string[], env: Readonly<Record<string, string>>): Promise<ProgramEnd>;
}

/** The exit code of a program, or the name of the signal that ended it. */
export type ProgramEnd = number | NodeJS.Signals;

/** One line on standard error in the log format that etcd's programs share. */
export function log(io: Io, level: string, msg: string, fields: Readonly<Record<string, unknown>>): void {
  const ts = new Date(io.clock.wallMs()).toISOString().replace("Z", "000Z");
  io.err(`${JSON.stringify({ level, ts, msg, ...fields })}\n`);
}

/** All of standard input. */
export async function readAll(stdin: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of stdin) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** The first line of standard input, without waiting for its end: the writer may be waiting for us. */
export async function readLine(stdin: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const { value } = await readLines(stdin).next();
  return value;
}

const LINE_BYTES_MAX = 64 * 1024 * 1024;

/** Lines without their newline. A last line without one is not a line: its text is the generator's return value. */
export async function* readLines(stdin: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer, Buffer, void> {
  let rest = Buffer.alloc(0);
  for await (const chunk of stdin) {
    rest = rest.length === 0 ? Buffer.from(chunk) : Buffer.concat([rest, chunk]);
    for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
      yield rest.subarray(0, end);
      rest = rest.subarray(end + 1);
    }
    if (rest.length > LINE_BYTES_MAX) throw new Error(`a line of input is longer than ${LINE_BYTES_MAX} bytes`);
  }
  return rest;
}
