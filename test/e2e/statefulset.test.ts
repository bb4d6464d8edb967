/**
 * A StatefulSet of etcd, run with processes instead of pods: three members, scaled to five and back.
 *
 * statefulset/pod.sh is its script for Kubernetes. If the published pages are beside the repository (KVORUM_SEEDS, or
 * ../shared/seeds), the commands of the page about StatefulSets are run too, with addresses and the volume's path
 * replaced, and one more change: they cut the id of a member off at the first colon, as etcdctl printed it for API 2;
 * stock etcdctl prints a comma there since 3.4, so the unchanged commands fail with it. `hostname`, `ping` and `sleep`
 * are stand-ins for the pod's name, its network and a minute's wait.
 *
 * KVORUM_SERVER runs another etcd, with the etcdctl beside it.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { parse } from "yaml";
import { connect, type RawClient } from "../../src/client/raw.ts";
import { ClusterService, MaintenanceService } from "../../src/proto/etcdserverpb.ts";
import { repositoryRoot, run } from "../harness/programs.ts";
import { freePorts, httpText } from "../harness/server.ts";
import { get, put, putAnyway, putMany } from "../harness/traffic.ts";
import { waitFor } from "../harness/wait.ts";

const SET_NAME = "infra-etcd-cluster";
const INITIAL_SIZE = 3;
const SCALED_SIZE = 5;

/** Returns the port of a pod by its name. */
const PORTS = `port() { set -- "$1" \${1##*-} $2; shift; i=$1; shift; shift $i; echo $1; }
`;

test("a StatefulSet starts three members, scales to five, and back to three", () => scaleUpAndDown(ownCommands()));

const published = publishedCommands();
if (published !== undefined) {
  test("a published StatefulSet does the same", () => scaleUpAndDown(published));
}

/** Shell texts: the container's command, and the hook before its end. */
interface Commands {
  readonly start: string;
  readonly preStop: string;
}

async function scaleUpAndDown(commands: Commands): Promise<void> {
  const set = await StatefulSet.create(SCALED_SIZE, commands);
  try {
    const initial = set.pods.slice(0, INITIAL_SIZE);
    const added = set.pods.slice(INITIAL_SIZE);
    await Promise.all(initial.map((pod) => pod.start()));
    const first = initial[0]!;
    await putMany(first.client, "key/", 200);
    await set.hasMembers(initial);

    for (const pod of added) await pod.start();
    await set.hasMembers(set.pods);
    assert.equal(await get(added[1]!.client, "key/199"), "v".repeat(16));

    // A pod of the first three keeps its data when it restarts; a later one is removed, and added as a new member.
    await put(first.client, "while", "all run");
    for (const pod of [initial[1]!, added[0]!]) {
      await pod.kill("SIGKILL");
      await putAnyway(first.client, pod.name, "was away");
      await pod.start();
      assert.equal(await get(pod.client, pod.name), "was away");
    }
    assert.match(added[0]!.log(), /Member +[0-9a-f]+ removed from cluster/);
    await set.hasMembers(set.pods);

    for (const pod of [...added].reverse()) {
      await pod.stop();
      assert.deepEqual(readdirSync(pod.volume), [], "the volume was emptied for the next scale-up");
    }
    await set.hasMembers(initial);

    await added[0]!.start();
    await set.hasMembers(set.pods.slice(0, INITIAL_SIZE + 1));
    assert.equal(await get(added[0]!.client, "while"), "all run");
  } catch (error) {
    const logs = set.pods.map((pod) => `--- ${pod.name}\n${pod.log().slice(-2500)}`);
    throw new Error(`${(error as Error).stack}\n${logs.join("\n")}`);
  } finally {
    await set.close();
  }
}

class StatefulSet {
  readonly pods: readonly Pod[];
  readonly #directory: string;

  private constructor(directory: string, pods: readonly Pod[]) {
    this.#directory = directory;
    this.pods = pods;
  }

