/**
 * Hosts on which `kvorum cluster` works. `ssh` is a script here, which enters the host whose address it is given; what it
 * runs there is as with ssh.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { kvorum, type Ran } from "../deploy/helpers.ts";
import { tempDir } from "../harness/in-process.ts";
import { repositoryRoot } from "../harness/programs.ts";
import { bootBareMachines, type Machine, type Machines } from "./machines.ts";
import type { SteadyResult } from "./steady-writes.ts";

export const SERVICE = "kvorum-etcd";

export class Deployment {
  readonly machines: Machines;
  readonly #root: ReturnType<typeof tempDir>;

  /** Use boot. */
  private constructor(machines: Machines, root: ReturnType<typeof tempDir>) {
    this.machines = machines;
    this.#root = root;
    mkdirSync(this.path("bin"));
    this.#writeSsh();
  }

  static async boot(count: number): Promise<Deployment> {
    return new Deployment(await bootBareMachines(count), tempDir());
  }

  path(...parts: string[]): string {
    return join(this.#root.path, ...parts);
  }

  /** After a host has booted again. */
  #writeSsh(): void {
    const cases = this.machines.all.map(({ address, pid }) => `${address}) pid=${pid ?? "none"} ;;`).join("\n");
    const ssh = `#!/bin/sh
while [ "$1" != -- ]; do shift; done
case "$2" in
${cases}
*) echo "ssh: Could not resolve hostname $2" >&2; exit 255 ;;
esac
[ -d "/proc/$pid" ] || { echo "ssh: connect to host $2 port 22: No route to host" >&2; exit 255; }
shift 2
exec nsenter -t "$pid" -m -p -n -u -- sh -c "$*"
`;
    writeFileSync(this.path("bin", "ssh"), ssh);
    chmodSync(this.path("bin", "ssh"), 0o755);
  }

  get #env(): Record<string, string> {
    return { PATH: `${this.path("bin")}:${process.env["PATH"]}` };
  }

  /** `kvorum cluster`, in this process. */
  cluster(...args: string[]): Promise<Ran> {
    return kvorum({ cwd: this.#root.path, env: this.#env }, "cluster", ...args);
  }

  /** The same as a program, killed some time after `isTime` says so of what it has printed. Resolves with whether it was. */
  async killed(
    isTime: (out: string) => boolean,
    delayMs: number,
    ...args: string[]
  ): Promise<{ killed: boolean; out: string }> {
    const child = spawn(process.execPath, [join(repositoryRoot, "bin", "kvorum"), "cluster", ...args], {
      cwd: this.#root.path,
      env: { ...process.env, ...this.#env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let out = "";
    let killed = false;
    const hear = (text: string) => {
      out += text;
      if (killed || !isTime(out)) return;
      killed = true;
      setTimeout(() => child.kill("SIGKILL"), delayMs);
    };
    child.stdout.setEncoding("utf8").on("data", hear);
    child.stderr.setEncoding("utf8").on("data", hear);
    await new Promise((resolve) => child.on("close", resolve));
    return { killed: child.signalCode === "SIGKILL", out };
  }

  inventory(more: string, machines: readonly Machine[] = this.machines.all.slice(0, 3)): void {
    const members = machines.map(({ name, address }) => `  - { name: ${name}, address: ${address} }\n`).join("");
    const rest = `program: /usr/local/bin/kvorum-test-etcd
user: kvorum-test
service: ${SERVICE}
directories: { data: /var/lib/kvorum-test, config: /etc/kvorum-test, releases: /opt/kvorum-test }
`;
    writeFileSync(
      this.path("cluster.yml"),
      `# Kept by every operation.\ncluster: hosts\nmembers:\n${members}${rest}${more}`,
    );
  }

  get inventoryText(): string {
    return readFileSync(this.path("cluster.yml"), "utf8");
  }

  inside(i: number, ...command: string[]): Promise<string> {
    return this.machines.all[i]!.inside(...command);
  }

  startOf(i: number): Promise<string> {
    return this.inside(i, "systemctl", "show", "-p", "ExecMainStartTimestampMonotonic", SERVICE);
  }

  /** Begins steady writes; the function that it resolves with ends them. */
  async writes(prefix = "steady/"): Promise<() => Promise<SteadyResult>> {
    const endpoints = this.machines.all.map(({ address }) => `https://${address}:2379`);
    const script = join(repositoryRoot, "test", "faults", "steady-writes.ts");
    const child: ChildProcess = spawn(
      process.execPath,
      ["--import", "tsx", script, this.path("pki"), prefix, ...endpoints],
      { cwd: repositoryRoot, stdio: ["pipe", "pipe", "inherit"] },
    );
    let out = "";
    child.stdout!.setEncoding("utf8").on("data", (text: string) => (out += text));
    const started = () => new Promise<void>((resolve) => child.stdout!.once("data", () => resolve()));
    await started();
    return async () => {
      child.stdin!.end();
      await new Promise((resolve) => child.on("close", resolve));
      return JSON.parse(out.split("\n").findLast((line) => line.startsWith("{"))!);
    };
  }

  async close(): Promise<void> {
    await this.machines.close();
    this.#root.remove();
  }
}
