/**
 * A cluster inside one process: servers with real logs and databases in temporary directories, connected by an
 * in-process network. There are no listeners: tests call the servers.
 */
import { join } from "node:path";
import { systemClock } from "../../src/base/clock.ts";
import { InProcessHub } from "../../src/embedded/network.ts";
import { memberId } from "../../src/membership/member.ts";
import { PutRequest, type PutResponse } from "../../src/proto/etcdserverpb.ts";
import { EtcdError } from "../../src/server/contract/errors.ts";
import type { PeerClient } from "../../src/server/contract/network.ts";
import type { BootstrapOptions } from "../../src/server/contract/options.ts";
import { Op } from "../../src/server/log/op.ts";
import { EtcdServer } from "../../src/server/server.ts";
import { bootstrap } from "../../src/server/start/bootstrap.ts";
import { MemoryLogger, serverOptions, tempDir } from "./in-process.ts";
import { waitFor } from "./wait.ts";

const TICK_MS = 10;

export interface ClusterNode {
  readonly name: string;
  readonly dataDir: string;
  readonly logger: MemoryLogger;
  readonly failures: unknown[];
  /** The running server; undefined while it is stopped. */
  server: EtcdServer | undefined;
  /** How often the server was notified of its removal. */
  removedCount: number;
}

export class ServerCluster {
  readonly hub = new InProcessHub(systemClock);
  readonly nodes = new Map<string, ClusterNode>();
  /** Members that cannot open a second database, as with a full disk. */
  readonly failOpen = new Set<string>();
  readonly #dir = tempDir();
  /** Makes the ids of added members distinct. */
  #added = 1;
  readonly #options: Partial<BootstrapOptions>;

  private constructor(options: Partial<BootstrapOptions>) {
    this.#options = options;
  }

  /** Starts a cluster of `count` members, m1 and so on, and waits until all serve. */
  static async start(count: number, options: Partial<BootstrapOptions> = {}): Promise<ServerCluster> {
    const cluster = new ServerCluster(options);
    const names = Array.from({ length: count }, (_, i) => `m${i + 1}`);
    const initialCluster = new Map(names.map((name) => [name, [urlOf(name)]] as const));
    try {
      await Promise.all(names.map((name) => cluster.startNode(name, { initialCluster })));
      await Promise.all(cluster.running.map((server) => server.ready));
      return cluster;
    } catch (error) {
      await cluster.close();
      throw error;
    }
  }

