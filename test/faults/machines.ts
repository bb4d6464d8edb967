/**
 * Complete hosts on one machine: each has a network namespace and an address, a persistent disk, and systemd as its
 * first process, which runs the member as an installed service. A power loss ends all its processes at once.
 */
import { type ChildProcess, execFile, execFileSync, spawn } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { connect, type RawClient } from "../../src/client/raw.ts";
import { MaintenanceService, type StatusResponse } from "../../src/proto/etcdserverpb.ts";
import { findProgram, ourEtcd, repositoryRoot } from "../harness/programs.ts";
import { waitFor } from "../harness/wait.ts";
import { type Host, Hosts, hostsMissing } from "./hosts.ts";

const SYSTEMD = "/lib/systemd/systemd";
const CGROUPS = "/sys/fs/cgroup";
const TREES = ["systemd", "unified"];
const SERVICE = "kvorum.service";
const CLIENT_PORT = 2379;
const PEER_PORT = 2380;
const PATIENCE_MS = 60_000;
const execute = promisify(execFile);

/** Why such hosts are not possible here; undefined when they are. */
export function machinesMissing(): string | undefined {
  if (hostsMissing() !== undefined) return hostsMissing();
  const missing = ["unshare", "nsenter", "pivot_root"].filter((name) => findProgram(name) === undefined);
  if (!existsSync(SYSTEMD)) missing.push("systemd");
  if (missing.length > 0) return `hosts with systemd need ${missing.join(", ")} (systemd, util-linux)`;
  const tree = join(CGROUPS, "systemd");
  return existsSync(tree) ? undefined : `hosts with systemd need ${tree} (cgroup v1 or hybrid)`;
}

/** As many hosts as members, all booted and serving. Close them in any case. */
export async function bootMachines(count: number): Promise<Machines> {
  const hosts = await Hosts.create(count);
  const machines = new Machines(hosts);
  try {
    await Promise.all(machines.all.map((machine) => machine.boot()));
    await Promise.all(machines.all.map((machine) => machine.serving()));
    return machines;
  } catch (error) {
    const shown = await machines.describe();
    await machines.close();
    throw new Error(`${(error as Error).message}\n${shown}`);
  }
}

/** The same hosts without a service: what is installed there is up to the test. */
export async function bootBareMachines(count: number): Promise<Machines> {
  const machines = new Machines(await Hosts.create(count), "bare");
  try {
    await Promise.all(machines.all.map((machine) => machine.boot()));
    return machines;
  } catch (error) {
    await machines.close();
    throw error;
  }
}

export class Machines {
  readonly all: readonly Machine[];
  readonly #hosts: Hosts;
  readonly #home = mkdtempSync(join(tmpdir(), "kvorum-machines-"));
  readonly #onExit = (): void => this.#remove();

