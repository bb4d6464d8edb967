/**
 * The pods of a StatefulSet as processes: each has an address of its own on the loopback network, a directory for its volume, and
 * reads from a file how many pods there are to be. A pod is killed as a container is: all of its processes at once.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "../../src/client/client.ts";
import { repositoryRoot } from "../harness/repository.ts";
import { freePorts, httpText } from "../harness/server.ts";
import { waitFor } from "../harness/wait.ts";

export const SET = "db";
const PATIENCE_MS = 30_000;

export interface PodsOptions {
  readonly replicas: number;
  /** A directory with `ca.crt`, `pod.crt` and `pod.key`: pods and clients use them for everything. */
  readonly tlsDir?: string;
}

const open = new Set<Pods>();
process.once("exit", () => {
  for (const pods of open) pods.killAll();
});

/** Ends all pods at the end, and adds what they said to an error. */
export async function withPods(options: PodsOptions, what: (pods: Pods) => Promise<void>): Promise<void> {
  const pods = await Pods.create(options);
  try {
    await what(pods);
  } catch (error) {
    throw new Error(`${(error as Error).stack}\n${pods.logs()}`);
  } finally {
    await pods.close();
  }
}

export class Pods {
  readonly directory: string;
  readonly ports: readonly number[];
  readonly network: string;
  readonly tlsDir: string | undefined;
  readonly #pods = new Map<number, TestPod>();

  private constructor(directory: string, ports: readonly number[], { tlsDir, replicas }: PodsOptions) {
    this.directory = directory;
    this.ports = ports;
    this.network = `127.${randomInt(1, 255)}.${randomInt(1, 255)}.1`;
    this.tlsDir = tlsDir;
    this.want(replicas);
    open.add(this);
  }

  static async create(options: PodsOptions): Promise<Pods> {
    return new Pods(mkdtempSync(join(tmpdir(), "kvorum-pods-")), await freePorts(4), options);
  }

  get replicasFile(): string {
    return join(this.directory, "replicas");
  }

  /** What Kubernetes is told; starts and stops nothing. */
  want(replicas: number): void {
    writeFileSync(this.replicasFile, `${replicas}\n`);
  }

  pod(ordinal: number): TestPod {
    let pod = this.#pods.get(ordinal);
    if (pod === undefined) this.#pods.set(ordinal, (pod = new TestPod(this, ordinal)));
    return pod;
  }

  /** The pods with these ordinals. */
  some(...ordinals: readonly number[]): readonly TestPod[] {
    return ordinals.map((ordinal) => this.pod(ordinal));
  }

  first(count: number): readonly TestPod[] {
    return this.some(...Array.from({ length: count }, (_, i) => i));
  }

  start(pods: readonly TestPod[]): void {
    for (const pod of pods) pod.start();
  }

  /** As a StatefulSet with parallel pods does it. */
  async scale(from: number, to: number): Promise<void> {
    this.want(to);
    const [less, more] = [Math.min(from, to), Math.max(from, to)];
    const between = this.first(more).slice(less);
    if (to > from) this.start(between);
    else await Promise.all(between.map((pod) => pod.end()));
  }

  /** Waits until exactly these are members and ready, none a learner, all with the same data. */
  async settled(pods: readonly TestPod[]): Promise<void> {
    const names = pods.map(({ name }) => name).sort();
    for (const pod of pods) await pod.ready();
    await waitFor(
      `the members are ${names.join(", ")}`,
      async () => {
        const members = await pods[0]!.client.cluster.members().catch(() => []);
        return (
          members.every(({ isLearner }) => !isLearner) &&
          members
            .map(({ name }) => name)
            .sort()
            .join() === names.join()
        );
      },
      PATIENCE_MS,
    );
    await waitFor(
      "equal hashes",
      async () => {
        const hashes = await Promise.all(pods.map(({ client }) => client.maintenance.hash().catch(() => undefined)));
        const [first] = hashes;
        return (
          first !== undefined &&
          hashes.every((each) => each?.hash === first.hash && each.hashRevision === first.hashRevision)
        );
      },
      PATIENCE_MS,
    );
  }

