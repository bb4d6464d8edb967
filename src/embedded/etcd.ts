/** etcd inside the process: the members, their clients, and what can be done to them. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import { nullLogger } from "../base/log.ts";
import { Client } from "../client/client.ts";
import type { ClientOptions } from "../client/options.ts";
import { CompactionRequest } from "../proto/etcdserverpb.ts";
import { selfSignedCertificate } from "../rpc/tls/self-signed.ts";
import { EtcdError } from "../server/contract/errors.ts";
import type { EtcdServer } from "../server/server.ts";
import { EmbeddedMember, localEndpoint, type MemberState, type MemberWorld, memberDirectory } from "./member.ts";
import type { MemoryDisk } from "./memory-disk.ts";
import { InProcessHub } from "./network.ts";
import { EmbeddedError, EtcdResetError, type EtcdSettings, type EtcdTls, memberNames, portsOf } from "./settings.ts";
import { EmbeddedTime, nextTurn } from "./time.ts";
import { makeUsers } from "./users.ts";

/** Steps of time in which a cluster must have started, before it counts as unable to. */
const START_STEPS_MAX = 3000;
const START_MS_MAX = 20_000;
/** How long a question for the leader waits. */
const LEADER_MS_MAX = 10_000;

/** The state of a cluster in memory, to go back to. */
export interface EtcdSnapshot {
  readonly disks: ReadonlyMap<string, MemoryDisk>;
}

/**
 * A cluster of etcd members in this process: the real server, in memory or on the disk. Stop it with `await using` or
 * `stop`; then nothing of it is left.
 *
 * @example
 * await using etcd = await Etcd.start();
 * const client = etcd.client();
 * await client.put("greeting", "hello");
 *
 * @example
 * // Three members, of which the leader is lost, and another one takes its place.
 * await using etcd = await Etcd.start({ members: 3 });
 * await etcd.kill(await etcd.leader());
 * await etcd.leader();
 * await etcd.client().put("still", "works");
 */
export class Etcd {
  readonly #time = new EmbeddedTime();
  readonly #hub = new InProcessHub(this.#time);
  readonly #members: readonly EmbeddedMember[];
  readonly #electionMs: number;
  readonly #clients = new Set<Client>();
  /** Holds the certificate that was made. */
  readonly #certificateDir: string | undefined;
  readonly #tls: EtcdTls | undefined;
  #initial: EtcdSnapshot | undefined;
  #isStopped = false;

  /**
   * Starts a cluster and resolves when it serves. Rejects when a setting makes no sense (`EmbeddedError`), a port is
   * taken, or a data directory cannot be used.
   */
  static async start(settings: EtcdSettings = {}): Promise<Etcd> {
    const names = memberNames(settings);
    const made = settings.tls === true ? await madeCertificate(settings.host ?? LOOPBACK) : undefined;
    const etcd = new Etcd(settings, names, made);
    try {
      await etcd.#startAll(etcd.#members);
      if (settings.users !== undefined) await etcd.#withUsers(settings);
      if (settings.dataDir === undefined) etcd.#initial = await etcd.snapshot();
      return etcd;
    } catch (error) {
      await etcd.stop();
      throw error;
    }
  }

