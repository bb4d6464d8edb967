/**
 * A machine with a disk and its member: the production server and API, on a simulated clock, disk and network.
 * It starts, crashes, loses power, freezes and restarts.
 */
import { Access } from "../../src/api/calls/access.ts";
import { HeaderWriter } from "../../src/api/calls/header.ts";
import { AuthApi } from "../../src/api/services/auth.ts";
import { ClusterApi } from "../../src/api/services/cluster.ts";
import { ElectionApi } from "../../src/api/services/election.ts";
import { KvApi } from "../../src/api/services/kv.ts";
import { LeaseApi } from "../../src/api/services/lease.ts";
import { LockApi } from "../../src/api/services/lock.ts";
import { MaintenanceApi } from "../../src/api/services/maintenance.ts";
import { WatchApi } from "../../src/api/services/watch.ts";
import type { LogFields, Logger } from "../../src/base/log.ts";
import type { BoltBackendOptions } from "../../src/mvcc/backend/options.ts";
import { PeerEndpoints } from "../../src/peer/endpoints.ts";
import { RPC_DEFAULTS } from "../../src/rpc/options.ts";
import { RpcServer } from "../../src/rpc/server.ts";
import type { ServerOptions } from "../../src/server/contract/options.ts";
import { EtcdServer } from "../../src/server/server.ts";
import { type Bootstrapped, bootstrap } from "../../src/server/start/bootstrap.ts";
import { serverOptions } from "../harness/in-process.ts";
import type { Service } from "./connection.ts";
import { type DatabaseShape, SimDatabases } from "./database.ts";
import { SimDisk } from "./disk.ts";
import type { SimNetwork } from "./network.ts";
import { peerClientOf } from "./peer-client.ts";
import { SimRandom } from "./random.ts";
import { type Scheduler, SimClock, SimProcess } from "./scheduler.ts";
import { SimHasher } from "./users.ts";

export type MachineState = "off" | "starting" | "serving" | "failed";

/** The disk's behaviour. */
export interface DiskMood {
  /** Minimum and maximum duration of a sync. */
  syncMinMs: number;
  syncMaxMs: number;
}

export interface MachineWorld {
  readonly scheduler: Scheduler;
  readonly network: SimNetwork;
  readonly seed: number;
  trace(line: string): void;
  /** The machine is about to start its member. */
  starting(machine: SimMachine): void;
  /** The member has begun to serve. */
  started(machine: SimMachine): void;
  /** Its process has ended, for any reason. */
  ended(machine: SimMachine, process: SimProcess): void;
  /** The member stopped itself because of `error`. */
  failed(machine: SimMachine, error: unknown): void;
  /** Changes to every member's options. */
  readonly options: Partial<ServerOptions>;
  machineOf(url: string): SimMachine | undefined;
  machines(): readonly SimMachine[];
}

/** A running member. */
export interface Running extends Service {
  readonly server: EtcdServer;
  readonly parts: Bootstrapped;
  /** The HTTP endpoints for other members. */
  readonly endpoints: PeerEndpoints;
}

const DATA_DIR = "/data";
/** The key for signed tokens, in seeds that use them. */
export const TOKEN_KEY_FILE = "/token.key";

export class SimMachine {
  readonly name: string;
  /** Its peer URL; a replaced member gets a new one. */
  url: string;
  readonly wall = { wallOffsetMs: 0 };
  readonly mood: DiskMood = { syncMinMs: 0.2, syncMaxMs: 2 };
  state: MachineState = "off";
  disk = new SimDisk();
  databases = new SimDatabases();
  running: Running | undefined;
  /** The same once it serves clients: it knows a leader and has published its attributes. */
  service: Running | undefined;
  /** Its disk is lost: the member that ran here cannot restart. */
  #waitsForOperator = false;
  /** Number of starts. */
  starts = 0;
  /** Members of the cluster that it starts with or joins. */
  initialCluster: ReadonlyMap<string, readonly string[]> = new Map();
  newCluster = true;
  /** The etcd version that its member reports; undefined for the real one. */
  version: string | undefined;
  readonly #world: MachineWorld;
  readonly #random: SimRandom;
  #generation = 0;
  #process: SimProcess | undefined;

  constructor(name: string, world: MachineWorld) {
    this.name = name;
    this.url = this.#address();
    this.#world = world;
    this.#random = SimRandom.of(world.seed, `machine ${name}`);
  }

