/**
 * The walks of docs/recovery.md, with the commands of that page, against real members: each host is a directory with a
 * configuration file, and `systemctl` starts and stops the member of the host on which a block runs.
 */
import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn } from "node:child_process";
import {
  chmodSync,
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { connect, type RawClient } from "../../src/client/raw.ts";
import { KVService, MaintenanceService } from "../../src/proto/etcdserverpb.ts";
import { ourEtcd, repositoryRoot } from "../harness/programs.ts";
import { freePorts, httpText } from "../harness/server.ts";
import { patience, waitFor } from "../harness/wait.ts";

/** The page's blocks of commands by their names. */
const blocks = new Map(
  [
    ...readFileSync(join(repositoryRoot, "docs/recovery.md"), "utf8").matchAll(
      /<!-- run: (\S+) -->\n```sh\n(.*?)```/gs,
    ),
  ].map(([, name, commands]) => [name!, commands!] as const),
);
const executed = new Set<string>();

let dir: string;
const children = new Set<ChildProcess>();
const clients = new Set<RawClient>();

before(() => {
  dir = mkdtempSync(join(tmpdir(), "kvorum-recovery-"));
  mkdirSync(join(dir, "bin"));
  // Tells the test, which is the init system, and waits for it.
  const systemctl = `#!/bin/sh\necho "$1" > "$HOST/asked.new" && mv "$HOST/asked.new" "$HOST/asked"\nwhile [ -e "$HOST/asked" ]; do sleep 0.02; done\n`;
  writeFileSync(join(dir, "bin/systemctl"), systemctl);
  chmodSync(join(dir, "bin/systemctl"), 0o755);
});

after(async () => {
  for (const client of clients) client.close();
  for (const child of children) child.kill("SIGKILL");
  await waitFor("all members have ended", () => children.size === 0);
  rmSync(dir, { recursive: true, force: true });
});

interface Ran {
  readonly code: number;
  readonly out: string;
}

class Host {
  readonly name: string;
  readonly path: string;
  readonly clientPort: number;
  readonly peerUrl: string;
  readonly client: RawClient;
  #child: ChildProcess | undefined;

  constructor(cluster: string, name: string, clientPort: number, peerPort: number) {
    this.name = name;
    this.path = join(dir, cluster, name);
    this.clientPort = clientPort;
    this.peerUrl = `http://127.0.0.1:${peerPort}`;
    mkdirSync(this.path, { recursive: true });
    this.client = connect(this.endpoint);
    clients.add(this.client);
  }

  get dataDir(): string {
    return join(this.path, "data");
  }

  get endpoint(): string {
    return `127.0.0.1:${this.clientPort}`;
  }

  configure(initialCluster: string): void {
    const client = `http://${this.endpoint}`;
    const settings = [
      `name: ${this.name}`,
      `data-dir: ${this.dataDir}`,
      `listen-client-urls: ${client}`,
      `advertise-client-urls: ${client}`,
      `listen-peer-urls: ${this.peerUrl}`,
      `initial-advertise-peer-urls: ${this.peerUrl}`,
      `initial-cluster: ${initialCluster}`,
      "initial-cluster-state: new",
    ];
    writeFileSync(join(this.path, "etcd.yml"), `${settings.join("\n")}\n`);
  }

  start(): void {
    const { file, args } = ourEtcd();
    const log = openSync(join(this.path, "log"), "a");
    const config = join(this.path, "etcd.yml");
    const child = spawn(file, [...args, "--config-file", config], { stdio: ["ignore", log, log] });
    closeSync(log);
    children.add(child);
    this.#child = child;
    child.once("exit", () => {
      children.delete(child);
      if (this.#child === child) this.#child = undefined;
    });
  }

  async stop(signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    this.#child?.kill(signal);
    await waitFor(`${this.name} has ended`, () => this.#child === undefined);
  }

  /** It serves and has a leader. */
  async healthy(): Promise<void> {
    await waitFor(
      `${this.name} is healthy; its log ends in\n${this.logTail()}`,
      async () => {
        if (this.#child === undefined) throw new Error(`${this.name} ended:\n${this.logTail()}`);
        return (await httpText(`http://${this.endpoint}/health`).catch(() => undefined))?.status === 200;
      },
      30_000,
    );
    await this.client.ready(20_000);
  }

  logTail(): string {
    const path = join(this.path, "log");
    return existsSync(path) ? readFileSync(path, "utf8").trimEnd().split("\n").slice(-8).join("\n") : "";
  }

  /** Runs a block of the page here. */
  async run(name: string, env: Readonly<Record<string, string>> = {}): Promise<Ran> {
    const commands = blocks.get(name);
    assert.ok(commands, `docs/recovery.md has a block ${name}`);
    executed.add(name);
    let over = false;
    const ran = new Promise<Ran>((resolve) => {
      const variables = { ...process.env, ...this.#names(), ...env };
      const options = { env: variables, cwd: this.path, timeout: patience(60_000), killSignal: "SIGKILL" as const };
      execFile("sh", ["-c", commands], options, (error, stdout, stderr) => {
        over = true;
        resolve({ code: error === null ? 0 : Number(error.code ?? -1), out: `${stdout}${stderr}` });
      });
    });
    await waitFor("the commands end", () => this.#obey().then(() => over), 60_000);
    return ran;
  }

  /** Does what `systemctl` asked for. */
  async #obey(): Promise<void> {
    const asked = join(this.path, "asked");
    if (!existsSync(asked)) return;
    if (readFileSync(asked, "utf8").trim() === "start") this.start();
    else await this.stop();
    rmSync(asked);
  }

  #names(): Record<string, string> {
    return {
      PATH: [join(dir, "bin"), join(repositoryRoot, "bin"), process.env["PATH"]].join(delimiter),
      HOST: this.path,
      NAME: this.name,
      PEER_URL: this.peerUrl,
      DATA_DIR: this.dataDir,
      CONFIG: join(this.path, "etcd.yml"),
      ENDPOINTS: this.endpoint,
      ENDPOINT: this.endpoint,
      SNAPSHOT: join(dir, "backup.db"),
      INITIAL_CLUSTER: `${this.name}=${this.peerUrl}`,
    };
  }
}

async function hostsOf(cluster: string, count: number): Promise<Host[]> {
  const ports = await freePorts(2 * count);
  const hosts = Array.from(
    { length: count },
    (_, i) => new Host(cluster, `m${i + 1}`, ports[2 * i]!, ports[2 * i + 1]!),
  );
  for (const host of hosts) host.configure(initialClusterOf(hosts));
  return hosts;
}

const initialClusterOf = (hosts: readonly Host[]) => hosts.map(({ name, peerUrl }) => `${name}=${peerUrl}`).join(",");
const endpointsOf = (hosts: readonly Host[]) => hosts.map(({ endpoint }) => endpoint).join(",");

async function put({ client }: Host, key: string): Promise<void> {
  await client.unary(KVService.Put, { key: Buffer.from(key), value: Buffer.alloc(300, 120) }, { timeoutMs: 20_000 });
}

/** The keys that exist. */
async function keysOf({ client }: Host, serializable = false): Promise<string[]> {
  const all = { key: Buffer.from([0]), rangeEnd: Buffer.from([0]), keysOnly: true, serializable };
  const { kvs } = await client.unary(KVService.Range, all, { timeoutMs: 20_000 });
  return kvs.map(({ key }) => Buffer.from(key).toString());
}

/** Adds `host` through `via`, and starts it without data. */
async function rejoin(host: Host, via: Host): Promise<void> {
  const env = { NAME: host.name, PEER_URL: host.peerUrl };
  const added = await repeated(() => via.run("add", env));
  const [, initial] = /ETCD_INITIAL_CLUSTER="([^"]+)"/.exec(added.out) ?? [];
  assert.ok(initial, added.out);
  const joined = await host.run("join", { INITIAL_CLUSTER: initial });
  assert.equal(joined.code, 0, joined.out);
  assert.match(joined.out, /member m\d \([0-9a-f]+\) joins cluster/);
  await host.healthy();
}

/** The page says to repeat the command while the members have not been connected for five seconds. */
async function repeated(run: () => Promise<Ran>): Promise<Ran> {
  return waitFor(
    "the change of members is accepted",
    async () => {
      const ran = await run();
      if (/unhealthy cluster|not enough started members/.test(ran.out)) return undefined;
      assert.equal(ran.code, 0, ran.out);
      return ran;
    },
    30_000,
  );
}

/** Overwrites some bytes, as a failing disk does. */
function damage(path: string, at: number): void {
  const fd = openSync(path, "r+");
  try {
    writeSync(fd, Buffer.alloc(16, 0xff), 0, 16, at);
  } finally {
    closeSync(fd);
  }
}

const segmentOf = (host: Host): string => {
  const wal = join(host.dataDir, "member/wal");
  return join(
    wal,
    readdirSync(wal)
      .filter((name) => name.endsWith(".wal"))
      .sort()[0]!,
  );
};

describe("docs/recovery.md", () => {
  let hosts: Host[];

  test("names the values that its commands use", () => {
    const names = [...blocks.get("names")!.matchAll(/^export (\w+)=/gm)].map(([, name]) => name!);
    executed.add("names");
    const used = new Set<string>();
    for (const [name, text] of blocks) {
      if (name === "names") continue;
      for (const [, variable] of text.matchAll(/\$([A-Z_]+)/g)) if (variable !== "ID") used.add(variable!);
    }
    assert.deepEqual([...used].sort(), [...names].sort());
  });

  test("a quorum survives: a damaged member is replaced, and nothing is lost", async () => {
    hosts = await hostsOf("three", 3);
    const [m1, m2, m3] = hosts as [Host, Host, Host];
    for (const host of hosts) host.start();
    await Promise.all(hosts.map((host) => host.healthy()));
    await put(m1, "before");
    const saved = await m1.run("save");
    assert.equal(saved.code, 0, saved.out);
    await put(m1, "after-the-snapshot");
    await m3.stop("SIGKILL");
    damage(segmentOf(m3), 200);

    const all = { ENDPOINTS: endpointsOf(hosts) };
    const look = await m1.run("look", all);
    assert.equal(look.code, 2, look.out);
    assert.match(look.out, /PROBLEM {2}members: member m3 \([0-9a-f]+\) does not answer: .*connection refused/);
    assert.match(look.out, /2 of 3 voting members answer, and a quorum is 2 .*: no further member may fail/);
    const examined = await m3.run("examine");
    assert.equal(examined.code, 2, examined.out);
    assert.match(examined.out, /PROBLEM {2}log: .*\.wal, byte \d+/s);

    const removed = await repeated(() => m1.run("remove", { NAME: "m3" }));
    assert.match(removed.out, /removed from cluster/);
    await rejoin(m3, m1);
    const confirmed = await m2.run("confirm", all);
    assert.ok(confirmed.code <= 1, confirmed.out);
    assert.match(confirmed.out, /ok {7}hashes: all 3 have the same history/);
    assert.deepEqual(await keysOf(m3), ["after-the-snapshot", "before"]);
  });

  test("one survivor: a new cluster of it has all that its log held", async () => {
    const [m1, m2, m3] = hosts as [Host, Host, Host];
    await put(m1, "last");
    await waitFor("the survivor has it", async () => (await keysOf(m3, true)).includes("last"));
    await Promise.all(hosts.map((host) => host.stop("SIGKILL")));
    for (const host of [m1, m2]) rmSync(host.dataDir, { recursive: true });
    const kept = await m3.run("keep");
    assert.ok(kept.code <= 1, kept.out);
    assert.match(kept.out, /ok {7}log: member [0-9a-f]+ of cluster [0-9a-f]+: .* to \d+, committed up to \d+/);
    const forced = await m3.run("force");
    assert.equal(forced.code, 0, forced.out);
    await m3.healthy();
    assert.deepEqual(await keysOf(m3), ["after-the-snapshot", "before", "last"]);
    const unforced = await m3.run("unforce");
    assert.doesNotMatch(readFileSync(join(m3.path, "etcd.yml"), "utf8"), /force-new-cluster/, unforced.out);
    await m3.healthy();
    await rejoin(m1, m3);
    assert.deepEqual(await keysOf(m1), ["after-the-snapshot", "before", "last"]);
  });

  test("an empty directory of a member that the cluster knows ends the start with what to do", async () => {
    const [m1, , m3] = hosts as [Host, Host, Host];
    await m1.stop();
    rmSync(m1.dataDir, { recursive: true });
    m1.start();
    await waitFor("it ends", () => /has run in this cluster before/.test(m1.logTail()), 30_000);
    assert.match(m1.logTail(), /etcdctl member remove [0-9a-f]+, .*etcdctl member add/);
    assert.doesNotMatch(m1.logTail(), /tocommit|at .*\.js:\d+/);
    await m1.stop();
    // Two members, of which one is gone: no quorum.
    const look = await m3.run("look", { ENDPOINTS: m3.endpoint });
    assert.equal(look.code, 2);
    assert.match(look.out, /PROBLEM {2}quorum: lost: 1 of 2 voting members answer, and a quorum is 2/);
  });

  test("from a snapshot: every member is restored, and what came after it is lost", async () => {
    await Promise.all(hosts.map((host) => host.stop("SIGKILL")));
    for (const host of hosts) {
      const restored = await host.run("restore", { INITIAL_CLUSTER: initialClusterOf(hosts) });
      assert.equal(restored.code, 0, restored.out);
    }
    await Promise.all(hosts.map((host) => host.healthy()));
    assert.deepEqual(await keysOf(hosts[1]!), ["before"]);
    const { header } = await hosts[0]!.client.unary(MaintenanceService.Status, {}, { timeoutMs: 20_000 });
    assert.ok(header!.revision > 1_000_000_000, `${header!.revision}`);
    await Promise.all(hosts.map((host) => host.stop("SIGKILL")));
  });

  test("the damaged directory alone: a damaged log leaves the database, and what it lacks is named", async () => {
    const [alone] = (await hostsOf("alone", 1)) as [Host];
    alone.start();
    await alone.healthy();
    await put(alone, "kept");
    await alone.stop();
    alone.start();
    await alone.healthy();
    await alone.stop("SIGKILL");
    damage(segmentOf(alone), 200);
    const diagnosed = await alone.run("diagnose");
    assert.equal(diagnosed.code, 2, diagnosed.out);
    assert.match(diagnosed.out, /PROBLEM {2}log: .*byte \d+/);
    assert.match(diagnosed.out, /ok {7}database: .*every page in order; revision 2, holds the log up to entry \d+/);
    const salvaged = await alone.run("salvage-database");
    assert.equal(salvaged.code, 0, salvaged.out);
    await alone.healthy();
    assert.deepEqual(await keysOf(alone), ["kept"]);
    await alone.stop();
  });

  test("the damaged directory alone: a whole log makes a damaged database again", async () => {
    const [young] = (await hostsOf("young", 1)) as [Host];
    young.start();
    await young.healthy();
    for (const key of ["one", "two"]) await put(young, key);
    await young.stop();
    const db = join(young.dataDir, "member/snap/db");
    for (let page = 2; page < 12; page++) damage(db, page * 4096);
    const diagnosed = await young.run("diagnose");
    assert.equal(diagnosed.code, 2, diagnosed.out);
    assert.match(diagnosed.out, /PROBLEM {2}database: /);
    assert.match(diagnosed.out, /ok {7}log: .* whole from entry 1 to \d+/);
    const salvaged = await young.run("salvage-log");
    assert.equal(salvaged.code, 0, salvaged.out);
    await young.healthy();
    assert.deepEqual(await keysOf(young), ["one", "two"]);
    await young.stop("SIGKILL");
    const repaired = await young.run("repair");
    assert.ok(repaired.code <= 1, repaired.out);
  });

  test("every block of commands was run", () => {
    assert.deepEqual([...executed].sort(), [...blocks.keys()].sort());
  });
});
