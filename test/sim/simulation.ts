/**
 * Runs a plan: a cluster of production servers on simulated machines, its clients, its faults, the recovery, and then
 * every checker. The same plan gives the same trace, byte for byte.
 */
import { isDeepStrictEqual } from "node:util";
import { isFatal } from "../../src/base/fatal.ts";
import { AUTH_DEFAULTS, type ReadSlice, type ServerOptions } from "../../src/server/contract/options.ts";
import { checkAuth } from "./checkers/auth.ts";
import type { Finding, Operation } from "./checkers/history.ts";
import { checkLeases } from "./checkers/lease.ts";
import { checkLinearizability } from "./checkers/linearizability.ts";
import { checkQuota } from "./checkers/quota.ts";
import { checkSessions } from "./checkers/session.ts";
import { checkWatches } from "./checkers/watch.ts";
import { Clients, type ClientWorld } from "./clients.ts";
import { ClientSide } from "./connection.ts";
import { Drill } from "./drill.ts";
import { Faults, type MaintenanceStep } from "./faults.ts";
import { limitOptions } from "./limits.ts";
import { type MachineWorld, SimMachine, TOKEN_KEY_FILE } from "./machine.ts";
import { FAIR, SimNetwork } from "./network.ts";
import { Operator } from "./operator.ts";
import { Oracle } from "./oracle.ts";
import { type ClientStep, type FaultStep, isFault, type Plan, type Target } from "./plan.ts";
import type { Bug } from "./plant.ts";
import { Promises } from "./promises.ts";
import { SimRandom } from "./random.ts";
import { isQuota, isSession, isUser, type QuotaStep } from "./scenes.ts";
import { Scheduler, type SimProcess } from "./scheduler.ts";
import { Sessions } from "./sessions.ts";
import { SideStates } from "./side-states.ts";
import { Trace } from "./trace.ts";
import { upkeepOptions } from "./upkeep.ts";
import { Users } from "./users.ts";
import { Versions } from "./versions.ts";

export interface Outcome {
  readonly plan: Plan;
  readonly findings: readonly Finding[];
  /** Hash of the trace. */
  readonly hash: string;
  /** Empty unless requested. */
  readonly trace: readonly string[];
  readonly counts: {
    readonly virtualMs: number;
    readonly events: number;
    readonly faults: number;
    readonly operations: number;
    readonly acknowledged: number;
    readonly unknown: number;
    readonly revisions: number;
    readonly watchEvents: number;
    readonly messages: number;
    readonly snapshots: number;
    readonly restarts: number;
    readonly replaced: number;
    readonly leaders: number;
  };
}

export interface RunSettings {
  readonly keepTrace?: boolean;
  /** A planted bug, to see whether it is found. */
  readonly bug?: Bug;
}

/** Virtual time for the cluster to come to rest after its faults ended. */
const REST_MS = 60_000;
/** Maximum number of times the operator makes room before the cluster is at rest. */
const ROOMS_MAX = 10;
/** Interval of checks for rest. */
const LOOK_MS = 250;
const LOOKS_SLOWER_MAX = 8;
/** A watch without events for this long has them all, however slow its client is. */
const QUIET_MS = 1500;
/** Permitted delay of a lease's end: an election, its extension, and the revocation rate. */
const LEASE_GRACE_MS = 15_000;
const LONGEST_LEASE_MS = 14_000;
/** Time for the versions to follow: members check them every four seconds. */
const VERSIONS_MS = 20_000;
/** A run with more events than this is in an endless loop. */
const EVENTS_MAX = 3_000_000;
const FINDINGS_MAX = 5;
const TOKENS = {
  simple: "simple",
  // Wall clocks may differ by days.
  jwt: `jwt,priv-key=${TOKEN_KEY_FILE},sign-method=HS256,ttl=100000h`,
};

export async function simulate(plan: Plan, settings: RunSettings = {}): Promise<Outcome> {
  const simulation = new Simulation(plan, settings);
  const undo = settings.bug?.plant(simulation);
  const unhandled = (error: unknown): void => simulation.unhandled(error);
  process.on("unhandledRejection", unhandled);
  process.on("uncaughtException", unhandled);
  try {
    return await simulation.run();
  } finally {
    undo?.();
    process.off("unhandledRejection", unhandled);
    process.off("uncaughtException", unhandled);
  }
}