  /** For the message of a test that failed. */
  logs(): string {
    return [...this.#pods.values()].map((pod) => `--- ${pod.name}\n${pod.said()}`).join("\n");
  }

  killAll(): void {
    for (const pod of this.#pods.values()) pod.signal("SIGKILL");
  }

  async close(): Promise<void> {
    open.delete(this);
    await Promise.all([...this.#pods.values()].map((pod) => pod.close()));
    rmSync(this.directory, { recursive: true, force: true });
  }
}

class TestPod {
  readonly name: string;
  readonly host: string;
  readonly endpoint: string;
  readonly volume: string;
  readonly #pods: Pods;
  #client: Client | undefined;
  readonly #log: string;
  #process: ChildProcess | undefined;
  #ended: Promise<unknown> = Promise.resolve();

  constructor(pods: Pods, ordinal: number) {
    this.#pods = pods;
    this.name = `${SET}-${ordinal}`;
    this.host = `${pods.network}${ordinal}`;
    this.volume = join(pods.directory, this.name);
    this.#log = join(pods.directory, `${this.name}.log`);
    this.endpoint = `${this.host}:${pods.ports[0]}`;
  }

  get client(): Client {
    const { tlsDir } = this.#pods;
    this.#client ??= new Client({
      endpoints: this.endpoint,
      ...(tlsDir === undefined
        ? {}
        : {
            tls: {
              caFile: join(tlsDir, "ca.crt"),
              certFile: join(tlsDir, "pod.crt"),
              keyFile: join(tlsDir, "pod.key"),
            },
          }),
    });
    return this.#client;
  }

  async close(): Promise<void> {
    await this.kill();
    this.#client?.close();
  }

  #tlsFlags(): readonly string[] {
    const { tlsDir } = this.#pods;
    if (tlsDir === undefined) return [];
    const files = (prefix: string) => [
      `--${prefix}cert-file=${tlsDir}/pod.crt`,
      `--${prefix}key-file=${tlsDir}/pod.key`,
      `--${prefix}trusted-ca-file=${tlsDir}/ca.crt`,
    ];
    return [...files(""), ...files("peer-"), "--client-cert-auth"];
  }

  start(...args: readonly string[]): void {
    const { ports, replicasFile } = this.#pods;
    mkdirSync(this.volume, { recursive: true });
    const names = ["client", "peer", "metrics", "status"];
    const all = [
      "pod",
      `--name=${this.name}`,
      `--host-template=${this.#pods.network}{ordinal}`,
      `--listen=${this.host}`,
      `--data-dir=${join(this.volume, "data")}`,
      `--replicas-file=${replicasFile}`,
      ...names.map((name, i) => `--${name}-port=${ports[i]}`),
      ...this.#tlsFlags(),
      ...args,
    ];
    const output = openSync(this.#log, "a");
    const child = spawn(process.execPath, [join(repositoryRoot, "bin", "kvorum"), ...all], {
      stdio: ["ignore", output, output],
      // A process group, to be killed as one.
      detached: true,
    });
    closeSync(output);
    this.#process = child;
    this.#ended = new Promise((resolve) => child.once("exit", resolve));
  }

  /** As Kubernetes ends a pod. Resolves with the exit code. */
  async end(): Promise<unknown> {
    this.#process?.kill("SIGTERM");
    return await this.#ended;
  }

  async kill(): Promise<void> {
    this.signal("SIGKILL");
    await this.#ended;
  }

  /** The volume is replaced by an empty one. */
  loseVolume(): void {
    rmSync(this.volume, { recursive: true, force: true });
  }

  ready(): Promise<unknown> {
    return waitFor(`${this.name} is ready`, () => this.#isOk("/readyz"), PATIENCE_MS);
  }

  async #isOk(path: string): Promise<boolean> {
    if (this.#process?.exitCode !== null) throw new Error(`${this.name} has ended`);
    return (await this.#probe(path).catch(() => ({ status: 0 }))).status === 200;
  }

  /** Without a certificate of one's own, as the kubelet asks. */
  #probe(path: string): Promise<{ readonly status: number }> {
    const { tlsDir, ports } = this.#pods;
    const tls = tlsDir === undefined ? undefined : { ca: readFileSync(join(tlsDir, "ca.crt")) };
    return httpText(`${tls === undefined ? "http" : "https"}://${this.host}:${ports[3]}${path}`, tls);
  }

  readiness(): Promise<{ readonly status: number }> {
    return this.#probe("/readyz");
  }

  /** What the pod itself has said, without the engine's lines. */
  said(): string {
    const text = existsSync(this.#log) ? readFileSync(this.#log, "utf8") : "";
    return text
      .split("\n")
      .filter((line) => line.includes(" kvorum pod: ") || /^Error|"level":"(error|fatal)"/.test(line))
      .join("\n");
  }

  /** Waits until it has said this since it began. */
  says(what: RegExp): Promise<unknown> {
    return waitFor(`${this.name} says ${what}`, () => what.test(this.said()), PATIENCE_MS);
  }

  /** To all of its processes. */
  signal(signal: NodeJS.Signals): void {
    const { pid } = this.#process ?? {};
    if (pid === undefined) return;
    try {
      process.kill(-pid, signal);
    } catch {
      // All of its processes have ended.
    }
  }
}
