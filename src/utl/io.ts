/** The environment of etcdutl as a process. */
import { systemClock } from "../base/clock.ts";
import { systemDisk } from "../base/disk.ts";
import type { UtlIo } from "./utl.ts";

export function processIo(args: readonly string[]): UtlIo {
  const { stdout, stderr } = process;
  // The reader of our output may close it early.
  stdout.on("error", (error: NodeJS.ErrnoException) => process.exit(error.code === "EPIPE" ? 141 : 1));
  return {
    args,
    out: (text) => void stdout.write(text),
    err: (text) => void stderr.write(text),
    errIsTerminal: stderr.isTTY === true,
    clock: systemClock,
    disk: systemDisk,
  };
}
