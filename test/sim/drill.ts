/**
 * After a successful run: flips a bit of a value in one member's database. No checksum detects it, as in stock
 * etcd, so it must be found by comparing members: the member does not start, or the leader raises CORRUPT for it and
 * writes stop. Then the operator replaces the member and disarms the alarm.
 */
import { KeyValue } from "../../src/proto/mvccpb.ts";
import type { Moment } from "./checkers/history.ts";
import type { Clients } from "./clients.ts";
import { damageRow } from "./database.ts";
import type { SimMachine } from "./machine.ts";
import type { Operator } from "./operator.ts";
import type { Oracle } from "./oracle.ts";
import type { SimRandom } from "./random.ts";
import type { Scheduler } from "./scheduler.ts";
import type { SideStates } from "./side-states.ts";
import type { Upkeep } from "./upkeep.ts";

export interface DrillWorld {
  readonly scheduler: Scheduler;
  readonly random: SimRandom;
  readonly clients: Clients;
  readonly operator: Operator;
  readonly oracle: Oracle;
  readonly sideStates: SideStates;
  machines(): readonly SimMachine[];
  machineAt(target: "leader"): SimMachine | undefined;
  trace(line: string): void;
  /** Advances virtual time until it is true or the limit is reached. */
  until(isTrue: () => boolean, limitMs: number): Promise<boolean>;
}

/** How long the damage may stay unnoticed, and the limit of the other steps. */
const LIMIT_MS = 30_000;
const COMPACT_MS = 2000;

export class Drill {
  readonly #world: DrillWorld;
  /** Refused to start because its data differs from the others'. */
  #refused: SimMachine | undefined;
  #victim: SimMachine | undefined;
  /** Members may be reported corrupt from then on. */
  beganAt: Moment = Number.POSITIVE_INFINITY;

  constructor(world: DrillWorld) {
    this.#world = world;
  }

  /** True when the damage explains that a member refuses to start. */
  excuses(machine: SimMachine, error: unknown): boolean {
    if (machine !== this.#victim || !String(error).includes("found data inconsistency with peers")) return false;
    this.#refused = machine;
    return true;
  }

  async run({ checks }: Upkeep): Promise<void> {
    const { machines, operator, oracle, random, scheduler, sideStates, trace, until } = this.#world;
    const victim = random.pick(machines());
    const memberId = victim.running!.parts.memberId.toString(16);
    await this.#stop(victim);
    const row = this.#damage(victim);
    if (row === undefined) trace("drill: there is no value to damage");
    else {
      trace(`drill: the value of ${row} at ${victim.name} is damaged`);
      this.#victim = victim;
      this.beganAt = scheduler.moment;
      oracle.excused.add(victim.url);
    }
    victim.start();
    if (row === undefined) return;
    const isCalledCorrupt = (): boolean => sideStates.alarms.stages.at(-1)!.state.includes(`${memberId}/2`);
    const isNoticed = (): boolean => this.#refused !== undefined || isCalledCorrupt();
    for (let waitedMs = 0; waitedMs < LIMIT_MS && !isNoticed(); waitedMs += COMPACT_MS) {
      if (checks!.compactionsMs > 0) this.#compact();
      else if (checks!.initial && waitedMs > 0) {
        await this.#stop(victim);
        victim.start();
      } else await this.#write();
      await until(isNoticed, COMPACT_MS);
    }
    if (!isNoticed()) oracle.add("damage", `nobody noticed that the value of ${row} at ${victim.name} is damaged`);
    if (isCalledCorrupt()) await this.#writesAreRefused();
    operator.replace(victim, false);
    await until(() => !operator.isBusy, 4 * LIMIT_MS);
  }

  /** At the last compaction, restarted members have no hashes to compare with those that others keep of it. */
  async #write(): Promise<void> {
    const { machineAt, until } = this.#world;
    const leader = machineAt("leader");
    if (leader === undefined) return;
    let isWritten = false;
    this.#put(leader, () => (isWritten = true));
    await until(() => isWritten, COMPACT_MS);
  }

  async #stop(victim: SimMachine): Promise<void> {
    const { until } = this.#world;
    await this.#write();
    const { process } = victim;
    void victim.stop();
    await until(() => process?.alive !== true, LIMIT_MS);
  }

  /** Damages a relevant value: `key@revision`, or undefined when there is none. */
  #damage({ disk }: SimMachine): string | undefined {
    const { space } = this.#world.oracle;
    let found: string | undefined;
    damageRow(disk, DATABASE, (main, bytes) => {
      const { key, value, lease } = KeyValue.decode(bytes);
      const name = Buffer.from(key).toString("latin1");
      // Without a lease the value comes last. Keys that are rewritten during the damage are left alone.
      if (name.startsWith("rest/") || name === DRILL || value.length === 0 || lease !== 0n) return false;
      if (space.at(name, space.revision)?.mod !== main) return false;
      found = `${name}@${main}`;
      return true;
    });
    return found;
  }

  /** Makes the members hash their data. */
  #compact(): void {
    const { clients, machineAt, machines } = this.#world;
    const leader = machineAt("leader");
    if (leader === undefined) return;
    this.#put(leader, () => {
      clients.do({ kind: "compact", target: machines().indexOf(leader), back: 0, physical: true });
    });
  }

  #put(machine: SimMachine, done: () => void): void {
    this.#world.clients.put(machine, DRILL, done);
  }

  async #writesAreRefused(): Promise<void> {
    const { clients, machines, oracle, until } = this.#world;
    let answers = 0;
    for (const machine of machines()) {
      clients.put(machine, DRILL, (ok) => {
        answers++;
        if (ok) oracle.add("alarm", `${machine.name} took a write although a member is corrupt`);
      });
    }
    await until(() => answers === machines().length, LIMIT_MS);
  }
}

const DRILL = "drill";
const DATABASE = "/data/member/snap/db";
