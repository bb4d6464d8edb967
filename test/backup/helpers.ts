/** Runs `kvorum backup` and `kvorum restore` inside the test's process. */
import { main } from "../../src/backup/main.ts";
import { systemClock } from "../../src/base/clock.ts";
import { systemDisk } from "../../src/base/disk.ts";
import { systemRandom } from "../../src/base/random.ts";
import type { Io } from "../../src/ctl/io.ts";

export interface Result {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

export interface Running {
  /** What it has said so far on standard error. */
  readonly err: () => string;
  /** As SIGTERM does; resolves when it has ended. */
  stop(): Promise<Result>;
  readonly ended: Promise<Result>;
}

/** `backup list …` or `restore …`, to its end. */
export const kvorum = (program: string, ...args: readonly string[]): Promise<Result> => start(program, ...args).ended;

/** The same, while it runs. */
export function start(program: string, ...args: readonly string[]): Running {
  let out = "";
  let err = "";
  let interrupt: () => void = () => {};
  const interrupted = new Promise<void>((resolve) => (interrupt = resolve));
  const io: Io = {
    args,
    env: {},
    stdin: (async function* () {})(),
    stdinIsTerminal: false,
    errIsTerminal: false,
    out: (data) => void (out += typeof data === "string" ? data : Buffer.from(data).toString()),
    drained: () => Promise.resolve(),
    err: (text) => void (err += text),
    clock: systemClock,
    disk: systemDisk,
    random: systemRandom,
    interrupted: () => interrupted,
    askPassword: () => Promise.resolve(""),
    fetchText: () => Promise.reject(new Error("no URL is read here")),
    runProgram: () => Promise.reject(new Error("no program is run here")),
  };
  const ended = main(program === "restore" ? "restore" : "backup", io).then((code) => ({ code, out, err }));
  return {
    err: () => err,
    ended,
    stop: () => {
      interrupt();
      return ended;
    },
  };
}
