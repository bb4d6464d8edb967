/**
 * Scripts on a host, over the system's ssh: its configuration, agent and jump hosts apply. A script goes in over standard
 * input, so nothing of it, keys above all, is on a command line.
 */
import { spawn } from "node:child_process";
import { type Context, DeployError } from "../common/context.ts";

/** As root: the user of the connection, or by sudo without a password. */
const asRoot = (shell: string): string => `if [ "$(id -u)" = 0 ]; then exec ${shell}; else exec sudo -n ${shell}; fi`;
const OPTIONS = ["-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=15"];
const OUTPUT_BYTES_MAX = 1 << 20;

/**
 * Resolves with what the script printed. Throws DeployError when it cannot be run, or fails. A script that arrives in part,
 * because this process ends, is not run at all: the shell reads to the closing brace first.
 */
export const runOn = (context: Pick<Context, "env">, target: string, script: string): Promise<string> =>
  over(context, target, asRoot("sh -s"), `{\nset -eu\nexport LC_ALL=C\n${script}\n}\n`);

/** Runs a script without secrets, which is on the command line, with `input` as its standard input. Throws DeployError. */
export const feedOn = (
  context: Pick<Context, "env">,
  target: string,
  script: string,
  input: Uint8Array,
): Promise<string> => over(context, target, asRoot(`sh -euc ${word(script)}`), input);

function over(
  { env }: Pick<Context, "env">,
  target: string,
  command: string,
  input: string | Uint8Array,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn("ssh", [...OPTIONS, "--", target, command], {
      env: { ...env },
      stdio: ["pipe", "pipe", "pipe"],
    });
    let [out, err] = ["", ""];
    child.stdout.setEncoding("utf8").on("data", (text: string) => (out = (out + text).slice(0, OUTPUT_BYTES_MAX)));
    child.stderr.setEncoding("utf8").on("data", (text: string) => (err = (err + text).slice(-OUTPUT_BYTES_MAX)));
    child.on("error", (error) => reject(new DeployError(`cannot run ssh: ${error.message}`)));
    child.on("close", (code) => {
      if (code === 0) resolve(out);
      else reject(new DeployError(`${target}: ${explain(code, err)}`));
    });
    // The host may close it before it has read all.
    child.stdin.on("error", () => {});
    child.stdin.end(input);
  });
}

function explain(code: number | null, err: string): string {
  const said = err.trim().split("\n").slice(-3).join("; ");
  if (/sudo: a password is required|sudo: .*not allowed|not in the sudoers/.test(err))
    return `no root: log in as root, or let sudo work without a password (${said})`;
  if (/sudo: (command )?not found/.test(err)) return "no root: log in as root, or install sudo";
  if (code === 255) return `ssh failed: ${said || "the connection ended"}; try it by hand: "ssh HOST true"`;
  return `a step failed (exit code ${code}): ${said}`;
}

/** A word of a shell script. */
export const word = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;