  /** Starts or restarts a member. */
  async startNode(name: string, changes: Partial<BootstrapOptions> = {}): Promise<EtcdServer> {
    let node = this.nodes.get(name);
    if (node === undefined) {
      const dataDir = join(this.#dir.path, name);
      const logger = new MemoryLogger();
      node = { name, dataDir, logger, failures: [], server: undefined, removedCount: 0 };
      this.nodes.set(name, node);
    }
    const { dataDir, logger, failures } = node;
    const options = serverOptions(dataDir, {
      name,
      initialCluster: new Map([...this.nodes.keys()].map((each) => [each, [urlOf(each)]] as const)),
      initialClusterToken: "test",
      advertiseClientUrls: [`http://${name}:2379`],
      tickMs: TICK_MS,
      electionTicks: 20,
      initialElectionTickAdvance: false,
      logger,
      onFailure: (error) => failures.push(error),
      onRemoved: () => node.removedCount++,
      ...this.#options,
      ...changes,
    });
    const parts = await bootstrap(options, this.#peerClient);
    const network = this.hub.join(parts.memberId);
    const openBackend: typeof parts.openBackend = (path) => {
      if (this.failOpen.has(name)) throw new Error("the disk is full");
      return parts.openBackend(path);
    };
    const serverParts = { ...parts, openBackend };
    const server = await EtcdServer.create({ ...options, network, peerClient: this.#peerClient }, serverParts);
    node.server = server;
    server.start();
    return server;
  }

  /** Adds a member to the running cluster and starts it. */
  async addNode(name: string, isLearner = false): Promise<EtcdServer> {
    const leader = await this.leader();
    const id = memberId([urlOf(name)], "", this.#added++);
    const outcome = await leader.membership.add({ id, peerUrls: [urlOf(name)], isLearner, name: "", clientUrls: [] });
    if (outcome instanceof EtcdError) throw outcome;
    const initialCluster = new Map(outcome.map((member) => [member.name || name, member.peerUrls] as const));
    return this.startNode(name, { newCluster: false, initialCluster });
  }

  server(name: string): EtcdServer {
    const server = this.nodes.get(name)?.server;
    if (server === undefined) throw new Error(`member ${name} is not running`);
    return server;
  }

  get running(): EtcdServer[] {
    return [...this.nodes.values()].flatMap(({ server }) => (server === undefined ? [] : [server]));
  }

  /** The leader that all running members follow. */
  async leader(): Promise<EtcdServer> {
    let found: EtcdServer | undefined;
    await waitFor("all follow one leader", () => {
      const servers = this.running.filter(({ memberId }) => !this.hub.isCut(memberId));
      const ids = new Set(servers.map(({ replication }) => replication.leader));
      found = servers.find((server) => server.replication.isLeader);
      return ids.size === 1 && found !== undefined;
    });
    return found!;
  }

  async follower(): Promise<EtcdServer> {
    const leader = await this.leader();
    return this.running.find((server) => server !== leader && !server.replication.isLearner)!;
  }

  nameOf(server: EtcdServer): string {
    return server.options.name;
  }

  /** Stops a member; with `crash` it sends nothing to the others and transfers nothing. */
  async stopNode(name: string, how: "stop" | "crash" = "stop"): Promise<void> {
    const node = this.nodes.get(name)!;
    const server = node.server;
    if (server === undefined) return;
    node.server = undefined;
    if (how === "crash") {
      // A leader partitioned first cannot transfer leadership.
      this.hub.cut(server.memberId);
      await server.stop();
      this.hub.mend(server.memberId);
    } else await server.stop();
  }

  /** All running members have applied the same entries and hold the same data. */
  async converged(): Promise<void> {
    await waitFor("all have applied the same", () => {
      const indexes = new Set(this.running.map(({ replication }) => replication.appliedIndex));
      const committed = Math.max(...this.running.map(({ replication }) => replication.committedIndex));
      return indexes.size === 1 && indexes.has(committed);
    });
  }

  async hashes(): Promise<number[]> {
    await this.converged();
    return Promise.all(this.running.map(async ({ store }) => (await store.hashKv(0)).hash));
  }

  async close(): Promise<void> {
    for (const server of this.running) this.hub.cut(server.memberId);
    await Promise.all([...this.nodes.keys()].map((name) => this.stopNode(name)));
    this.#dir.remove();
  }

  readonly #peerClient: PeerClient = {
    members: async () => {
      const [server] = this.running.sort((a, b) => b.replication.appliedIndex - a.replication.appliedIndex);
      if (server === undefined) throw new Error("nobody answers");
      return { clusterId: server.cluster.id, members: server.cluster.members() };
    },
    versions: async () => ({ server: "3.7.1", cluster: this.running[0]?.cluster.version ?? "3.7.0", storage: "3.7.0" }),
    hashKv: () => Promise.reject(new Error("not asked in these tests")),
    downgradeEnabled: async () => false,
    promoteMember: async ({ id }, learnerId) => {
      const server = this.running.find(({ memberId }) => memberId === id);
      const outcome = await server?.membership.promoteAsLeader(learnerId);
      if (outcome === undefined || outcome instanceof EtcdError) throw outcome ?? new Error("nobody answers");
      return outcome;
    },
    renewLease: () => Promise.reject(new Error("not asked in these tests")),
    leaseTimeToLive: () => Promise.reject(new Error("not asked in these tests")),
  };
}

/** A peer URL without a listener; an address, because names would be resolved. `name` ends in a number. */
export const urlOf = (name: string): string => `http://127.0.0.1:${10_000 + Number(name.slice(1))}`;

/** Puts through a member's log. Rejects with the EtcdError. */
export async function put(server: EtcdServer, key: string, value: string): Promise<PutResponse> {
  const request = PutRequest.create({ key: Buffer.from(key), value: Buffer.from(value) });
  const outcome = await server.request(Op.PUT, request, PutRequest.encode(request));
  if (outcome instanceof EtcdError) throw outcome;
  return outcome as PutResponse;
}

/** A read of the member's applied state. */
export function serializableGet(server: EtcdServer, key: string): string | undefined {
  const { kvs } = server.store.rangeDecoded(Buffer.from(key), null, { revision: 0, limit: 0, countOnly: false });
  return kvs[0] === undefined ? undefined : Buffer.from(kvs[0].value).toString();
}

/** A linearizable read. Rejects with the EtcdError. */
export function get(server: EtcdServer, key: string): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    server.replication.read({
      serve: (error) => (error === null ? resolve(serializableGet(server, key)) : reject(error)),
    });
  });
}