  static async create(size: number, commands: Commands): Promise<StatefulSet> {
    const directory = mkdtempSync(join(tmpdir(), "kvorum-statefulset-"));
    const bin = programs(directory);
    const ports = await freePorts(2 * size);
    const clientPorts = ports.slice(0, size);
    const peerPorts = ports.slice(size);
    const urls = (list: readonly number[]) => list.map((port) => `http://127.0.0.1:${port}`).join(" ");
    const env = {
      ...process.env,
      PATH: `${bin}:${process.env["PATH"]}`,
      INITIAL_SIZE: String(INITIAL_SIZE),
      CLIENT_URLS: urls(clientPorts),
      PEER_URLS: urls(peerPorts),
      // The programs that the published commands need.
      CLIENT_PORTS: clientPorts.join(" "),
      PEER_PORTS: peerPorts.join(" "),
      INITIAL_CLUSTER_SIZE: String(INITIAL_SIZE),
      CLUSTER_NAMESPACE: "default",
      ETCDAPI_VERSION: "3",
      ROOT_PASSWORD: "@123#",
      SET_NAME,
      GOMAXPROCS: "4",
    };
    const pod = (port: number, i: number) =>
      new Pod(`${SET_NAME}-${i}`, join(directory, `pod${i}`), port, commands, env);
    return new StatefulSet(directory, clientPorts.map(pod));
  }

  /** Waits until exactly `pods` are members, each has applied the same entries, and hashes are equal. */
  async hasMembers(pods: readonly Pod[]): Promise<void> {
    const expected = pods.map(({ name }) => name).sort();
    for (const { name, client } of pods) {
      const { members } = await client.unary(ClusterService.MemberList, { linearizable: true }, { timeoutMs: 10_000 });
      assert.deepEqual(members.map((member) => member.name).sort(), expected, `the members that ${name} lists`);
    }
    await waitFor("equal HashKV", async () => {
      const hashes = await Promise.all(pods.map(({ client }) => client.unary(MaintenanceService.HashKV, {})));
      return hashes.every(
        ({ hash, header }) => hash === hashes[0]!.hash && header!.revision === hashes[0]!.header!.revision,
      );
    });
  }

