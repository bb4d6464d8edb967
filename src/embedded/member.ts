/**
 * One member of an embedded cluster: the production server, on the cluster's time and network and, in memory, on a disk
 * of its own. It starts, stops in order, is killed, stands still and goes on.
 *
 * A kill is what the end of a process is to everybody else: connections break at once, and a disk in memory stays as it
 * was at that moment. A member in memory is then dropped as it is; one with files closes them.
 */
import type { Socket } from "node:net";
import { join, resolve } from "node:path";
import { type Etcd as RunningEtcd, startEtcd } from "../api/etcd.ts";
import type { ListenAddress } from "../api/listeners/listeners.ts";
import type { Clock } from "../base/clock.ts";
import { type Disk, systemDisk } from "../base/disk.ts";
import type { Logger } from "../base/log.ts";
import type { LoopProbe } from "../base/loop-probe.ts";
import { othersTurn } from "../base/others-turn.ts";
import { systemRandom } from "../base/random.ts";
import { InlineWriter } from "../bolt/store-writer.ts";
import { defaultConfig } from "../config/config.ts";
import { knownBuckets } from "../mvcc/backend/batch-records.ts";
import { BoltBackend } from "../mvcc/backend/bolt-backend.ts";
import { NO_TLS } from "../rpc/tls/context.ts";
import { AUTH_DEFAULTS, type BootstrapOptions, CHECK_DEFAULTS, type StorageSeams } from "../server/contract/options.ts";
import type { EtcdServer } from "../server/server.ts";
import { MemoryDisk } from "./memory-disk.ts";
import { socketPair } from "./memory-socket.ts";
import type { InProcessHub, InProcessNetwork } from "./network.ts";
import { inlineHasher } from "./passwords.ts";
import { embeddedPeerClient } from "./peer-client.ts";
import { EmbeddedError, type EtcdPeers } from "./settings.ts";
import { SlowDisk } from "./slow-disk.ts";
import { type EmbeddedTime, MemberClock } from "./time.ts";

/** Whether a member serves. */
export type MemberState = "off" | "starting" | "running" | "paused";

/** What the members of a cluster share. */
export interface MemberWorld {
  readonly time: EmbeddedTime;
  readonly hub: InProcessHub;
  readonly logger: Logger;
  readonly members: () => readonly EmbeddedMember[];
  readonly tickMs: number;
  readonly electionTicks: number;
  readonly quotaBytes: number;
  readonly fsync: boolean;
  readonly host: string;
  /** Files of the listeners' certificate. */
  readonly tls: { readonly certFile: string; readonly keyFile: string; readonly clientCaFile?: string } | undefined;
  readonly peers: EtcdPeers | undefined;
  readonly onFailure: (member: EmbeddedMember, error: unknown) => void;
}

const MEMORY_DIR = "/data";
const MEMORY_SEGMENT_BYTES = 64 * 1024;
/** Smaller than a server's, whose first one takes a noticeable time to reserve. */
const FILE_SEGMENT_BYTES = 4 * 1024 * 1024;
const MEMORY_CACHE_BYTES = 16 * 1024 * 1024;
/** Peer URLs within the process are names. */
const PEER_PORT_FIRST = 10_001;

interface Running {
  readonly etcd: RunningEtcd;
  readonly clock: MemberClock;
  readonly network: InProcessNetwork | undefined;
}

export class EmbeddedMember {
  readonly name: string;
  readonly peerUrl: string;
  /** In memory; undefined for a member with a data directory. */
  memory: MemoryDisk | undefined;
  readonly #dataDir: string | undefined;
  /** Undefined without a socket; 0 until the first start for a random one, which stays. */
  #port: number | undefined;
  readonly #world: MemberWorld;
  #running: Running | undefined;
  #starting: { readonly clock: MemberClock; readonly giveUp: (reason: Error) => void } | undefined;
  readonly #sockets = new Set<Socket>();
  #heldSockets: Socket[] = [];
  #latencyMs = 0;
  /** The closing of the files of what was killed. */
  readonly #remains = new Set<Promise<void>>();

  constructor(
    world: MemberWorld,
    at: {
      readonly name: string;
      readonly index: number;
      readonly port: number | undefined;
      readonly dataDir: string | undefined;
    },
  ) {
    this.#world = world;
    this.name = at.name;
    this.peerUrl = world.peers?.url ?? `http://127.0.0.1:${PEER_PORT_FIRST + at.index}`;
    this.#port = at.port;
    this.#dataDir = at.dataDir === undefined ? undefined : resolve(at.dataDir);
    this.memory = at.dataDir === undefined ? new MemoryDisk(world.time) : undefined;
  }

