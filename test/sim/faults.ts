/** The faults of a plan: how each begins and ends. */

import { ClusterConfigError } from "../../src/membership/initial.ts";
import { ServerTooOldError } from "../../src/membership/version-rules.ts";
import type { SimMachine } from "./machine.ts";
import { FAIR, type SimNetwork, type Weather } from "./network.ts";
import type { FaultStep, Target } from "./plan.ts";
import type { SimRandom } from "./random.ts";
import { Rot, type RotStep } from "./rot.ts";
import type { Scheduler } from "./scheduler.ts";

export interface FaultWorld {
  readonly scheduler: Scheduler;
  readonly network: SimNetwork;
  trace(line: string): void;
  found(checker: string, message: string): void;
  machines(): readonly SimMachine[];
  machineAt(target: Target): SimMachine | undefined;
  readonly isReplacing: boolean;
  /** Lets the operator restart all members, or downgrade and upgrade them. */
  maintain(step: MaintenanceStep): void;
  /** Lets the operator replace this member by a new one. */
  replace(machine: SimMachine, asLearner: boolean): void;
}

export type MaintenanceStep = Extract<FaultStep, { kind: "rolling" | "downgrade" }>;

const SYNC_MAX_MS = 2;

export class Faults {
  readonly #world: FaultWorld;
  readonly #random: SimRandom;
  /** Machines with injected disk faults: they may stop because of them. */
  readonly #diskFaults = new Set<SimMachine>();
  readonly #rot: Rot;
  #over = false;

  constructor(world: FaultWorld, random: SimRandom) {
    this.#world = world;
    this.#random = random;
    this.#rot = new Rot(random, (message) => world.found("damage", message));
  }

  starting(machine: SimMachine): void {
    this.#rot.starting(machine);
  }

  started(machine: SimMachine): void {
    this.#rot.started(machine);
  }

  /** Whether files of the machine may be damaged. */
  hasDamaged(machine: SimMachine): boolean {
    return this.#rot.isDamaged(machine);
  }

