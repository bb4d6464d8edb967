/**
 * A member's process on this machine. It outlives the command that starts it, and is found again by a file with its
 * process id, which it writes itself before it becomes the server: there is no moment at which it runs unrecorded.
 */
import { spawn, spawnSync } from "node:child_process";
import { closeSync, openSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { Clock } from "../../base/clock.ts";
import { codeOf } from "../../base/errors.ts";
import { makeDirs } from "../../base/make-dir.ts";
import { DeployError, type Program } from "../common/context.ts";
import { PRIVATE_DIR_MODE, readText } from "../common/files.ts";
import { logPath, memberDir } from "./home.ts";

const POLL_MS = 20;
const LOG_TAIL_BYTES = 64 * 1024;

/** "$0" is the file for the process id. */
const RECORD_AND_BECOME = 'echo $$ > "$0.new" && mv "$0.new" "$0" && exec "$@"';

export const dataDir = (dir: string, member: string): string => join(memberDir(dir, member), "data");
const pidPath = (dir: string, member: string): string => join(memberDir(dir, member), "pid");

export function startMember(dir: string, member: string, program: Program, args: readonly string[]): void {
  makeDirs(memberDir(dir, member), PRIVATE_DIR_MODE);
  const log = openSync(logPath(dir, member), "a", 0o600);
  try {
    rmSync(pidPath(dir, member), { force: true });
    const command = [RECORD_AND_BECOME, pidPath(dir, member), program.file, ...program.args, ...args];
    const child = spawn("/bin/sh", ["-c", ...command], {
      cwd: memberDir(dir, member),
      // Not in the terminal's group: an interrupt of this command is none of the members.
      detached: true,
      stdio: ["ignore", log, log],
      env: environmentOfMembers(),
    });
    child.on("error", () => {});
    child.unref();
  } finally {
    closeSync(log);
  }
}

/** Variables of etcd for another cluster must not leak into this one. */
function environmentOfMembers(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^ETCD_|^NOTIFY_SOCKET$/.test(name)));
}

/** The process id; undefined when it does not run. */
export function runningPid(dir: string, member: string): number | undefined {
  const pid = Number(readText(pidPath(dir, member)));
  if (!Number.isSafeInteger(pid) || pid <= 0) return undefined;
  // The id may be another process's by now: the member's has its directory on its command line.
  return commandLine(pid)?.includes(memberDir(dir, member)) ? pid : undefined;
}

/** Resolves once it has written its process id, which is soon after its start. */
export async function recordedPid(dir: string, member: string, timeoutMs: number, clock: Clock): Promise<number> {
  const endMs = clock.nowMs() + timeoutMs;
  for (;;) {
    const pid = Number(readText(pidPath(dir, member)));
    if (pid > 0) return pid;
    if (clock.nowMs() > endMs) throw new DeployError(`the process of ${member} does not start: is there a /bin/sh?`);
    await pause(clock, POLL_MS);
  }
}

function commandLine(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8");
  } catch (error) {
    if (codeOf(error) !== "ENOENT" || process.platform === "linux") return undefined;
  }
  const { status, stdout } = spawnSync("ps", ["-o", "command=", "-p", `${pid}`], { encoding: "utf8" });
  return status === 0 ? stdout : undefined;
}

/** Ends it in an orderly way; after `graceMs` it is killed. Resolves with whether it had to be. */
export async function stopMember(dir: string, member: string, graceMs: number, clock: Clock): Promise<boolean> {
  const endMs = clock.nowMs() + graceMs;
  let isKilled = false;
  for (let sent: NodeJS.Signals | undefined; ; ) {
    const pid = runningPid(dir, member);
    if (pid === undefined) break;
    const signal = clock.nowMs() < endMs ? "SIGTERM" : "SIGKILL";
    if (signal !== sent) sendSignal(pid, signal);
    isKilled ||= signal === "SIGKILL";
    sent = signal;
    await pause(clock, POLL_MS);
  }
  rmSync(pidPath(dir, member), { force: true });
  return isKilled;
}

function sendSignal(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (codeOf(error) !== "ESRCH") throw new DeployError(`cannot end process ${pid}: ${codeOf(error)}`);
  }
}

/** What the member said last of what went wrong: its last lines of level error and worse, or its last lines. */
export function lastWords(dir: string, member: string): string {
  const text = (readText(logPath(dir, member)) ?? "").slice(-LOG_TAIL_BYTES);
  const lines = text.split("\n").filter((line) => line !== "");
  const bad = lines.filter((line) => /"level":"(error|fatal|panic)"|^Error|^panic/i.test(line));
  return (bad.length > 0 ? bad : lines)
    .slice(-3)
    .map((line) => `  ${line}\n`)
    .join("");
}

export const pause = (clock: Clock, ms: number): Promise<void> => new Promise((resolve) => clock.after(ms, resolve));