  get process(): SimProcess | undefined {
    return this.#process;
  }

  /** Starts a member that is new to the cluster. */
  startNew(initialCluster: ReadonlyMap<string, readonly string[]>): void {
    this.newCluster = false;
    this.initialCluster = initialCluster;
    this.#waitsForOperator = false;
    this.start();
  }

  /** Starts the member, unless it is running, or is lost and its replacement is not added yet. */
  start(): void {
    if (this.state === "starting" || this.state === "serving" || this.#waitsForOperator) return;
    const world = this.#world;
    this.state = "starting";
    this.starts++;
    const process: SimProcess = new SimProcess(world.scheduler, (error) => this.#fail(process, error));
    this.#process = process;
    this.#attachDisk(process);
    world.trace(`${this.name}: starts`);
    world.starting(this);
    this.#writeTokenKey();
    const options = this.#options(process);
    const peerClient = peerClientOf(world, { machine: this.name, process, logger: options.logger });
    void (async () => {
      const parts = await bootstrap(options, peerClient);
      const network = world.network.join(parts.memberId, this.name, process);
      const server = await EtcdServer.create({ ...options, network, peerClient }, parts);
      if (!process.alive) return;
      await server.checkData();
      if (!process.alive) return;
      const rpc = this.#rpc(server, options);
      const endpoints = new PeerEndpoints(server, options.logger);
      const running = { server, parts, rpc, endpoints, process };
      this.running = running;
      world.started(this);
      server.start();
      await server.ready;
      if (!process.alive) return;
      this.state = "serving";
      this.service = running;
    })().catch((error: unknown) => this.#fail(process, error));
  }

  /** Written by the administrator, whatever the disk's state. */
  #writeTokenKey(): void {
    const { disk } = this;
    const { capacityBytes, fault } = disk;
    Object.assign(disk, { capacityBytes: Number.POSITIVE_INFINITY, fault: undefined });
    disk.replace(TOKEN_KEY_FILE, Buffer.from("the key that signs tokens in the simulation"));
    Object.assign(disk, { capacityBytes, fault });
  }

  /** Kills the process: the kernel's data is kept. */
  kill(): void {
    this.#end("is killed", () => this.disk.kill());
  }

  /** Power loss: unsynced data is lost, possibly in part. */
  losePower(): void {
    this.#end("loses power", () => this.disk.crash(this.#random));
  }

  /** The machine is lost with all its data. */
  wipe(): void {
    this.#end("is lost", () => new SimDisk());
    this.databases = new SimDatabases();
    this.#waitsForOperator = true;
  }

  /** A new member will run here, with a new address. */
  renew(): void {
    this.#generation++;
    this.url = this.#address();
  }

  /** Numeric, because names would be resolved by the real resolver. */
  #address(): string {
    return `http://10.0.${this.#generation}.${this.name.slice(1)}:2380`;
  }

  /** Stops in order, as on SIGTERM. */
  async stop(): Promise<void> {
    const { running } = this;
    if (running === undefined) {
      this.kill();
      return;
    }
    this.#world.trace(`${this.name}: stops`);
    try {
      await running.server.stop();
    } catch (error) {
      this.#fail(running.process, error);
      return;
    }
    if (this.#process === running.process && running.process.alive) this.kill();
  }

  pause(forMs: number): void {
    this.#process?.pause(forMs);
  }

  #end(how: string, nextDisk: () => SimDisk): void {
    const process = this.#process;
    this.#world.trace(`${this.name}: ${how}`);
    process?.end();
    const { capacityBytes } = this.disk;
    this.disk = nextDisk();
    this.disk.capacityBytes = capacityBytes;
    this.running = undefined;
    this.service = undefined;
    this.#process = undefined;
    this.state = "off";
    if (process !== undefined) this.#world.ended(this, process);
  }

  /** An error that nothing caught ends the process. */
  crash(error: unknown): void {
    if (this.#process !== undefined) this.#fail(this.#process, error);
  }

  #fail(process: SimProcess, error: unknown): void {
    if (!process.alive || this.#process !== process) return;
    this.#world.trace(`${this.name}: fails: ${String(error)}`);
    this.kill();
    this.state = "failed";
    this.#world.failed(this, error);
  }

  #attachDisk(process: SimProcess): void {
    const { scheduler } = this.#world;
    const { disk, mood } = this;
    disk.threadPool = (operation, job, path) => {
      // So long that crashes often come in the middle of the database's commits.
      const syncs = path.endsWith(".wal") ? 1 : 10;
      const delayMs = operation === "sync" ? syncs * this.#syncMs() : 0.05;
      scheduler.after(delayMs, () => process.run(job));
    };
    disk.observe = (operation, _path, isBlocking) => {
      // A blocking sync blocks everything else meanwhile.
      if (operation === "sync" && isBlocking && mood.syncMaxMs > 10) process.pause(this.#syncMs());
    };
  }

  #syncMs(): number {
    const { syncMinMs, syncMaxMs } = this.mood;
    return syncMinMs + (this.#random.below(1000) / 1000) * (syncMaxMs - syncMinMs);
  }

  #databaseShape(): DatabaseShape {
    const random = SimRandom.of(this.#world.seed, `database ${this.name} ${this.starts}`);
    return {
      pageSize: random.pick([1024, 1024, 4096]),
      pendingBytesMax: random.pick([1000, 64 * 1024 * 1024]),
      rewriteStepBytes: random.pick([500, 5000]),
      stepMs: () => this.#syncMs(),
      roomDelayMs: () => this.#syncMs() * 10,
    };
  }

  #options(process: SimProcess): Omit<ServerOptions, "network" | "peerClient"> {
    const world = this.#world;
    const clock = new SimClock(world.scheduler, process, this.wall);
    const random = SimRandom.of(world.seed, `member ${this.name} ${this.starts}`);
    const shape = this.#databaseShape();
    return serverOptions(DATA_DIR, {
      name: this.name,
      initialCluster: this.initialCluster,
      newCluster: this.newCluster,
      initialClusterToken: "sim",
      advertiseClientUrls: [this.url.replace("2380", "2379")],
      unsafeNoFsync: false,
      walSegmentSizeBytes: 64 * 1024,
      ...world.options,
      ...(this.version === undefined ? {} : { serverVersion: this.version }),
      clock,
      random,
      disk: this.disk,
      logger: new TraceLogger((line) => world.trace(`${this.name}: ${line}`)),
      seams: {
        openBackend: (options: BoltBackendOptions) => this.databases.open(this.disk, options, shape),
        lockDataDir: () => Promise.resolve(() => {}),
        passwords: new SimHasher(clock, random),
      },
      onFailure: (error) => this.#fail(process, error),
      onRemoved: () => {
        if (process.alive) this.kill();
      },
    });
  }

  #rpc(server: EtcdServer, { clock, logger }: Pick<ServerOptions, "clock" | "logger">): RpcServer {
    const rpc = new RpcServer({ ...RPC_DEFAULTS, clock, logger, onCallStart: undefined, onCallEnd: undefined });
    const header = new HeaderWriter(server);
    const access = new Access(server);
    new KvApi(server, header, access).register(rpc);
    new WatchApi(server, access, 2000).register(rpc);
    new LeaseApi(server, header, access).register(rpc);
    new ClusterApi(server, header, access).register(rpc);
    new MaintenanceApi(server, header, access).register(rpc);
    new LockApi(server, header, access).register(rpc);
    new AuthApi(server, header, access).register(rpc);
    new ElectionApi(server, header, access).register(rpc);
    return rpc;
  }
}

/** Log lines are part of the trace: they must be reproducible too. */
class TraceLogger implements Logger {
  readonly debugEnabled = false;
  readonly #trace: (line: string) => void;

  constructor(trace: (line: string) => void) {
    this.#trace = trace;
  }

  debug(): void {}

  info(message: string, fields?: LogFields): void {
    this.#write("", message, fields);
  }

  warn(message: string, fields?: LogFields): void {
    this.#write("WARN ", message, fields);
  }

  error(message: string, fields?: LogFields): void {
    this.#write("ERROR ", message, fields);
  }

  #write(level: string, message: string, fields: LogFields | undefined): void {
    const text = Object.entries(fields ?? {}).map(([name, value]) => `${name}=${show(value)}`);
    this.#trace([`${level}${message}`, ...text].join(" "));
  }
}

const show = (value: unknown): string =>
  typeof value === "object" && value !== null
    ? JSON.stringify(value, (_, v: unknown) => (typeof v === "bigint" ? `${v}` : v))
    : String(value);
