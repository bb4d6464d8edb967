/**
 * What a backup goes through in years, in minutes, with ours and stock etcd: `npm run faults:backup`, outside CI. The backup is
 * killed, cut off from the cluster and from its store, and its store is full; then it is restored to random revisions, and
 * compared with everything that a watch had seen.
 *
 * KVORUM_STOCK_ETCD names a stock etcd, KVORUM_VERSITYGW the S3 server `versitygw`, KVORUM_SEED the choices of a run.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer, type Server as NetServer, type Socket } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { keysAt, pairAt } from "../../src/backup/view.ts";
import { systemDisk } from "../../src/base/disk.ts";
import { BoltReader } from "../../src/bolt/reader.ts";
import { Client } from "../../src/client/client.ts";
import { op } from "../../src/client/operations.ts";
import { tempDir } from "../harness/in-process.ts";
import { findProgram, ourEtcd, type Program, repositoryRoot, stockEtcd } from "../harness/programs.ts";
import { freePorts, type Server, startServer } from "../harness/server.ts";
import { waitFor } from "../harness/wait.ts";

const SEED = Number(process.env["KVORUM_SEED"]) || Date.now() % 1_000_000;
const GATEWAY = findProgram(process.env["KVORUM_VERSITYGW"] ?? "versitygw");
const S3_ENV = { AWS_ACCESS_KEY_ID: "test", AWS_SECRET_ACCESS_KEY: "secretsecret" };
const KVORUM = join(repositoryRoot, "bin", "kvorum");

const servers: readonly (readonly [string, Program])[] = [
  ["ours", ourEtcd()],
  ["stock", stockEtcd()],
];

for (const [name, program] of servers) {
  const skip = findProgram(program.file) === undefined ? `${program.file} is missing` : false;
  test(`${name}: killed at random moments, a backup has every revision but those that it names as lost`, { skip }, () =>
    withCluster(program, async (cluster) => {
      const store = cluster.path("store");
      for (let round = 0; round < 12; round++) {
        const backup = cluster.backup(store);
        await cluster.work(300 + cluster.below(1500));
        backup.kill("SIGKILL");
        await ended(backup);
        if (round === 6) await cluster.client.maintenance.compact(cluster.revision);
      }
      await cluster.catchesUp(store);
      await cluster.compare(store, 12);
    }),
  );

  test(`${name}: cut off from the cluster again and again, it loses nothing`, { skip }, () =>
    withCluster(program, async (cluster) => {
      const store = cluster.path("store");
      const relay = await Relay.to(cluster.server.endpoint);
      try {
        const backup = cluster.backup(store, `http://${relay.endpoint}`);
        for (let round = 0; round < 15; round++) {
          await cluster.work(100 + cluster.below(600));
          relay.cut();
        }
        backup.kill("SIGTERM");
        await ended(backup);
        await cluster.catchesUp(store);
        assert.equal((await cluster.status(store)).holes, 0);
        await cluster.compare(store, 8);
      } finally {
        relay.close();
      }
    }),
  );

  const noRoot = process.getuid?.() === 0 ? skip : "mounting needs root";
  test(`${name}: a full store stops it, and it goes on without a gap when there is room`, { skip: noRoot }, () =>
    withCluster(program, async (cluster) => {
      const store = cluster.path("small");
      mkdirSync(store);
      assert.equal(spawnSync("mount", ["-t", "tmpfs", "-o", "size=2m", "tmpfs", store]).status, 0);
      try {
        const backup = cluster.backup(store);
        await cluster.work(500);
        await waitFor("something is stored", async () => (await cluster.status(store)).revision > 0);
        const filler = join(store, "filler");
        const errors: string[] = [];
        backup.stderr?.on("data", (data) => errors.push(String(data)));
        for (let part = 0; !errors.join("").includes("the store is full"); part++) {
          assert.ok(part < 200, "the store is never full");
          spawnSync("dd", ["if=/dev/zero", `of=${filler}${part}`, "bs=64k", "count=4", "status=none"]);
          await cluster.work(200);
        }
        for (let part = 0; existsSync(`${filler}${part}`); part++) rmSync(`${filler}${part}`);
        await cluster.work(500);
        backup.kill("SIGTERM");
        await ended(backup);
        await cluster.catchesUp(store);
        assert.equal((await cluster.status(store)).holes, 0);
        await cluster.compare(store, 6);
      } finally {
        spawnSync("umount", [store]);
      }
    }),
  );
}

const noGateway = GATEWAY === undefined ? "versitygw is missing" : false;
test("an S3 server that is killed again and again takes it all in the end", { skip: noGateway }, () =>
  withCluster(ourEtcd(), async (cluster) => {
    const [port] = (await freePorts(1)) as [number];
    mkdirSync(cluster.path("objects/bucket"), { recursive: true });
    const args = ["--port", `127.0.0.1:${port}`, "posix", cluster.path("objects")];
    const env = {
      ...process.env,
      ROOT_ACCESS_KEY: S3_ENV.AWS_ACCESS_KEY_ID,
      ROOT_SECRET_KEY: S3_ENV.AWS_SECRET_ACCESS_KEY,
    };
    const serve = () => spawn(GATEWAY!, args, { env, stdio: "ignore" });
    const store = `s3://bucket/etcd?endpoint=http://127.0.0.1:${port}`;
    let gateway = serve();
    const backup = cluster.backup(store);
    try {
      for (let round = 0; round < 10; round++) {
        await cluster.work(300 + cluster.below(800));
        gateway.kill("SIGKILL");
        await ended(gateway);
        await cluster.work(cluster.below(400));
        gateway = serve();
      }
      await cluster.work(500);
      backup.kill("SIGTERM");
      await ended(backup);
      await cluster.catchesUp(store);
      assert.equal((await cluster.status(store)).holes, 0);
      await cluster.compare(store, 6);
    } finally {
      gateway.kill("SIGKILL");
    }
  }),
);

interface Pair {
  readonly value: string;
  readonly createRevision: number;
  readonly version: number;
}

interface Seen {
  readonly revision: number;
  readonly key: string;
  readonly pair: Pair | undefined;
}

/** A server under load, and all that has happened to it. */
class ClusterUnderLoad {
  readonly server: Server;
  readonly client: Client;
  readonly path: (name: string) => string;
  readonly history: Seen[] = [];
  readonly #children: ChildProcess[] = [];
  #random = SEED;
  #writes = 0;