  get state(): MemberState {
    if (this.#running === undefined) return this.#starting === undefined ? "off" : "starting";
    return this.#running.clock.isStopped ? "paused" : "running";
  }

  get server(): EtcdServer | undefined {
    return this.#running?.etcd.server;
  }

  /** Where clients from outside reach it; undefined while it is off, or without a socket. */
  get url(): string | undefined {
    return this.#running?.etcd.clientAddresses[0];
  }

  /** Whether an endpoint is this member's, in or outside of the process. */
  isAt(endpoint: string): boolean {
    const place = endpoint.replace(/^https?:\/\//, "").replace(/\/$/, "");
    return (
      place === localEndpoint(this.name) || (this.#port !== undefined && place === `${this.#world.host}:${this.#port}`)
    );
  }

  /** Resolves when it serves. */
  async start(): Promise<void> {
    if (this.state !== "off") throw new EmbeddedError(`member ${this.name} is ${this.state}: it cannot be started`);
    const { time, hub } = this.#world;
    const clock = new MemberClock(time);
    let giveUp: (reason: Error) => void = () => {};
    const givenUp = new Promise<never>((_, reject) => {
      giveUp = reject;
    });
    givenUp.catch(() => {});
    this.#starting = { clock, giveUp };
    const network = this.#world.peers === undefined ? hub.create(clock) : undefined;
    try {
      const etcd = await startEtcd({
        ...defaultConfig,
        server: this.#serverOptions(clock),
        listenClient: this.#listen(),
        listenClientHttp: [],
        listenMetrics: [],
        listenPeer: this.#listenPeer(),
        keepalive: { ...defaultConfig.keepalive, permitWithoutStream: false },
        clientTls: this.#clientTls(),
        peerTls: undefined,
        extensiveMetrics: false,
        features: [],
        embedding: {
          peers: network === undefined ? undefined : this.#peers(network),
          loop: NO_PROBE,
          onSocket: (socket, serve) => {
            this.#track(socket);
            clock.defer(serve);
          },
          givenUp,
        },
      });
      this.#running = { etcd, clock, network };
      const [url] = etcd.clientAddresses;
      if (url !== undefined) this.#port = Number(new URL(url).port);
    } catch (error) {
      network?.leave();
      clock.end();
      throw error;
    } finally {
      this.#starting = undefined;
    }
  }

  /** The client's end of a new connection. Throws when the member is off. */
  connect(): Socket {
    const running = this.#running;
    if (running === undefined) throw new EmbeddedError(`member ${this.name} is ${this.state}`);
    const { client, server } = socketPair((deliver) => running.clock.defer(deliver));
    this.#track(server);
    running.etcd.accept(server);
    return client;
  }

  /** Stops in order: hands its leadership to another member, ends calls, writes everything. */
  async stop(): Promise<void> {
    this.#starting?.giveUp(new EmbeddedError(`member ${this.name} was stopped`));
    const running = this.#running;
    this.#running = undefined;
    if (running !== undefined) await this.#end(running);
    await Promise.all(this.#remains);
  }

  /** Ends it at once. What it had written stays. */
  kill(): void {
    this.#starting?.giveUp(new EmbeddedError(`member ${this.name} was killed`));
    const running = this.#running;
    if (running === undefined) return;
    this.#running = undefined;
    for (const socket of this.#sockets) socket.destroy();
    running.network?.leave();
    if (this.memory !== undefined) {
      this.memory = this.memory.copy(this.#world.time);
      running.clock.end();
      running.etcd.abandon();
      return;
    }
    const remains = this.#end(running).finally(() => this.#remains.delete(remains));
    this.#remains.add(remains);
  }

  /** What was killed is closed: its files can be opened again. */
  async closed(): Promise<void> {
    await Promise.all(this.#remains);
  }

  async #end({ etcd, clock }: Running): Promise<void> {
    clock.resume();
    for (const socket of this.#heldSockets) socket.resume();
    this.#heldSockets = [];
    try {
      await etcd.close(0);
    } finally {
      clock.end();
    }
  }

  /** Stands still like a stopped process: nothing that reaches it is noticed until `resume`. */
  pause(): void {
    if (this.#running === undefined)
      throw new EmbeddedError(`member ${this.name} is ${this.state}: it cannot be paused`);
    this.#running.clock.stop();
    this.#heldSockets = [...this.#sockets].filter((socket) => !socket.isPaused());
    for (const socket of this.#heldSockets) socket.pause();
  }

  resume(): void {
    for (const socket of this.#heldSockets) if (!socket.destroyed) socket.resume();
    this.#heldSockets = [];
    this.#running?.clock.resume();
  }

  /** Every sync of its log takes so long from now on. */
  slowDown(latencyMs: number): void {
    this.#latencyMs = latencyMs;
    if (this.memory !== undefined) this.memory.latencyMs = latencyMs;
  }

  #track(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
  }

  #serverOptions(clock: MemberClock): BootstrapOptions {
    const { world, disk } = { world: this.#world, disk: this.#disk(clock) };
    const cluster =
      world.peers?.cluster ?? Object.fromEntries(world.members().map((each) => [each.name, each.peerUrl]));
    const { memory } = this;
    return {
      ...defaultConfig,
      name: this.name,
      dataDir: this.#dataDir ?? MEMORY_DIR,
      walDir: undefined,
      initialCluster: new Map(Object.entries(cluster).map(([name, url]) => [name, [url]])),
      initialClusterToken: "embedded",
      newCluster: world.peers?.join !== true,
      // With a socket: where it listens.
      advertiseClientUrls: this.#port === undefined ? [`http://${localEndpoint(this.name)}`] : [],
      tickMs: world.tickMs,
      electionTicks: world.electionTicks,
      initialElectionTickAdvance: false,
      walSegmentSizeBytes: memory === undefined ? FILE_SEGMENT_BYTES : MEMORY_SEGMENT_BYTES,
      ...(memory === undefined ? {} : { seams: memorySeams(memory, clock) }),
      unsafeNoFsync: !world.fsync,
      quotaBackendBytes: world.quotaBytes,
      autoCompactionMode: "periodic",
      autoCompactionRetention: 0,
      checks: CHECK_DEFAULTS,
      auth: { ...AUTH_DEFAULTS, clientCertAuth: world.tls?.clientCaFile !== undefined },
      leaseCheckpoint: false,
      leaseCheckpointPersist: false,
      clock,
      random: systemRandom,
      disk,
      logger: world.logger,
      onFailure: (error) => world.onFailure(this, error),
    };
  }

  #disk(clock: Clock): Disk {
    return this.memory ?? new SlowDisk(systemDisk, clock, () => this.#latencyMs);
  }

  #listen(): ListenAddress[] {
    if (this.#port === undefined) return [];
    const { host, tls } = this.#world;
    return [
      { kind: "tcp", host, port: this.#port, url: `${tls === undefined ? "http" : "https"}://${host}:${this.#port}` },
    ];
  }

  #listenPeer(): ListenAddress[] {
    const { peers } = this.#world;
    if (peers === undefined) return [];
    const { hostname, port } = new URL(peers.url);
    return [{ kind: "tcp", host: hostname, port: Number(port), url: peers.url }];
  }

  #clientTls() {
    const { tls } = this.#world;
    if (tls === undefined) return undefined;
    const { certFile, keyFile, clientCaFile } = tls;
    return {
      ...NO_TLS,
      certFile,
      keyFile,
      trustedCaFile: clientCaFile ?? "",
      clientCertAuth: clientCaFile !== undefined,
      autoTls: false,
      selfSignedCertValidityYears: 1,
    };
  }

  #peers(network: InProcessNetwork) {
    const { hub, members } = this.#world;
    const client = embeddedPeerClient((who) => {
      const found = members().find(({ server, peerUrl }) =>
        typeof who === "bigint" ? server?.memberId === who : peerUrl === who,
      );
      if (found?.server === undefined || found.state !== "running" || !hub.reaches(network.id, found.server.memberId)) {
        throw new EmbeddedError("the other member does not answer");
      }
      return found.server;
    });
    return { transport: network, client, addresses: [], serve() {}, close: () => network.stop() };
  }
}

/** The name under which a client within the process has a member as its endpoint. */
export const localEndpoint = (name: string): string => `${name}:2379`;

/** The production engine and store, on a disk in memory that no other process can have. */
function memorySeams(disk: MemoryDisk, clock: Clock): StorageSeams {
  return {
    openBackend: (options) =>
      new BoltBackend({
        ...options,
        cacheBytes: MEMORY_CACHE_BYTES,
        storage: { disk, writer: (path) => new InlineWriter(disk, path, knownBuckets, () => othersTurn(clock)) },
      }),
    lockDataDir: () => Promise.resolve(() => {}),
    passwords: inlineHasher(systemRandom),
  };
}

export const memberDirectory = (dataDir: string, name: string, isAlone: boolean): string =>
  isAlone ? dataDir : join(dataDir, name);

/** The program's loop is not observed. */
const NO_PROBE: LoopProbe = {
  everyTurn: () => () => {},
  idleMs: () => 0,
  queuedMs: () => 0,
  everyCollection: () => () => {},
};