  /** The machine whose damaged disk explains the error. */
  damagedMachine(error: string): SimMachine | undefined {
    return this.#world
      .machines()
      .find((machine) => machine.process?.alive === true && this.#rot.explains(machine, error));
  }

  /** True when a fault of this plan explains that the member stopped. */
  excuses(machine: SimMachine, error: unknown): boolean {
    const text = describe(error);
    // A joining member asks the others for the members, and retries when they cannot answer or lag behind.
    if (!machine.newCluster && error instanceof ClusterConfigError) return true;
    if (machine.version !== undefined && error instanceof ServerTooOldError) {
      // Its process ended before it had stored the cluster's downgrade: the operator restores this version.
      machine.version = undefined;
      return true;
    }
    // A member removed while it was down; the operator is about to add another.
    if (text.includes("has been permanently removed from the cluster")) return true;
    const isDiskFault = this.#diskFaults.has(machine);
    if (isDiskFault && /ENOSPC|EIO|no space|WAL_FAILED/.test(text)) return true;
    if (!this.#rot.explains(machine, text)) return isDiskFault && text.includes("WAL_");
    this.#world.trace(`operator: ${machine.name} has a damaged disk`);
    this.#replace(machine, true, this.#random.chance(0.5));
    return true;
  }

  /** Ends all faults. */
  end(): void {
    this.#over = true;
    for (const machine of this.#world.machines()) this.#healDisk(machine);
    // Damage not read yet would only show long after this.
    if (this.#rot.unread !== undefined) this.#restart(this.#rot.unread);
  }

  do(step: FaultStep): void {
    const world = this.#world;
    if (step.kind === "powerAll") {
      this.#note(step.kind, `all for ${step.downMs} ms`);
      for (const machine of world.machines()) this.#down(machine, step.downMs, () => machine.losePower());
      return;
    }
    if (step.kind === "rolling" || step.kind === "downgrade") {
      if (world.isReplacing) return;
      this.#note(step.kind, JSON.stringify(step));
      world.maintain(step);
      return;
    }
    if (step.kind === "weather") {
      this.#note("weather", JSON.stringify(step.weather));
      this.#weather(step.weather, step.forMs);
      return;
    }
    if (step.kind === "split") {
      const inside = world.machines().filter((_, i) => (step.mask >> i) & 1);
      const outside = world.machines().filter((_, i) => !((step.mask >> i) & 1));
      this.#note("split", `${names(inside)} from ${names(outside)} for ${step.forMs} ms`);
      for (const a of inside) for (const b of outside) this.#cutBoth(a, b, step.forMs);
      return;
    }
    if (step.kind === "link") {
      const [from, to] = [world.machineAt(step.from), world.machineAt(step.to)];
      if (from === undefined || to === undefined || from === to) return;
      this.#note("link", `${from.name} to ${to.name} for ${step.forMs} ms`);
      this.#cut(from, to, step.forMs);
      return;
    }
    const machine = world.machineAt(step.target);
    if (machine === undefined) return;
    switch (step.kind) {
      case "kill":
        this.#note(step.kind, `${machine.name} for ${step.downMs} ms`);
        this.#down(machine, step.downMs, () => machine.kill());
        return;
      case "power":
        this.#note(step.kind, `${machine.name} for ${step.downMs} ms`);
        this.#down(machine, step.downMs, () => machine.losePower());
        return;
      case "stop":
        this.#note(step.kind, `${machine.name} for ${step.downMs} ms`);
        void machine.stop().then(() => this.#startLater(machine, step.downMs));
        return;
      case "pause":
        this.#note(step.kind, `${machine.name} for ${step.forMs} ms`);
        machine.pause(step.forMs);
        return;
      case "isolate":
        this.#note(step.kind, `${machine.name}, ${step.direction}, for ${step.forMs} ms`);
        for (const other of world.machines()) {
          if (other === machine) continue;
          if (step.direction !== "in") this.#cut(machine, other, step.forMs);
          if (step.direction !== "out") this.#cut(other, machine, step.forMs);
        }
        return;
      case "clock":
        this.#note(step.kind, `${machine.name} jumps by ${step.byMs} ms`);
        machine.wall.wallOffsetMs += step.byMs;
        return;
      case "slowDisk":
        this.#note(step.kind, `${machine.name}, up to ${step.syncMaxMs} ms, for ${step.forMs} ms`);
        machine.mood.syncMaxMs = step.syncMaxMs;
        world.scheduler.after(step.forMs, () => {
          machine.mood.syncMaxMs = SYNC_MAX_MS;
        });
        return;
      case "fullDisk":
        this.#note(step.kind, `${machine.name} for ${step.forMs} ms`);
        this.#diskFaults.add(machine);
        machine.disk.capacityBytes = 0;
        world.scheduler.after(step.forMs, () => this.#healDisk(machine));
        return;
      case "failSync": {
        this.#note(step.kind, machine.name);
        this.#diskFaults.add(machine);
        const { disk } = machine;
        disk.fault = (operation) => {
          if (operation !== "sync") return undefined;
          disk.fault = undefined;
          return "EIO";
        };
        return;
      }
      case "replace":
        // If two are lost at a time, the second may hold data that only a majority with it can have.
        if (world.isReplacing || this.#rot.isPending) return;
        this.#note(step.kind, machine.name);
        this.#replace(machine, step.lost, step.asLearner);
        return;
      case "rot":
        this.#damage(machine, step);
        return;
    }
  }

  /** The disk is lost before the member is removed from the cluster, or only then. */
  #replace(machine: SimMachine, isLost: boolean, asLearner: boolean): void {
    if (isLost) machine.wipe();
    this.#rot.replaced(machine);
    this.#world.replace(machine, asLearner);
  }

  #damage(machine: SimMachine, step: RotStep): void {
    const world = this.#world;
    if (world.isReplacing || this.#rot.isPending) return;
    const where = this.#rot.damage(machine, step);
    if (where === undefined) return;
    this.#note(step.kind, `${machine.name}, ${where}`);
    if (this.#rot.isUrgent) this.#restart(machine);
    else {
      world.scheduler.after(step.afterMs, () => {
        if (this.#rot.unread === machine) this.#restart(machine);
      });
    }
  }

  #restart(machine: SimMachine): void {
    if (machine.state !== "off" && machine.state !== "failed") machine.kill();
    machine.start();
  }

  #healDisk(machine: SimMachine): void {
    machine.disk.capacityBytes = Number.POSITIVE_INFINITY;
    machine.disk.fault = undefined;
    machine.mood.syncMaxMs = SYNC_MAX_MS;
  }

  #down(machine: SimMachine, downMs: number, end: () => void): void {
    if (machine.state === "off") return;
    end();
    this.#startLater(machine, downMs);
  }

  #startLater(machine: SimMachine, downMs: number): void {
    this.#world.scheduler.after(downMs, () => machine.start());
  }

  #cut(from: SimMachine, to: SimMachine, forMs: number): void {
    const { network, scheduler } = this.#world;
    network.cut(from.name, to.name);
    scheduler.after(forMs + this.#random.below(100), () => network.mend(from.name, to.name));
  }

  #cutBoth(a: SimMachine, b: SimMachine, forMs: number): void {
    this.#cut(a, b, forMs);
    this.#cut(b, a, forMs);
  }

  #weather(weather: Weather, forMs: number): void {
    const { network, scheduler } = this.#world;
    const before = network.weather;
    network.weather = weather;
    scheduler.after(forMs, () => {
      network.weather = this.#over ? FAIR : before;
    });
  }

  #note(kind: string, what: string): void {
    this.#world.trace(`FAULT ${kind}: ${what}`);
  }
}

const names = (machines: readonly SimMachine[]): string => machines.map(({ name }) => name).join("+") || "nobody";

function describe(error: unknown): string {
  const { message, code, cause } = error as { message?: string; code?: string; cause?: unknown };
  return `${code} ${message}${cause === undefined ? "" : ` ${describe(cause)}`}`;
}
