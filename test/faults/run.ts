/** One run: a cluster under load, a fault, and the results of checkers and measurements. */
import { setTimeout as sleep } from "node:timers/promises";
import { type Cluster, type Kind, type Member, type MemberSpec, startCluster } from "../harness/cluster.ts";
import { ourEtcd, type Program, stockEtcd } from "../harness/programs.ts";
import { waitFor } from "../harness/wait.ts";
import { type Gaps, gapsOf, type Hit, serves } from "./gaps.ts";
import { type History, judge } from "./history.ts";
import type { Host } from "./hosts.ts";
import { Hosts } from "./hosts.ts";
import { Load, type LoadSettings } from "./load.ts";

export interface Fault {
  readonly name: string;
  /** For people: what happens. */
  readonly what: string;
  /** Needs members on separate hosts. */
  readonly hosts?: boolean;
  /** The smallest cluster for which it makes sense. */
  readonly membersMin?: number;
  /** Hosts beyond those of the first members. */
  readonly spareHosts?: number;
  readonly load?: LoadSettings;
  /** Why it is not possible here; undefined when it is. */
  readonly missing?: () => string | undefined;
  /** Prepares what members need. */
  readonly prepare?: () => Site;
  /** Causes trouble until run.isOver, and ends it. */
  readonly inflict: (run: Run) => Promise<void>;
}

/** Per-member preparations of a fault, by number from 0 on. */
export interface Site {
  spec(index: number): Omit<MemberSpec, "kind" | "program" | "host">;
  close(): void;
}

export interface RunSettings {
  readonly members: number;
  readonly hosts: boolean;
  /** Duration of the fault. */
  readonly seconds: number;
  readonly kind: Kind;
}

export interface Report {
  readonly fault: string;
  readonly settings: RunSettings;
  /** How often it was caused. */
  readonly times: number;
  readonly operations: number;
  readonly acknowledged: number;
  readonly revisions: number;
  readonly leaseEnds: number;
  /** How often members became leader, and received snapshots from others, by their logs. */
  readonly elections: number;
  readonly snapshots: number;
  /** Undefined where the load was stopped in between. */
  readonly gaps: Gaps | undefined;
  /** The findings; empty when everything held. */
  readonly findings: readonly string[];
  readonly notes: readonly string[];
  readonly errors: ReadonlyMap<string, number>;
  readonly history: History;
}

/** Load before a fault begins and after it has ended, in milliseconds. */
const CALM_MS = 1_000;
const REST_MS = 30_000;

/** Few entries, so that a member that was away for some seconds gets a snapshot. */
const SNAPSHOTS = ["--snapshot-count", "100"];
const CATCH_UP = ["--snapshot-catchup-entries", "50"];

export async function runFault(fault: Fault, settings: RunSettings): Promise<Report> {
  const count = settings.members;
  const hosts = settings.hosts ? await Hosts.create(count + (fault.spareHosts ?? 0)) : undefined;
  let site: Site | undefined;
  let cluster: Cluster | undefined;
  let run: Run | undefined;
  try {
    site = fault.prepare?.();
    const specs = Array.from({ length: count }, (_, i) => specOf(settings.kind, hosts, i, site));
    cluster = await startCluster({ members: specs, args: SNAPSHOTS, argsOf: { ours: CATCH_UP } });
    run = new Run(fault, settings, cluster, hosts, site);
    return await run.go();
  } catch (error) {
    throw new Error(`${fault.name}: ${(error as Error).stack ?? error}\n${cluster?.describe() ?? ""}`);
  } finally {
    await run?.close();
    await hosts?.heal().catch(() => {});
    await cluster?.close();
    site?.close();
    await hosts?.close();
  }
}

/** The member with this number, on a separate host when there are hosts. */
export function specOf(kind: Kind, hosts: Hosts | undefined, index: number, site?: Site): MemberSpec {
  const more = site?.spec(index) ?? {};
  const host = hosts?.all[index];
  if (hosts === undefined || host === undefined) return { kind, ...more };
  const program: Program = kind === "ours" ? ourEtcd() : stockEtcd();
  return { kind, ...more, program: hosts.program(host, program), host: host.address };
}

export class Run {
  readonly fault: Fault;
  readonly settings: RunSettings;
  readonly cluster: Cluster;
  readonly site: Site | undefined;
  readonly #hosts: Hosts | undefined;
  /** The second one of a run that loses its majority. */
  load: Load;
  readonly #problems: string[] = [];
  readonly #notes: string[] = [];
  readonly #hits: Hit[] = [];
  readonly #healed: number[] = [];
  #untilMs = 0;
  /** Members present from the beginning. */
  readonly #founders: readonly string[];
  #judged: History | undefined;