export class Simulation implements MachineWorld {
  readonly plan: Plan;
  readonly seed: number;
  readonly scheduler = new Scheduler();
  readonly network: SimNetwork;
  readonly oracle: Oracle;
  readonly clients: Clients;
  readonly sessions: Sessions;
  readonly sideStates: SideStates;
  readonly #users: Users | undefined;
  readonly options: Partial<ServerOptions>;
  /** Hook of a planted bug for a machine that is about to start, or has started. */
  onStarting: ((machine: SimMachine) => void) | undefined;
  onStarted: ((machine: SimMachine) => void) | undefined;
  readonly #trace: Trace;
  readonly #side: ClientSide;
  readonly operator: Operator;
  readonly #faults: Faults;
  readonly #drill: Drill;
  readonly #promises = new Promises((checker, message) => this.oracle.add(checker, message));
  readonly #versions = new Versions((message) => this.oracle.add("version", message));
  #machines: SimMachine[] = [];
  /** Errors with which members stopped themselves. */
  readonly #failures = new Set<Error>();
  #healed = false;
  #restarts = 0;

  constructor(plan: Plan, settings: RunSettings) {
    this.plan = plan;
    this.seed = plan.seed;
    this.#trace = new Trace(this.scheduler, settings.keepTrace === true);
    this.network = new SimNetwork(this.scheduler, SimRandom.of(plan.seed, "network"), this.#trace.add);
    this.network.weather = plan.weather;
    this.network.onSent = (machine, message) => this.#promises.sent(machine, message);
    this.network.onSnapshotLost = (name, error) => this.#snapshotLost(name, error);
    this.oracle = new Oracle(this.scheduler, this.#trace.add);
    const clientRandom = SimRandom.of(plan.seed, "clients");
    this.#side = new ClientSide(this.scheduler, () => 0.2 + clientRandom.below(1000) / 500);
    this.options = {
      snapshotCount: plan.snapshotCount,
      snapshotCatchUpEntries: plan.snapshotCatchUpEntries,
      compactionBatchLimit: plan.compactionBatchLimit,
      // So few keys per slice that most range deletions take several turns.
      applySlice: { rows: 1 + (plan.seed % 3), bytes: 64 },
      // So few keys per slice that most ranges take several turns, with other events in between.
      readSlice: readSliceOf(plan.seed),
      turns: { slicesMax: 1 + (plan.seed % 2), stepsNowMax: plan.seed % 3 },
      ...limitOptions(plan.limits),
      ...upkeepOptions(plan.upkeep ?? {}),
      ...(plan.quotaBytes === undefined ? {} : { quotaBackendBytes: plan.quotaBytes }),
      ...(plan.tokens === undefined ? {} : { auth: { ...AUTH_DEFAULTS, token: TOKENS[plan.tokens] } }),
    };
    this.sideStates = new SideStates(this.scheduler, (checker, message) => this.oracle.add(checker, message));
    const world: ClientWorld = {
      side: this.#side,
      random: clientRandom,
      users: undefined,
      machineAt: (target) => this.machineAt(target),
      machines: () => this.#machines,
      trace: this.#trace.add,
      found: (checker, message) => this.oracle.add(checker, message),
    };
    if (plan.tokens !== undefined) world.users = new Users(world, SimRandom.of(plan.seed, "users"));
    this.#users = world.users;
    this.#side.credentials = this.#users;
    this.clients = new Clients(world);
    this.sessions = new Sessions(world, this.clients);
    this.operator = new Operator({
      side: this.#side,
      random: SimRandom.of(plan.seed, "operator"),
      clients: this.clients,
      machines: () => this.#machines,
      trace: this.#trace.add,
    });
    this.#drill = new Drill({
      scheduler: this.scheduler,
      random: SimRandom.of(plan.seed, "drill"),
      clients: this.clients,
      operator: this.operator,
      oracle: this.oracle,
      sideStates: this.sideStates,
      machines: () => this.#machines,
      machineAt: (target) => this.machineAt(target),
      trace: this.#trace.add,
      until: (isTrue, limitMs) => this.#untilOr(isTrue, limitMs),
    });
    this.#faults = new Faults(this, SimRandom.of(plan.seed, "faults"));
    for (let i = 0; i < plan.members; i++) this.#machines.push(new SimMachine(`m${i}`, this));
    const cluster = new Map(this.#machines.map(({ name, url }) => [name, [url]]));
    for (const machine of this.#machines) machine.initialCluster = cluster;
  }

  trace(line: string): void {
    this.#trace.add(line);
  }

  found(checker: string, message: string): void {
    this.oracle.add(checker, message);
  }

  machines(): readonly SimMachine[] {
    return this.#machines;
  }

  machineOf(url: string): SimMachine | undefined {
    return this.#machines.find((machine) => machine.url === url);
  }

  machineAt(target: Target): SimMachine | undefined {
    if (target !== "leader") return this.#machines[target % this.#machines.length];
    const leading = this.#machines.filter(({ running }) => running?.server.replication.isLeader === true);
    return (
      leading.sort((a, b) => b.running!.server.replication.term - a.running!.server.replication.term)[0] ??
      this.#machines[0]
    );
  }

  get isReplacing(): boolean {
    return this.operator.isBusy;
  }

  replace(machine: SimMachine, asLearner: boolean): void {
    this.operator.replace(machine, asLearner);
  }

  maintain(step: MaintenanceStep): void {
    this.operator.maintain(step);
  }

  starting(machine: SimMachine): void {
    this.#faults.starting(machine);
    this.onStarting?.(machine);
  }

  started(machine: SimMachine): void {
    this.#faults.started(machine);
    this.#promises.observe(machine, machine.running!);
    this.oracle.observe(machine, machine.running!);
    this.sideStates.observe(machine, machine.running!);
    this.#versions.observe(machine, machine.running!);
    this.onStarted?.(machine);
  }

  ended(machine: SimMachine, process: SimProcess): void {
    this.#restarts++;
    this.#checkDatabases(machine);
    this.#side.ended(process);
  }

  #checkDatabases(machine: SimMachine): void {
    if (this.#faults.hasDamaged(machine)) return;
    const { name, databases, disk } = machine;
    for (const problem of databases.problems(disk)) this.oracle.add("database", `${name} leaves ${problem}`);
  }

  /** Transfers break at any time, but what arrives whole must be sound. */
  #snapshotLost(name: string, error: unknown): void {
    const sender = this.#machines.find((machine) => machine.name === name)!;
    if (!String(error).includes("is damaged") || this.#faults.hasDamaged(sender)) return;
    this.oracle.add("database", `${name} sent a snapshot that was refused: ${error}`);
  }

  failed(machine: SimMachine, error: unknown): void {
    if (error instanceof Error) this.#failures.add(error);
    if (!this.#drill.excuses(machine, error) && !this.#faults.excuses(machine, error)) {
      const stack = error instanceof Error ? error.stack : String(error);
      this.oracle.add("process", `${machine.name} stopped itself: ${stack}`);
    }
    this.scheduler.after(500, () => machine.start());
  }

  unhandled(error: unknown): void {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    // Errors of a dead process are ignored.
    if (text.includes("the machine is off") || this.#failures.has(error as Error)) return;
    // Nothing else tells whose it is.
    const damaged = isFatal(error) ? this.#faults.damagedMachine(text) : undefined;
    if (damaged !== undefined) {
      damaged.crash(error);
      return;
    }
    // Of a process that has ended because of the same damage.
    if (isFatal(error) && [...this.#failures].some(({ message }) => isSameDamage(message, text))) return;
    this.oracle.add("process", `nobody caught: ${text}`);
  }

  async run(): Promise<Outcome> {
    const { scheduler, plan } = this;
    for (const machine of this.#machines) scheduler.at(0, () => machine.start());
    for (const step of plan.steps) {
      scheduler.at(step.atMs, () => {
        if (isFault(step)) this.#faults.do(step as FaultStep);
        else if (isSession(step)) this.sessions.do(step);
        else if (isUser(step)) this.#users?.do(step);
        else if (isQuota(step)) this.#doQuota(step);
        else this.clients.do(step as ClientStep);
      });
    }
    scheduler.at(plan.healMs, () => this.#heal());
    try {
      await this.#until(() => this.#healed);
      await this.#comeToRest();
      if (this.#goesOn) await this.#settleVersions();
      if (this.#goesOn) await this.#passOn();
      if (this.#goesOn) await this.#outliveLeases();
      if (this.#goesOn && plan.upkeep?.damagesRow === true) {
        await this.#drill.run(plan.upkeep);
        await this.#comeToRest();
      }
      if (this.#goesOn) await this.#compareMembers();
    } catch (error) {
      this.oracle.add("simulation", error instanceof Error ? (error.stack ?? error.message) : String(error));
    }
    const findings = this.#check();
    // Ends the processes, so that nothing remains for the next seed.
    for (const machine of this.#machines) machine.kill();
    return this.#outcome(findings);
  }

  #doQuota(step: QuotaStep): void {
    if (step.kind === "makeRoom") this.operator.makeRoom();
    else this.clients.put(this.machineAt(step.target)!, step.key, () => {}, step.bytes);
  }

  get #goesOn(): boolean {
    return this.oracle.findings.length < FINDINGS_MAX;
  }

  async #until(isDone: () => boolean): Promise<void> {
    await this.scheduler.run(() => {
      if (this.scheduler.moment > EVENTS_MAX) throw new Error(`no end after ${EVENTS_MAX} events`);
      this.oracle.step(this.#machines);
      this.#versions.step(this.#machines);
      this.sideStates.step(this.#machines);
      for (const { name, running } of this.#machines) {
        if (running !== undefined) this.#promises.check(name, running.parts.node);
      }
      return isDone() || !this.#goesOn;
    });
  }

  /** False on timeout. */
  async #untilOr(isTrue: () => boolean, limitMs: number): Promise<boolean> {
    const endMs = this.scheduler.nowMs + limitMs;
    while (this.scheduler.nowMs < endMs && !isTrue() && this.#goesOn) await this.#pass(LOOK_MS);
    return isTrue();
  }

  async #pass(ms: number): Promise<void> {
    let over = false;
    this.scheduler.after(ms, () => {
      over = true;
    });
    await this.#until(() => over);
  }

  #heal(): void {
    this.trace("HEAL");
    this.#faults.end();
    this.network.mendAll();
    this.network.weather = FAIR;
    for (const machine of this.#machines) if (machine.state === "off") machine.start();
    this.#healed = true;
  }

  /** Liveness: after all faults, every member serves reads and writes, and all reach the same state. */
  async #comeToRest(): Promise<void> {
    const { scheduler, clients } = this;
    let untilMs = scheduler.nowMs + REST_MS;
    let [rooms, looks] = [0, 0];
    while (scheduler.nowMs < untilMs && this.#goesOn) {
      // Work that the operator has begun continues, and ends by itself if it fails.
      if (this.operator.isBusy) untilMs = scheduler.nowMs + REST_MS;
      else if (this.sideStates.alarms.stages.at(-1)!.state.length > 0 && rooms++ < ROOMS_MAX) this.operator.makeRoom();
      const asked = this.#machines.length;
      let well = 0;
      let answers = 0;
      const done = (ok: boolean): void => {
        answers++;
        if (ok) well++;
      };
      scheduler.after(0, () => {
        for (const machine of this.#machines) clients.put(machine, `rest/${machine.name}`, done);
      });
      await this.#until(() => answers === asked);
      // Less and less often: the slowest readers of a watch must keep up with these writes.
      await this.#pass(LOOK_MS * Math.min(++looks, LOOKS_SLOWER_MAX));
      if (well === asked && !this.operator.isBusy && this.#isAtRest()) return;
    }
    if (this.#goesOn)
      this.oracle.add("liveness", `the members came to no rest within ${REST_MS} ms: ${this.#describe()}`);
  }

  #isAtRest(): boolean {
    const servers = this.#machines.map(({ running }) => running?.server);
    const first = servers[0];
    return (
      first !== undefined &&
      this.clients.pending === 0 &&
      servers.every(
        (server) =>
          server !== undefined &&
          server.replication.leader === first.replication.leader &&
          server.replication.leader !== 0n &&
          server.replication.appliedIndex === first.replication.appliedIndex &&
          server.replication.appliedIndex === server.replication.committedIndex,
      )
    );
  }

  #describe(): string {
    return this.#machines
      .map(({ name, state, running }) => {
        if (running === undefined) return `${name} ${state}`;
        const { server } = running;
        return `${name} term ${server.replication.term} leader ${server.replication.leader.toString(16)} applied ${server.replication.appliedIndex}/${server.replication.committedIndex}`;
      })
      .join("; ");
  }

  /** Liveness of locks and elections: a holder is gone, or ends with its lease, and the next follows. */
  async #passOn(): Promise<void> {
    const untilMs = this.scheduler.nowMs + REST_MS;
    this.sessions.contendOnce(this.#machines);
    while (this.scheduler.nowMs < untilMs && this.sessions.unfinished > 0 && this.#goesOn) await this.#pass(LOOK_MS);
    if (this.sessions.unfinished > 0 && this.#goesOn)
      this.oracle.add("liveness", `${this.sessions.unfinished} sessions did not get what they asked for`);
    await this.#pass(LOOK_MS);
    this.sessions.settled();
  }

  /** All agree on the version of the oldest member, and have migrated their state to it. */
  async #settleVersions(): Promise<void> {
    const untilMs = this.scheduler.nowMs + VERSIONS_MS;
    for (;;) {
      const wrong = this.#versions.unsettled(this.#machines);
      if (wrong === undefined) return;
      this.operator.tidy();
      if (this.scheduler.nowMs > untilMs) {
        this.oracle.add("version", `at rest ${wrong}`);
        return;
      }
      await this.#pass(LOOK_MS);
    }
  }

  /** Renewals have stopped, so all leases must end. */
  async #outliveLeases(): Promise<void> {
    const untilMs = this.scheduler.nowMs + LONGEST_LEASE_MS + LEASE_GRACE_MS;
    const none = (): boolean => this.#machines.every(({ running }) => running?.server.lessor.leases().length === 0);
    while (this.scheduler.nowMs < untilMs && !none() && this.#goesOn) await this.#pass(LOOK_MS);
    await this.#pass(4 * LOOK_MS);
  }

  async #compareMembers(): Promise<void> {
    const { scheduler } = this;
    for (const machine of this.#machines) this.oracle.checkState(machine, "at the end");
    for (const watch of this.clients.watches) if (watch.isLive) watch.requestProgress();
    const before = this.clients.hashes.length;
    for (const machine of this.#machines) this.clients.hash(machine, 0);
    await this.#until(
      () => this.clients.hashes.length === before + this.#machines.length || this.clients.pending === 0,
    );
    await this.#pass(4 * LOOK_MS);
    // Slow clients have not received everything yet.
    const areQuiet = (): boolean =>
      this.clients.watches.every(({ isLive, eventsMs }) => !isLive || scheduler.nowMs - eventsMs > QUIET_MS);
    await this.#untilOr(areQuiet, REST_MS);
    for (const watch of this.clients.watches) watch.settled();
  }

  #check(): Finding[] {
    const { oracle, clients } = this;
    const { revisions } = oracle;
    const findings = [...oracle.findings];
    const isSerializable = ({ action }: Operation): boolean =>
      (action.kind === "range" && action.request.serializable) ||
      // A transaction with only comparisons is answered from the member's local state.
      (action.kind === "txn" && action.request.success.length + action.request.failure.length === 0);
    const operations = [
      ...clients.operations,
      ...(this.plan.upkeep?.compactMs === undefined ? [] : oracle.compactions),
    ];
    findings.push(...checkQuota({ operations, alarms: this.sideStates.alarms, overQuota: this.sideStates.overQuota }));
    const linearized = checkLinearizability({ operations, revisions, seenIsKnown: true, isSerializable });
    findings.push(...linearized.findings);
    findings.push(
      ...checkWatches({
        watches: clients.watches.map(({ log }) => log),
        revisions,
        space: linearized.space,
        operations,
      }),
    );
    findings.push(...this.#checkUpkeep());
    findings.push(
      ...checkLeases({
        leases: clients.leases,
        ends: [...linearized.leaseEnds].map(([revision, lease]) => {
          const { seen, seenMs } = revisions[revision - 2]!;
          return { lease, revision, seen, seenMs };
        }),
        left: oracle.findings.length > 0 ? [] : this.#leasesLeft(),
        endMs: this.scheduler.nowMs,
        graceMs: LEASE_GRACE_MS,
      }),
    );
    findings.push(...checkSessions(this.sessions, revisions));
    if (this.#users !== undefined) {
      const { used, answers } = this.#users;
      findings.push(...checkAuth({ timeline: this.sideStates.auth, used, answers, isSerializable }));
    }
    findings.push(...this.#compareHashes());
    return findings.sort((a, b) => a.moment - b.moment);
  }

  /** No healthy member is reported corrupt, and automatic compaction keeps the configured retention. */
  #checkUpkeep(): Finding[] {
    const { clients, oracle, plan, sideStates } = this;
    const findings: Finding[] = [];
    const raised = sideStates.alarms.stages.find(({ state }) => state.some((alarm) => alarm.endsWith("/2")));
    if (raised !== undefined && raised.seen < this.#drill.beganAt) {
      const message = `CORRUPT was raised, ${raised.state.join(", ")}, but all members have the same`;
      findings.push({ checker: "alarm", message, moment: raised.seen });
    }
    const compactMs = plan.upkeep?.compactMs;
    if (compactMs === undefined) return findings;
    const asked = new Set(clients.operations.map(({ action }) => (action.kind === "compact" ? action.revision : 0)));
    for (const { action, atMs, invoked } of oracle.compactions) {
      const seenMs = oracle.revisions[action.revision - 2]?.seenMs ?? 0;
      if (asked.has(action.revision) || atMs - seenMs >= compactMs) continue;
      const message = `revision ${action.revision} was compacted ${atMs - seenMs} ms after it was made`;
      findings.push({ checker: "compaction", message, moment: invoked });
    }
    return findings;
  }

  #leasesLeft(): { id: bigint; member: string }[] {
    return this.#machines.flatMap(({ name, running }) =>
      (running?.server.lessor.leases() ?? []).map((id) => ({ id, member: name })),
    );
  }

  /** HashKV at the same revision and compaction is equal on all members. */
  #compareHashes(): Finding[] {
    const findings: Finding[] = [];
    const known = new Map<string, { machine: string; hash: number }>();
    for (const { machine, revision, compactRevision, hash } of this.clients.hashes) {
      // As in etcd, when nothing is left, a compaction hashes other rows than the earlier call.
      if (this.#isEmptyAt(revision)) continue;
      const at = `revision ${revision} compacted at ${compactRevision}`;
      const other = known.get(at);
      if (other === undefined) known.set(at, { machine, hash });
      else if (!isDeepStrictEqual(other.hash, hash)) {
        const message = `${machine} has hash ${hash} at ${at}, but ${other.machine} has ${other.hash}`;
        findings.push({ checker: "hash", message, moment: Number.POSITIVE_INFINITY });
      }
    }
    return findings;
  }

  #isEmptyAt(revision: number): boolean {
    const { space } = this.oracle;
    return space.keys().every((key) => space.at(key, revision) === undefined);
  }

  #outcome(findings: Finding[]): Outcome {
    const { clients, network, scheduler, oracle } = this;
    for (const { checker, message } of findings) this.trace(`finding: ${checker}: ${message}`);
    const count = (kind: string): number => clients.operations.filter(({ outcome }) => outcome.kind === kind).length;
    return {
      plan: this.plan,
      findings,
      hash: this.#trace.digest(),
      trace: this.#trace.lines,
      counts: {
        virtualMs: scheduler.nowMs,
        events: scheduler.moment,
        faults: this.plan.steps.filter(isFault).length,
        operations: clients.operations.length,
        acknowledged: count("ok"),
        unknown: count("unknown"),
        revisions: oracle.revisions.length,
        watchEvents: clients.watches.reduce(
          (sum, { log }) =>
            sum + log.steps.reduce((s, step) => s + (step.kind === "events" ? step.events.length : 0), 0),
          0,
        ),
        messages: network.counts.delivered,
        snapshots: network.counts.snapshots,
        restarts: this.#restarts,
        replaced: this.operator.replaced,
        leaders: oracle.leaders,
      },
    };
  }
}

function readSliceOf(seed: number): ReadSlice {
  const rows = 1 + (seed % 3);
  return {
    rowsAtOnce: rows,
    bytesAtOnce: 64,
    rows,
    bytes: 64,
    entries: 1 + (seed % 5),
    rowsApplied: seed % 2,
    bytesApplied: 64,
    bytesGathered: 100 * (seed % 4),
  };
}

/** What meets a damaged page first may say less about it. */
function isSameDamage(a: string, b: string): boolean {
  const [first, second] = [a, b].map((text) => /is damaged: (?:a )?page \d*/.exec(text)?.[0]);
  return first !== undefined && first === second;
}