  constructor(server: Server, path: (name: string) => string) {
    this.server = server;
    this.client = new Client({ endpoints: server.url });
    this.path = path;
  }

  get revision(): number {
    return this.history.at(-1)?.revision ?? 1;
  }

  below(bound: number): number {
    this.#random = (Math.imul(this.#random, 1_103_515_245) + 12_345) & 0x7fffffff;
    return Math.floor((this.#random / 0x80000000) * bound);
  }

  async watch(): Promise<void> {
    const watcher = this.client.watch({ all: true }, { revision: 1 });
    for await (const event of watcher) {
      const { key, revision } = event;
      if (event.type === "delete") this.history.push({ revision, key, pair: undefined });
      else this.history.push({ revision, key, pair: event.kv });
    }
  }

  /** Writes for so many milliseconds; all of it has been seen when it resolves. */
  async work(milliseconds: number): Promise<void> {
    const endMs = performance.now() + milliseconds;
    let last = 0;
    while (performance.now() < endMs) {
      const key = `k/${this.below(60)}`;
      const value = `${++this.#writes} ${"x".repeat(this.below(400))}`;
      const choice = this.below(20);
      if (choice < 12) last = (await this.client.put(key, value)).revision;
      else if (choice < 15) last = (await this.client.delete(key)).revision;
      else if (choice === 15) last = (await this.client.delete({ prefix: `k/${this.below(6)}` })).revision;
      else if (choice === 16) {
        const lease = await this.client.leases.grant(60, { keepAlive: false });
        last = (await this.client.put(`leased/${this.below(5)}`, value, { lease })).revision;
        if (this.below(2) === 0) await this.client.leases.revoke(lease);
      } else {
        const success = [op.put("t/1", value), op.delete("t/2"), op.put(`t/${3 + this.below(5)}`, value)];
        last = (await this.client.txn({ success })).revision;
      }
    }
    await waitFor("the watch has seen it", () => this.revision >= last);
  }

  backup(store: string, endpoint = this.server.url): ChildProcess {
    const args = ["backup", "run", "--store", store, "--endpoints", endpoint, "--scratch-dir", this.path("")];
    const often = ["--delta-every", "150ms", "--full-every", "4s", "--hash-every", "1s"];
    const child = spawn(process.execPath, [KVORUM, ...args, ...often], { env: { ...process.env, ...S3_ENV } });
    child.stdout.resume();
    child.stderr.resume();
    this.#children.push(child);
    return child;
  }

  /** Runs a backup until everything is stored. */
  async catchesUp(store: string): Promise<void> {
    const backup = this.backup(store);
    await waitFor("everything is stored", async () => (await this.status(store)).revision >= this.revision, 60_000);
    backup.kill("SIGTERM");
    await ended(backup);
  }

  async status(store: string): Promise<{ revision: number; holes: number; problems: string[]; fullSnapshots: number }> {
    return JSON.parse(this.#kvorum("backup", "status", "--store", store, "-w", "json").stdout);
  }

  /** Verifies all of it, and restores it to random revisions. */
  async compare(store: string, times: number): Promise<void> {
    const verified = this.#kvorum("backup", "verify", "--all", "--store", store, "--scratch-dir", this.path(""));
    assert.equal(verified.status, 0, verified.stdout + verified.stderr);
    const { objects } = JSON.parse(this.#kvorum("backup", "list", "--store", store, "-w", "json").stdout);
    const lost = (revision: number) =>
      objects.some((object: { kind: string; from: number; to: number }) => {
        return object.kind === "hole" && revision > object.from && revision <= object.to;
      });
    const first = objects.find(({ kind }: { kind: string }) => kind === "full").to;
    let restored = 0;
    for (let i = 0; i < times; i++) {
      const revision = i === 0 ? this.revision : first + this.below(this.revision - first);
      const path = this.path(`restored-${i}.db`);
      const args = ["--store", store, "--revision", `${revision}`, "--output", path, "--yes"];
      const { status, stderr } = this.#kvorum("restore", ...args);
      if (lost(revision)) continue;
      assert.equal(status, 0, stderr);
      assert.deepEqual(stateOf(path, revision), this.#stateAt(revision), `revision ${revision}, seed ${SEED}`);
      restored++;
      rmSync(path);
    }
    assert.ok(restored > 0);
    console.log(
      `    ${objects.length} objects, ${this.revision} revisions, ${restored} restored and compared, seed ${SEED}`,
    );
  }

  async close(): Promise<void> {
    for (const child of this.#children) child.kill("SIGKILL");
    this.client.close();
    await this.server.close();
  }

  #stateAt(revision: number): Record<string, Pair & { modRevision: number }> {
    const state = new Map<string, Pair & { modRevision: number }>();
    for (const { revision: modRevision, key, pair } of this.history) {
      if (modRevision > revision) break;
      if (pair === undefined) state.delete(key);
      else {
        const { value, createRevision, version } = pair;
        state.set(key, { value, createRevision, modRevision, version });
      }
    }
    return Object.fromEntries([...state].sort(([a], [b]) => (a < b ? -1 : 1)));
  }

  #kvorum(...args: readonly string[]) {
    const env = { ...process.env, ...S3_ENV };
    return spawnSync(process.execPath, [KVORUM, ...args], { env, encoding: "utf8", maxBuffer: 1 << 28 });
  }
}

function stateOf(path: string, revision: number): Record<string, Pair & { modRevision: number }> {
  const reader = new BoltReader({ disk: systemDisk, path });
  try {
    return Object.fromEntries(
      [...keysAt(reader, revision, "")].map(([key, row]) => {
        const { value, createRevision, modRevision, version } = pairAt(reader, row);
        return [key, { value: Buffer.from(value).toString(), createRevision, modRevision, version }];
      }),
    );
  } finally {
    reader.close();
  }
}

async function withCluster(program: Program, work: (cluster: ClusterUnderLoad) => Promise<void>): Promise<void> {
  const dir = tempDir();
  writeFileSync(join(dir.path, "seed"), `${SEED}`);
  const cluster = new ClusterUnderLoad(await startServer(program), (name) => join(dir.path, name));
  const watching = cluster.watch().catch(() => {});
  try {
    await cluster.work(200);
    await work(cluster);
  } finally {
    await cluster.close();
    await watching;
    dir.remove();
  }
}

function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => child.once("exit", () => resolve()));
}

/** Forwards connections, and breaks all of them on request. */
class Relay {
  readonly #server: NetServer;
  readonly #sockets = new Set<Socket>();
  readonly endpoint: string;

  static async to(target: string): Promise<Relay> {
    const [port] = (await freePorts(1)) as [number];
    const relay = new Relay(target, port);
    await new Promise<void>((resolve) => relay.#server.listen(port, "127.0.0.1", resolve));
    return relay;
  }

  private constructor(target: string, port: number) {
    this.endpoint = `127.0.0.1:${port}`;
    const [host, targetPort] = target.split(":") as [string, string];
    this.#server = createServer((near) => {
      const far = connect(Number(targetPort), host);
      for (const [one, other] of [
        [near, far],
        [far, near],
      ] as const) {
        this.#sockets.add(one);
        one.on("error", () => other.destroy());
        one.on("close", () => {
          this.#sockets.delete(one);
          other.destroy();
        });
        one.pipe(other);
      }
    });
  }

  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  close(): void {
    this.cut();
    this.#server.close();
  }
}