  async close(): Promise<void> {
    await Promise.all(this.pods.map((pod) => pod.close()));
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

class Pod {
  readonly name: string;
  readonly volume: string;
  readonly client: RawClient;
  readonly #commands: Commands;
  readonly #url: string;
  readonly #logFile: string;
  readonly #env: Readonly<Record<string, string | undefined>>;
  #container: ChildProcess | undefined;
  #ended: Promise<unknown> = Promise.resolve();

  constructor(
    name: string,
    directory: string,
    port: number,
    commands: Commands,
    env: Readonly<Record<string, string | undefined>>,
  ) {
    this.name = name;
    this.#commands = commands;
    this.volume = join(directory, "volume");
    mkdirSync(this.volume, { recursive: true });
    this.#logFile = join(directory, "log");
    this.#url = `http://127.0.0.1:${port}`;
    this.#env = { ...env, POD_NAME: name, VOLUME: this.volume };
    this.client = connect(`127.0.0.1:${port}`);
  }

  log(): string {
    return readFileSync(this.#logFile, "utf8");
  }

  async start(): Promise<void> {
    const output = openSync(this.#logFile, "a");
    const container = spawn("bash", ["-ec", this.#commands.start], {
      env: this.#env,
      stdio: ["ignore", output, output],
    });
    closeSync(output);
    this.#container = container;
    this.#ended = new Promise((resolve) => container.once("exit", resolve));
    process.once("exit", () => container.kill("SIGKILL"));
    await waitFor(`${this.name} is healthy`, () => this.#isHealthy(), 40_000);
    await this.client.ready(5_000);
  }

  /** As Kubernetes ends a pod: runs the hook to completion, then sends SIGTERM. */
  async stop(): Promise<void> {
    const env = Object.fromEntries(Object.entries(this.#env).flatMap(([k, v]) => (v === undefined ? [] : [[k, v]])));
    // etcd lets no member go until enough of the others have been connected for five seconds, and a published hook may
    // ask only once.
    await waitFor(
      `${this.name} may leave`,
      async () => {
        const { code, stdout, stderr } = await run("bash", ["-ec", this.#commands.preStop], { env, timeoutMs: 30_000 });
        if (stderr.includes("unhealthy cluster") && code !== 0) return false;
        assert.equal(code, 0, `the hook of ${this.name}: ${stdout}${stderr}`);
        return true;
      },
      30_000,
    );
    await this.kill("SIGTERM");
  }

  async kill(signal: NodeJS.Signals): Promise<void> {
    this.#container?.kill(signal);
    await this.#ended;
  }

  async close(): Promise<void> {
    this.client.close();
    await this.kill("SIGKILL");
  }

  async #isHealthy(): Promise<boolean> {
    if (this.#container?.exitCode !== null) throw new Error(`${this.name} ended`);
    const { status } = await httpText(`${this.#url}/health`).catch(() => ({ status: 0 }));
    return status === 200;
  }
}

/** Creates the directory on the pods' PATH. */
function programs(directory: string): string {
  const bin = join(directory, "bin");
  mkdirSync(bin);
  const server = process.env["KVORUM_SERVER"];
  const from = server ? dirname(server) : join(repositoryRoot, "bin");
  for (const program of ["etcd", "etcdctl"]) symlinkSync(join(from, program), join(bin, program));
  const standIn = (name: string, text: string) =>
    writeFileSync(join(bin, name), `#!/bin/sh\n${text}\n`, { mode: 0o755 });
  standIn("hostname", 'echo "$POD_NAME"');
  standIn("ping", "exit 0");
  // Long enough for etcd's rule that members must be connected for five seconds before a change.
  standIn("sleep", '[ "$1" = 60 ] && exec /bin/sleep 6; exec /bin/sleep 0.1');
  return bin;
}

function ownCommands(): Commands {
  const script = join(repositoryRoot, "test", "e2e", "statefulset", "pod.sh");
  return { start: `exec sh ${script} start`, preStop: `exec sh ${script} pre-stop` };
}

/** From the page that has a StatefulSet with a hook; undefined when the pages are not available. */
function publishedCommands(): Commands | undefined {
  const directory = process.env["KVORUM_SEEDS"] ?? join(repositoryRoot, "..", "shared", "seeds");
  if (!existsSync(directory)) return undefined;
  const pages = readdirSync(directory).map((name) => readFileSync(join(directory, name), "utf8"));
  const resources = pages.flatMap((page) => [...page.matchAll(/``` ?yaml\n([\s\S]*?)```/g)].map((match) => match[1]!));
  const text = resources.find((resource) => resource.includes("kind: StatefulSet") && resource.includes("preStop:"));
  if (text === undefined) return undefined;
  const [container] = parse(text).spec.template.spec.containers;
  return {
    start: adapted(container.command.at(-1)),
    preStop: adapted(container.lifecycle.preStop.exec.command.at(-1)),
  };
}

/** Published commands with addresses and paths replaced. */
function adapted(commands: string): string {
  const host = /http:\/\/(\$\{\w+\}(?:-\$\{i\})?)\.\$\{SET_NAME\}\.\$\{CLUSTER_NAMESPACE\}:(2379|2380)/g;
  const ports = (port: string) => `$${port === "2379" ? "CLIENT" : "PEER"}_PORTS`;
  const text = commands
    .replace(host, (_, pod, port) => `http://127.0.0.1:$(port ${pod} "${ports(port)}")`)
    .replace(/http:\/\/0\.0\.0\.0:(2379|2380)/g, (_, port) => `http://127.0.0.1:$(port \${HOSTNAME} "${ports(port)}")`)
    .replaceAll("/var/run/etcd", "$VOLUME")
    .replaceAll("cut -d':' -f1 | cut -d'[' -f1", "cut -d',' -f1");
  assert.doesNotMatch(text, /:(2379|2380)\b|0\.0\.0\.0|\/var\/run/);
  return PORTS + text;
}