  constructor(fault: Fault, settings: RunSettings, cluster: Cluster, hosts: Hosts | undefined, site: Site | undefined) {
    this.fault = fault;
    this.settings = settings;
    this.cluster = cluster;
    this.#hosts = hosts;
    this.site = site;
    this.load = new Load(fault.load);
    this.#founders = cluster.all.map(({ name }) => name);
  }

  get isOver(): boolean {
    return this.load.recorder.now >= this.#untilMs;
  }

  get hosts(): Hosts {
    if (this.#hosts === undefined) throw new Error(`${this.fault.name} needs hosts`);
    return this.#hosts;
  }

  get maybeHosts(): Hosts | undefined {
    return this.#hosts;
  }

  hostOf(member: Member): Host {
    const host = this.hosts.all.find(({ address }) => member.endpoint.startsWith(`${address}:`));
    if (host === undefined) throw new Error(`${member.name} has no host`);
    return host;
  }

  /** Records that a fault begins, and which members it affects. */
  hit(...members: readonly Member[]): void {
    this.#hits.push({ moment: this.load.recorder.now, members: members.map(({ name }) => name) });
  }

  /** Records that from now on no fault is active. */
  healed(): void {
    this.#healed.push(this.load.recorder.now);
  }

  note(text: string): void {
    this.#notes.push(text);
  }

  /** A finding. */
  problem(text: string): void {
    this.#problems.push(text);
  }

  /** Replaces the history that is checked at the end, for a run with several clusters. */
  judgeInstead(history: History): void {
    this.#judged = history;
  }

  pass(ms: number): Promise<void> {
    return sleep(ms);
  }

  /** Waits until all members answer writes and reads again. */
  async recovered(): Promise<void> {
    const { operations } = this.load.recorder;
    const from = this.load.recorder.now;
    for (const { name } of this.cluster.running) {
      await waitFor(`${name} serves a write and a linearizable read`, () => serves(operations, name, from), REST_MS);
    }
  }

  async go(): Promise<Report> {
    const { cluster, fault, settings } = this;
    this.load.start(cluster.all);
    await this.pass(CALM_MS);
    await this.recovered();
    const from = this.load.recorder.now;
    this.#untilMs = from + settings.seconds * 1000;
    const first = this.load;
    await fault.inflict(this);
    const down = cluster.all.filter(({ running }) => !running);
    for (const member of down) this.problem(`${member.name} ended by itself:\n${member.logTail()}`);
    await this.recovered().catch((error) => this.problem(`liveness: ${(error as Error).message}`));
    await this.pass(CALM_MS);
    const to = first.recorder.now;
    await this.load.stop();
    const { history, problems } = await this.load.finish();
    for (const problem of problems) this.problem(problem);
    await cluster.settled(REST_MS).catch((error) => this.problem((error as Error).message));
    const judged = this.#judged ?? history;
    const complete = this.#judged === undefined ? judged : { ...history, ...mergeOf(this.#judged, history) };
    const { findings, revisions, leaseEnds } = judge(complete);
    const present = this.#founders.filter((name) => cluster.all.some((member) => member.name === name));
    return {
      fault: fault.name,
      settings,
      times: this.#hits.length,
      operations: complete.operations.length,
      acknowledged: complete.operations.filter(({ outcome }) => outcome.kind === "ok").length,
      revisions,
      leaseEnds,
      elections: this.#logged(/became leader at term/g),
      snapshots: this.#logged(/"msg":"applied snapshot"/g),
      gaps:
        this.#judged === undefined
          ? gapsOf({
              operations: complete.operations,
              members: present,
              hits: this.#hits,
              from,
              to,
              healed: this.#healed,
            })
          : undefined,
      findings: [...this.#problems, ...findings.map(({ checker, message }) => `${checker}: ${message}`)],
      notes: this.#notes,
      errors: this.load.recorder.errors,
      history: complete,
    };
  }

  #logged(pattern: RegExp): number {
    return this.cluster.all.reduce((count, member) => count + (member.log().match(pattern)?.length ?? 0), 0);
  }

  async close(): Promise<void> {
    await this.load.close();
  }
}

/** Requests and leases of both; members' reports come from the current cluster. */
function mergeOf(before: History, after: History): Pick<History, "operations" | "leases"> {
  return {
    operations: [...before.operations, ...after.operations],
    leases: [...before.leases, ...after.leases],
  };
}