  constructor(hosts: Hosts, content: "service" | "bare" = "service") {
    this.#hosts = hosts;
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=2g", "kvorum", this.#home]);
    process.on("exit", this.#onExit);
    const initial = hosts.all.map(({ address }, i) => `m${i + 1}=http://${address}:${PEER_PORT}`).join(",");
    this.all = hosts.all.map(
      (host, i) =>
        new Machine(`m${i + 1}`, host, join(this.#home, `m${i + 1}`), content === "bare" ? undefined : initial),
    );
  }

  async leader(except?: Machine): Promise<Machine> {
    return waitFor(
      "a leader",
      async () => {
        const asked = this.all.filter((machine) => machine !== except);
        const statuses = await Promise.all(asked.map((machine) => machine.status().catch(() => undefined)));
        const leader = statuses[0]?.leader;
        if (!leader || statuses.some((status) => status?.leader !== leader)) return undefined;
        return asked.find((_, i) => statuses[i]!.header!.memberId === leader);
      },
      PATIENCE_MS,
    );
  }

  async describe(): Promise<string> {
    const logs = await Promise.all(this.all.map(async (machine) => `--- ${machine.name}\n${await machine.journal()}`));
    return logs.join("\n");
  }

  async close(): Promise<void> {
    for (const machine of this.all) machine.client.close();
    await Promise.all(this.all.map((machine) => machine.cutPower()));
    process.off("exit", this.#onExit);
    this.#remove();
    await this.#hosts.close();
  }

  #remove(): void {
    for (const machine of this.all) machine.remove();
    try {
      execFileSync("umount", ["-l", this.#home], { stdio: "ignore" });
    } catch {
      // It is not mounted any more.
    }
    rmSync(this.#home, { recursive: true, force: true });
  }
}

export class Machine {
  readonly name: string;
  readonly client: RawClient;
  readonly #host: Host;
  readonly #disk: string;
  #unshare: ChildProcess | undefined;
  #pid: number | undefined;

  /** Without `initialCluster` no service is installed. */
  constructor(name: string, host: Host, disk: string, initialCluster: string | undefined) {
    this.name = name;
    this.#host = host;
    this.#disk = disk;
    this.client = connect(`${host.address}:${CLIENT_PORT}`);
    for (const part of ["up", "work", "root"]) mkdirSync(join(disk, part), { recursive: true });
    this.#install(initialCluster);
  }

  get address(): string {
    return this.#host.address;
  }

  /** Of the host's first process, as this machine counts; undefined when it is off. */
  get pid(): number | undefined {
    return this.#pid;
  }

  status(): Promise<StatusResponse> {
    return this.client.unary(MaintenanceService.Status, {}, { timeoutMs: 2_000 });
  }

  /** Starts its systemd, which starts the enabled services. */
  async boot(): Promise<void> {
    const script = join(repositoryRoot, "test", "faults", "boot-host.sh");
    const args = ["netns", "exec", this.#host.namespace, "unshare", "--fork", "--pid", "--mount", "--uts", "--ipc"];
    args.push("--kill-child", "sh", script, this.#disk, this.#host.namespace, programRoot());
    const output = openSync(join(this.#disk, "boot.log"), "a");
    const unshare = spawn("ip", args, { stdio: ["ignore", output, output] });
    closeSync(output);
    this.#unshare = unshare;
    this.#pid = await waitFor("the host's first process", () => {
      if (unshare.exitCode !== null)
        throw new Error(`${this.name} did not boot: ${readFileSync(join(this.#disk, "boot.log"), "utf8")}`);
      return Number(readFileSync(`/proc/${unshare.pid}/task/${unshare.pid}/children`, "utf8").split(" ")[0]);
    });
  }

  /** Ends all of its processes at once. What they wrote stays on its disk. */
  async cutPower(): Promise<void> {
    const unshare = this.#unshare;
    if (unshare === undefined || this.#pid === undefined) return;
    process.kill(this.#pid, "SIGKILL");
    this.#unshare = undefined;
    this.#pid = undefined;
    await waitFor(`${this.name} is off`, () => unshare.exitCode !== null || unshare.signalCode !== null);
  }

  /** Waits until the service has notified its systemd that it is ready, and serves. */
  async serving(): Promise<void> {
    await waitFor(
      `the service of ${this.name} is active`,
      async () => (await this.systemctl("is-active", SERVICE).catch(() => "")).trim() === "active",
      PATIENCE_MS,
    );
    await waitFor(
      `${this.name} has a leader`,
      async () => ((await this.status().catch(() => undefined))?.leader ?? 0n) !== 0n,
      PATIENCE_MS,
    );
  }

  async systemctl(...args: string[]): Promise<string> {
    return this.inside("systemctl", ...args);
  }

  /** The service's last log lines. */
  async journal(): Promise<string> {
    return this.inside("tail", "-n", "20", "/var/lib/kvorum/log").catch((error) => (error as Error).message);
  }

  /** What it left outside its disk. */
  remove(): void {
    if (this.#pid !== undefined) process.kill(this.#pid, "SIGKILL");
    this.#pid = undefined;
    for (const tree of TREES) removeGroups(join(CGROUPS, tree, this.#host.namespace));
  }

  async inside(...command: string[]): Promise<string> {
    if (this.#pid === undefined) throw new Error(`${this.name} is off`);
    const { stdout } = await execute("nsenter", ["-t", `${this.#pid}`, "-m", "-p", "-n", "-u", ...command]);
    return stdout;
  }

  #install(initialCluster: string | undefined): void {
    const { address } = this.#host;
    const units = join(this.#disk, "up", "etc", "systemd", "system");
    mkdirSync(units, { recursive: true });
    const target = `[Unit]
Requires=basic.target
After=basic.target
Wants=${SERVICE}
AllowIsolate=yes
`;
    writeFileSync(join(units, "kvorum-host.target"), target);
    if (initialCluster === undefined) return;
    mkdirSync(join(this.#disk, "up", "var", "lib", "kvorum"), { recursive: true });
    const { file, args } = ourEtcd();
    const flags = [
      ...["--name", this.name, "--data-dir", "/var/lib/kvorum/data"],
      ...["--listen-client-urls", `http://${address}:${CLIENT_PORT}`],
      ...["--advertise-client-urls", `http://${address}:${CLIENT_PORT}`],
      ...["--listen-peer-urls", `http://${address}:${PEER_PORT}`],
      ...["--initial-advertise-peer-urls", `http://${address}:${PEER_PORT}`],
      ...["--initial-cluster", initialCluster],
    ];
    const service = `[Service]
Type=notify
ExecStart=${[file, ...args, ...flags].join(" ")}
Restart=always
RestartSec=200ms
StandardOutput=append:/var/lib/kvorum/log
StandardError=append:/var/lib/kvorum/log
`;
    writeFileSync(join(units, SERVICE), service);
  }
}

/** The directory with the program and everything it needs. */
function programRoot(): string {
  const { file, args } = ourEtcd();
  return dirname(dirname(args[0] ?? file));
}

/** Groups have no removable files, only directories, the inner ones first. */
function removeGroups(path: string): void {
  try {
    for (const entry of readdirSync(path, { withFileTypes: true })) {
      if (entry.isDirectory()) removeGroups(join(path, entry.name));
    }
    rmdirSync(path);
  } catch {
    // It does not exist, or one of its processes is still ending; an empty group costs nothing.
  }
}
