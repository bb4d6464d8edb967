/**
 * An operator's maintenance of a healthy cluster, while faults happen all the same: a rolling restart, in order and
 * waiting for each member to be healthy; and a downgrade by one version followed by an upgrade, or cancelled halfway.
 * As in etcd's guides: validate, enable, replace the servers one by one, and upgrade in the same way.
 */

import { ETCD_VERSION } from "../../src/base/versions.ts";
import {
  DowngradeRequest_DowngradeAction as Action,
  DowngradeRequest,
  MaintenanceService,
} from "../../src/proto/etcdserverpb.ts";
import type { ClientSide, Reply } from "./connection.ts";
import type { SimMachine } from "./machine.ts";
import type { SimRandom } from "./random.ts";

export interface MaintenanceWorld {
  readonly side: ClientSide;
  readonly random: SimRandom;
  machines(): readonly SimMachine[];
  trace(line: string): void;
}

/** The version below: its log and state are the same. */
export const LOWER_VERSION = "3.6.13";
const LOWER_CLUSTER_VERSION = "3.6.0";

const TIMEOUT_MS = 8000;
const LOOK_MS = 200;
/** How long the operator waits for a healthy state before it continues or gives up. */
const PATIENCE_MS = 15_000;

export class Maintenance {
  /** Members restarted in order. */
  restarted = 0;
  downgrades = 0;
  /** A request to enable a downgrade had an unknown outcome: it may take effect much later. */
  isUnsure = false;
  readonly #world: MaintenanceWorld;

  constructor(world: MaintenanceWorld) {
    this.#world = world;
  }

  /** Restarts all members with their current version. */
  async rolling(downMs: number): Promise<void> {
    this.#world.trace("operator: restarts all members, one after the other");
    for (const machine of this.#world.machines()) await this.#restart(machine, machine.version, downMs);
  }

  /** Downgrades this many members (possibly all) and then returns all to this version. */
  async downgrade(members: number, downMs: number): Promise<void> {
    const { trace } = this.#world;
    trace(`operator: downgrades ${members} members`);
    if (await this.#enable()) {
      this.downgrades++;
      for (const machine of this.#world.machines().slice(0, members)) {
        // A server of the version below refuses a cluster of this one.
        const isReady = await this.#until(() => this.#isAllowed(machine));
        if (!isReady) break;
        await this.#restart(machine, LOWER_VERSION, downMs);
      }
      if (members >= this.#world.machines().length) await this.#until(() => this.#isOver());
    }
    trace("operator: ends the downgrade and brings all members back");
    await this.cancel();
    for (const machine of this.#world.machines()) {
      if (machine.version !== undefined) await this.#restart(machine, undefined, downMs);
    }
  }

  async #enable(): Promise<boolean> {
    for (const action of [Action.VALIDATE, Action.ENABLE]) {
      for (let tries = 0; ; tries++) {
        const reply = await this.#ask(action);
        if (reply?.ok === true) break;
        if (action === Action.ENABLE) this.isUnsure = true;
        if (reply !== undefined) this.#world.trace(`operator: downgrade: ${reply.message}`);
        // A request that timed out may have taken effect.
        if (action === Action.ENABLE && reply?.ok === false && reply.message.includes("in progress")) break;
        if (tries === 5) return false;
        await this.#pass(1000);
      }
    }
    return true;
  }

  /** Until no member reports a downgrade: as in etcd, the answer is the same when it could not be cancelled. */
  async cancel(): Promise<void> {
    for (let tries = 0; tries < 60; tries++) {
      const reply = await this.#ask(Action.CANCEL);
      if (reply?.ok === true && this.#isOver()) return;
      await this.#pass(1000);
    }
    throw new Error("the operator could not cancel the downgrade");
  }

  #isAllowed({ service }: SimMachine): boolean {
    if (service === undefined) return false;
    const { version, downgrade } = service.server.cluster;
    return downgrade.enabled && version === LOWER_CLUSTER_VERSION;
  }

  #isOver(): boolean {
    const serving = this.#world.machines().flatMap(({ service }) => service ?? []);
    const isMajority = serving.length > this.#world.machines().length / 2;
    return isMajority && serving.every(({ server }) => !server.cluster.downgrade.enabled);
  }

  async #restart(machine: SimMachine, version: string | undefined, downMs: number): Promise<void> {
    const { process } = machine;
    // It may be killed while it stops, or never finish.
    void machine.stop();
    if (!(await this.#until(() => process?.alive !== true))) machine.kill();
    machine.version = version;
    await this.#pass(downMs);
    machine.start();
    this.restarted++;
    const { trace } = this.#world;
    const isWell = await this.#until(
      () => machine.service !== undefined && machine.service.server.replication.leader !== 0n,
    );
    trace(`operator: ${machine.name} as ${version ?? ETCD_VERSION} is ${isWell ? "healthy" : "not healthy yet"}`);
  }

  #ask(action: DowngradeRequest["action"]): Promise<Reply<unknown> | undefined> {
    const { machines, random, side } = this.#world;
    const serving = machines().filter(({ service }) => service !== undefined);
    if (serving.length === 0) return Promise.resolve(undefined);
    const { service } = random.pick(serving);
    const request = DowngradeRequest.create({ action, version: "3.6" });
    return new Promise((resolve) => side.call(service, MaintenanceService.Downgrade, request, TIMEOUT_MS, resolve));
  }

  async #until(isTrue: () => boolean): Promise<boolean> {
    for (let waitedMs = 0; waitedMs < PATIENCE_MS; waitedMs += LOOK_MS) {
      if (isTrue()) return true;
      await this.#pass(LOOK_MS);
    }
    return isTrue();
  }

  #pass(ms: number): Promise<void> {
    return new Promise((resolve) => this.#world.side.scheduler.after(ms, resolve));
  }
}