  private constructor(
    settings: EtcdSettings,
    names: readonly string[],
    made: { readonly dir: string; readonly tls: EtcdTls } | undefined,
  ) {
    const { heartbeatMs = 20, electionMs = 200, dataDir, onFailure } = settings;
    this.#electionMs = electionMs;
    this.#certificateDir = made?.dir;
    this.#tls = made?.tls ?? (typeof settings.tls === "object" ? settings.tls : undefined);
    const ports = portsOf(settings.listen);
    const world: MemberWorld = {
      time: this.#time,
      hub: this.#hub,
      logger: settings.logger ?? nullLogger,
      members: () => this.#members,
      tickMs: heartbeatMs,
      electionTicks: Math.max(2, Math.floor(electionMs / heartbeatMs)),
      quotaBytes: settings.quotaBytes ?? 0,
      fsync: settings.fsync ?? true,
      host: settings.host ?? LOOPBACK,
      tls: this.#tls,
      peers: settings.peers,
      onFailure: (member, error) => {
        member.kill();
        if (onFailure !== undefined) onFailure(member.name, error);
        else process.emitWarning(`the embedded etcd member ${member.name} has ended: ${messageOf(error)}`);
      },
    };
    this.#members = names.map((name, index) => {
      const port = ports === undefined ? undefined : (ports[index] ?? 0);
      const dir = dataDir === undefined ? undefined : memberDirectory(dataDir, name, names.length === 1);
      return new EmbeddedMember(world, { name, index, port, dataDir: dir });
    });
  }

  /** Names of the members. */
  get members(): readonly string[] {
    return this.#members.map(({ name }) => name);
  }

  /** Where clients from outside connect; of members that run, and empty without sockets. */
  get endpoints(): readonly string[] {
    return this.#members.flatMap(({ url }) => (url === undefined ? [] : [url]));
  }

  /** The certificate authority of the endpoints as PEM, when `tls` is true. */
  get ca(): string | undefined {
    return this.#certificateDir === undefined ? undefined : readFileSync(this.#tls!.certFile, "utf8");
  }

  /** Whether a member serves. */
  state(member: string): MemberState {
    return this.#member(member).state;
  }

  /**
   * A client that reaches the members without a socket, and lives in their time. Closed with the cluster at the latest.
   *
   * @example
   * const client = etcd.client({ username: "root", password: "secret" });
   */
  client(options: Omit<ClientOptions, "endpoints" | "connect" | "clock" | "tls"> = {}): Client {
    this.#check();
    const client = new Client({
      random: NO_JITTER,
      ...options,
      endpoints: this.#members.map(({ name }) => localEndpoint(name)),
      connect: (endpoint) => this.#members.find((member) => member.isAt(endpoint))?.connect(),
      clock: this.#time,
    });
    this.#clients.add(client);
    return client;
  }

  /** Stops all members in order and closes all clients of this cluster. */
  async stop(): Promise<void> {
    if (this.#isStopped) return;
    this.#isStopped = true;
    for (const client of this.#clients) client.close();
    for (const member of this.#members) {
      member.resume();
      member.slowDown(0);
    }
    let isOver = false;
    const all = Promise.allSettled(this.#members.map((member) => member.stop())).finally(() => {
      isOver = true;
    });
    // What they still wait for, such as a slow disk, passes at once.
    while (!isOver) await this.#time.advance(this.#electionMs);
    const ends = await all;
    if (this.#certificateDir !== undefined) rmSync(this.#certificateDir, { recursive: true, force: true });
    const failed = ends.find((end) => end.status === "rejected");
    if (failed !== undefined) throw failed.reason;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  // ---- state, between tests

  /** The state of all members now, of a cluster in memory. */
  async snapshot(): Promise<EtcdSnapshot> {
    this.#check();
    // What is in the database need not be replayed from the log.
    await Promise.all(this.#running().map((server) => server.replication.backend.commit()));
    const disks = this.#members.map(({ name, memory }) => {
      if (memory === undefined) throw onDisk("snapshot");
      return [name, memory.copy(this.#time)] as const;
    });
    return { disks: new Map(disks) };
  }

  /**
   * Goes back to a snapshot, as often as wanted: keys, revisions, leases, users, members. Clients stay; their watches and
   * leases end with EtcdResetError and LeaseLostError. Members that were off or paused run again; partitions and slow
   * disks are over.
   */
  async restore(snapshot: EtcdSnapshot): Promise<void> {
    this.#check();
    const reason = new EtcdResetError();
    for (const client of this.#clients) client.endSessions(reason);
    for (const member of this.#members) {
      const disk = snapshot.disks.get(member.name);
      if (disk === undefined) throw new EmbeddedError(`the snapshot is of a cluster without a member ${member.name}`);
      member.kill();
      member.memory = disk.copy(this.#time);
      member.slowDown(0);
    }
    this.heal();
    await this.#startAll(this.#members);
  }

  /** Goes back to the state after the start: no keys, revision 1. */
  async reset(): Promise<void> {
    if (this.#initial === undefined) throw onDisk("reset");
    await this.restore(this.#initial);
  }

  // ---- time

  /**
   * Puts the members' time, and that of their clients, forward. Whatever is due in it happens, in order: leases that are
   * not renewed expire, and clients of this cluster renew theirs.
   *
   * @example
   * await etcd.advance(30_000);
   */
  async advance(ms: number): Promise<void> {
    if (!(ms >= 0)) throw new EmbeddedError(`advance by ${ms}: give milliseconds, 0 or more`);
    await this.#time.advance(ms);
  }

  // ---- what can go wrong

  /**
   * Ends members at once, like `kill -9`: what they had written stays. A write that reaches another member before that has
   * noticed the end of its leader waits for its time limit, as in any cluster; `leader()` waits for the next one.
   */
  async kill(...members: readonly string[]): Promise<void> {
    for (const name of members) this.#member(name).kill();
    await nextTurn();
  }

  /** Starts members that are off, all when none is named, and resolves when they serve: they need a quorum. */
  async restart(...members: readonly string[]): Promise<void> {
    const named = members.map((name) => this.#member(name));
    await this.#startAll(members.length > 0 ? named : this.#members.filter(({ state }) => state === "off"));
  }

  /** Stops members in order, as an operator does. */
  async shutDown(...members: readonly string[]): Promise<void> {
    for (const name of members) await this.#member(name).stop();
  }

  /** Lets members stand still, as SIGSTOP does, until `resume`. */
  pause(...members: readonly string[]): void {
    for (const name of members) this.#member(name).pause();
  }

  /** Lets members that stand still go on, all when none is named. */
  resume(...members: readonly string[]): void {
    for (const name of members.length > 0 ? members : this.members) this.#member(name).resume();
  }

  /** Cuts these members off from the others, until `heal`. Clients still reach all of them. */
  partition(...members: readonly string[]): void {
    this.#hub.part(members.map((name) => this.#serverOf(this.#member(name)).memberId));
  }

  /** Ends a partition. */
  heal(): void {
    this.#hub.part([]);
  }

  /** Every sync of the members' logs takes so many milliseconds from now on; 0 for no delay. */
  slowDisk(latencyMs: number, ...members: readonly string[]): void {
    for (const name of members.length > 0 ? members : this.members) this.#member(name).slowDown(latencyMs);
  }

  /** The name of the leader; waits until there is one. */
  async leader(): Promise<string> {
    const endMs = systemClock.nowMs() + LEADER_MS_MAX;
    for (;;) {
      const leading = this.#members.filter(({ state, server }) => state === "running" && server?.replication.isLeader);
      // One that was cut off may not know yet that it is none.
      leading.sort((a, b) => b.server!.replication.term - a.server!.replication.term);
      const [first] = leading;
      if (first !== undefined && this.#isFollowed(first)) return first.name;
      if (systemClock.nowMs() > endMs)
        throw new EmbeddedError("there is no leader: more than half of the members must run");
      await pause(1);
    }
  }

  /** Gives the leadership to a member. */
  async moveLeader(to: string): Promise<void> {
    const from = this.#serverOf(this.#member(await this.leader()));
    const target = this.#serverOf(this.#member(to)).memberId;
    if (target === from.memberId) return;
    const error = await from.leaderTransfer.moveTo(target);
    if (error !== undefined) throw error;
    await this.leader();
  }

  /** Compacts everything before the newest revision, so that nobody can watch or read from the past. Gives that revision. */
  async compact(): Promise<number> {
    const server = this.#serverOf(this.#member(await this.leader()));
    const revision = server.store.currentRevision;
    const request = CompactionRequest.create({ revision, physical: true });
    const outcome = await server.compact(request, CompactionRequest.encode(request));
    if (outcome instanceof EtcdError) throw outcome;
    return revision;
  }

  /**
   * Raises the NOSPACE alarm of a member, as a database at its quota does: writes are refused until it is disarmed
   * (`client.maintenance`).
   */
  async fill(member?: string): Promise<void> {
    const server = this.#serverOf(this.#member(member ?? (await this.leader())));
    const outcome = await server.raiseNoSpace();
    if (outcome instanceof EtcdError) throw outcome;
  }

  // ---- within

  #isFollowed(leader: EmbeddedMember): boolean {
    const { memberId } = this.#serverOf(leader);
    const followers = this.#running().filter((server) => server.replication.leader === memberId);
    return followers.length * 2 > this.#members.length;
  }

  async #startAll(members: readonly EmbeddedMember[]): Promise<void> {
    let failure: { readonly error: unknown } | undefined;
    let left = members.length;
    await Promise.all(members.map((member) => member.closed()));
    for (const member of members) {
      member.start().then(
        () => left--,
        (error: unknown) => {
          failure ??= { error };
        },
      );
    }
    // Elections take their time: it passes faster while nobody is served.
    const endMs = systemClock.nowMs() + START_MS_MAX;
    for (let step = 0; left > 0 && failure === undefined; step++) {
      await this.#time.advance(step < START_STEPS_MAX ? this.#electionMs / 10 : 0);
      if (step >= START_STEPS_MAX) await pause(5);
      if (systemClock.nowMs() > endMs) failure = { error: new EmbeddedError("too few members run to elect a leader") };
    }
    if (failure === undefined) return;
    for (const member of members) if (member.state === "starting") member.kill();
    throw failure.error;
  }

  async #withUsers(settings: EtcdSettings): Promise<void> {
    const client = this.client();
    try {
      await makeUsers(client, settings);
    } finally {
      client.close();
      this.#clients.delete(client);
    }
  }

  #running(): EtcdServer[] {
    return this.#members.flatMap(({ server }) => (server === undefined ? [] : [server]));
  }

  #member(name: string): EmbeddedMember {
    this.#check();
    const found = this.#members.find((member) => member.name === name);
    if (found === undefined) throw new EmbeddedError(`there is no member ${name}, but ${this.members.join(", ")}`);
    return found;
  }

  #serverOf(member: EmbeddedMember): EtcdServer {
    if (member.server === undefined) throw new EmbeddedError(`member ${member.name} is ${member.state}`);
    return member.server;
  }

  #check(): void {
    if (this.#isStopped) throw new EmbeddedError("this etcd is stopped");
  }
}

const LOOPBACK = "127.0.0.1";
/** Clients of a process need not spread their attempts, and always begin with the first member. */
const NO_JITTER = { below: () => 0, uint64: () => 0n };

const pause = (ms: number): Promise<void> => new Promise((resolve) => systemClock.after(ms, resolve));

function onDisk(what: string): EmbeddedError {
  return new EmbeddedError(
    `${what}() is for a cluster in memory: this one has a dataDir. Use client.maintenance.snapshot for a backup of it`,
  );
}

async function madeCertificate(host: string): Promise<{ readonly dir: string; readonly tls: EtcdTls }> {
  const dir = mkdtempSync(join(tmpdir(), "kvorum-tls-"));
  const { certFile, keyFile } = await selfSignedCertificate({
    directory: dir,
    hosts: [host, "localhost"],
    validityYears: 1,
    clock: new EmbeddedTime(),
    logger: nullLogger,
  });
  return { dir, tls: { certFile, keyFile } };
}
