/**
 * Hosts on one machine: network namespaces with one address each, connected by veth pairs to a bridge with the clients.
 * `close` removes everything, as does the end of this process.
 */
import { type ChildProcess, execFile, execFileSync, spawn } from "node:child_process";
import { randomBytes, randomInt } from "node:crypto";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { findProgram, type Program, repositoryRoot } from "../harness/programs.ts";
import { waitFor } from "../harness/wait.ts";

export interface Host {
  readonly namespace: string;
  readonly address: string;
  /** The bridge's end of its link. */
  readonly cable: string;
}

export interface Weather {
  readonly delayMs: number;
  /** Jitter, uniformly distributed in both directions. */
  readonly jitterMs: number;
  /** Per cent of the packets. */
  readonly loss: number;
}

/** Why hosts are not possible here; undefined when they are. */
export function hostsMissing(): string | undefined {
  if (process.getuid?.() !== 0) return "hosts in network namespaces need root";
  const missing = ["ip", "iptables", "python3"].filter((name) => findProgram(name) === undefined);
  return missing.length === 0 ? undefined : `hosts need ${missing.join(", ")} (iproute2, iptables, python3) on PATH`;
}

const PREFIX_LENGTH = 24;
const execute = promisify(execFile);

export class Hosts {
  readonly all: readonly Host[];
  readonly #bridge: string;
  readonly #onExit = (): void => this.#remove();
  #relay: ChildProcess | undefined;

  /** Use create. */
  constructor(bridge: string, all: readonly Host[]) {
    this.#bridge = bridge;
    this.all = all;
    process.on("exit", this.#onExit);
  }

  static async create(count: number): Promise<Hosts> {
    const id = randomBytes(3).toString("hex");
    const net = freeNetwork();
    const all = Array.from({ length: count }, (_, i) => ({
      namespace: `kvorum-${id}-${i}`,
      address: `${net}.${i + 1}`,
      cable: `kv${id}v${i}`,
    }));
    const hosts = new Hosts(`kv${id}`, all);
    try {
      await hosts.#make(`${net}.254`);
      return hosts;
    } catch (error) {
      await hosts.close();
      throw error;
    }
  }

  /** `program`, run on a host. Its process id is the program's own. */
  program({ namespace }: Host, program: Program): Program {
    return { file: "ip", args: ["netns", "exec", namespace, program.file, ...program.args] };
  }

  /** Packets from `from` no longer reach `to`. Clients' packets do. */
  async cutOneWay(from: Host, to: Host): Promise<void> {
    await inside(to, "iptables", "-w", "-A", "INPUT", "-s", from.address, "-j", "DROP");
  }

  /** Cuts every link between hosts of different groups. */
  async part(...groups: readonly (readonly Host[])[]): Promise<void> {
    for (const group of groups) {
      for (const other of groups) {
        if (group === other) continue;
        for (const from of group) for (const to of other) await this.cutOneWay(from, to);
      }
    }
  }

  /** Unplugs the host, or reconnects it: nothing reaches it, clients included. */
  async plug({ cable }: Host, plugged: boolean): Promise<void> {
    await ip("link", "set", cable, plugged ? "up" : "down");
  }

  /** Packets between hosts are delayed, and some are lost. */
  async weather({ delayMs, jitterMs, loss }: Weather): Promise<void> {
    const script = join(repositoryRoot, "test", "faults", "weather.py");
    const args = [
      `${delayMs}`,
      `${jitterMs}`,
      `${loss}`,
      ...this.all.map((host) => `${host.namespace}=${host.address}`),
    ];
    const relay = spawn("python3", [script, ...args], { stdio: ["pipe", "pipe", "inherit"] });
    this.#relay = relay;
    let ready = false;
    relay.stdout.once("data", () => (ready = true));
    await waitFor("the weather is there", () => {
      if (relay.exitCode !== null) throw new Error(`weather.py ended with ${relay.exitCode}`);
      return ready;
    });
    for (const host of this.all) {
      await inside(host, "ip", "link", "set", "weather", "up");
      for (const other of this.all) {
        if (other !== host)
          await inside(host, "ip", "route", "add", `${other.address}/32`, "dev", "weather", "src", host.address);
      }
    }
  }

  /** All hosts are connected, all links restored, no delay or loss. */
  async heal(): Promise<void> {
    const relay = this.#relay;
    this.#relay = undefined;
    if (relay !== undefined) {
      // Its interfaces are removed with it, and the routes over them.
      relay.kill("SIGKILL");
      await waitFor("the weather is over", () => relay.exitCode !== null || relay.signalCode !== null);
    }
    for (const host of this.all) {
      await inside(host, "iptables", "-w", "-F", "INPUT");
      await this.plug(host, true);
    }
  }

  async close(): Promise<void> {
    process.off("exit", this.#onExit);
    this.#remove();
  }

  async #make(gateway: string): Promise<void> {
    await ip("link", "add", this.#bridge, "type", "bridge");
    await ip("addr", "add", `${gateway}/${PREFIX_LENGTH}`, "dev", this.#bridge);
    await ip("link", "set", this.#bridge, "up");
    for (const host of this.all) {
      await ip("netns", "add", host.namespace);
      await ip("link", "add", host.cable, "type", "veth", "peer", "name", "eth0", "netns", host.namespace);
      await ip("link", "set", host.cable, "master", this.#bridge);
      await ip("link", "set", host.cable, "up");
      await inside(host, "ip", "addr", "add", `${host.address}/${PREFIX_LENGTH}`, "dev", "eth0");
      for (const device of ["lo", "eth0"]) await inside(host, "ip", "link", "set", device, "up");
    }
  }

  #remove(): void {
    this.#relay?.kill("SIGKILL");
    for (const { cable, namespace } of this.all) {
      quietly("ip", "link", "del", cable);
      quietly("ip", "netns", "del", namespace);
    }
    quietly("ip", "link", "del", this.#bridge);
  }
}

const ip = (...args: string[]) => execute("ip", args);

const inside = (host: Host, ...command: string[]) => ip("netns", "exec", host.namespace, ...command);

function quietly(file: string, ...args: string[]): void {
  try {
    execFileSync(file, args, { stdio: "ignore" });
  } catch {
    // It was not created, or was removed with its parent.
  }
}

/** The first three bytes of a private network that no interface here uses. */
function freeNetwork(): string {
  const taken = new Set(
    Object.values(networkInterfaces()).flatMap((list) =>
      (list ?? []).map(({ address }) => address.replace(/\.\d+$/, "")),
    ),
  );
  for (;;) {
    const net = `10.${randomInt(128, 250)}.${randomInt(1, 250)}`;
    if (!taken.has(net)) return net;
  }
}
