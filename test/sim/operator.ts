/**
 * The operator of the cluster, doing one thing at a time: replaces lost members as in etcd's operations guide: remove
 * the old member, add a new one, start it with an empty disk, and promote it if it was added as a learner. Calls with
 * unknown outcome are repeated after reading the member list.
 */
import {
  ClusterService,
  type Member,
  MemberAddRequest,
  MemberListRequest,
  MemberPromoteRequest,
  MemberRemoveRequest,
} from "../../src/proto/etcdserverpb.ts";
import type { Clients } from "./clients.ts";
import type { Method, Reply } from "./connection.ts";
import type { MaintenanceStep } from "./faults.ts";
import type { SimMachine } from "./machine.ts";
import { Maintenance, type MaintenanceWorld } from "./maintenance.ts";
import { Room } from "./room.ts";

export interface OperatorWorld extends MaintenanceWorld {
  readonly clients: Clients;
}

const TIMEOUT_MS = 12_000;
const RETRY_MS = 700;
/** A repair is abandoned after this many tries, which then shows as a cluster that does not come to rest. */
const TRIES_MAX = 400;

export class Operator {
  /** Members replaced. */
  replaced = 0;
  readonly #world: OperatorWorld;
  readonly maintenance: Maintenance;
  readonly #room: Room;
  #work: Promise<void> = Promise.resolve();
  #pending = 0;

  constructor(world: OperatorWorld) {
    this.#world = world;
    this.maintenance = new Maintenance(world);
    this.#room = new Room(world);
  }

  get isBusy(): boolean {
    return this.#pending > 0;
  }

  /** Replaces the member on a machine that is beyond repair, or declared so. */
  replace(machine: SimMachine, asLearner: boolean): void {
    this.#do(() => this.#replace(machine, asLearner));
  }

  maintain(step: MaintenanceStep): void {
    const { maintenance } = this;
    this.#do(() =>
      step.kind === "rolling" ? maintenance.rolling(step.downMs) : maintenance.downgrade(step.members, step.downMs),
    );
  }

  /** Frees the members' space and disarms the alarms. */
  makeRoom(): void {
    this.#do(() => this.#room.make());
  }

  /** Cancels a downgrade that took effect although its request seemed to fail. */
  tidy(): void {
    if (!this.maintenance.isUnsure) return;
    this.maintenance.isUnsure = false;
    this.#do(() => this.maintenance.cancel());
  }

  #do(job: () => Promise<void>): void {
    this.#pending++;
    this.#work = this.#work.then(job).finally(() => {
      this.#pending--;
    });
  }

  async #replace(machine: SimMachine, asLearner: boolean): Promise<void> {
    const { trace } = this.#world;
    const oldUrl = machine.url;
    trace(`operator: replaces ${machine.name}${asLearner ? " by a learner" : ""}`);
    await this.#untilListed(
      machine,
      (members) => !members.some(({ peerUrls }) => peerUrls.includes(oldUrl)),
      (helper, members) => {
        const { id } = members.find(({ peerUrls }) => peerUrls.includes(oldUrl))!;
        return this.#call(helper, ClusterService.MemberRemove, MemberRemoveRequest.create({ id }));
      },
    );
    machine.wipe();
    machine.renew();
    machine.version = undefined;
    const { url } = machine;
    const members = await this.#untilListed(
      machine,
      (list) => list.some(({ peerUrls }) => peerUrls.includes(url)),
      (helper) =>
        this.#call(
          helper,
          ClusterService.MemberAdd,
          MemberAddRequest.create({ peerUrls: [url], isLearner: asLearner }),
        ),
    );
    machine.startNew(
      new Map(
        members.map(({ name, peerUrls }) => [peerUrls.includes(url) ? machine.name : name || peerUrls[0]!, peerUrls]),
      ),
    );
    this.replaced++;
    // Its initial cluster must stay correct until it has joined.
    for (let tries = 0; machine.state !== "serving" && tries < TRIES_MAX; tries++) await this.#wait();
    if (!asLearner) return;
    await this.#untilListed(
      machine,
      (list) => list.some(({ peerUrls, isLearner }) => peerUrls.includes(url) && !isLearner),
      (helper, list) => {
        const { id } = list.find(({ peerUrls }) => peerUrls.includes(url))!;
        return this.#call(helper, ClusterService.MemberPromote, MemberPromoteRequest.create({ id }));
      },
    );
    trace(`operator: ${machine.name} is a voter again`);
  }

  /** Repeats the call, through any other serving member, until the member list shows its effect. */
  async #untilListed(
    machine: SimMachine,
    isDone: (members: readonly Member[]) => boolean,
    act: (helper: SimMachine, members: readonly Member[]) => Promise<Reply<unknown>>,
  ): Promise<readonly Member[]> {
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      const helpers = this.#world.machines().filter((each) => each !== machine && each.service !== undefined);
      if (helpers.length > 0) {
        const helper = this.#world.random.pick(helpers);
        const request = MemberListRequest.create({ linearizable: true });
        const list = await this.#call(helper, ClusterService.MemberList, request);
        if (list.ok) {
          const { members } = list.response;
          if (isDone(members)) return members;
          const reply = await act(helper, members);
          if (reply.ok) continue;
          this.#world.trace(`operator: ${helper.name} says: ${reply.message}`);
        }
      }
      await this.#wait();
    }
    throw new Error(`the operator gave up on ${machine.name}`);
  }

  #wait(): Promise<void> {
    return new Promise((resolve) => this.#world.side.scheduler.after(RETRY_MS, resolve));
  }

  #call<Q, R>(helper: SimMachine, method: Method<Q, R>, request: Q): Promise<Reply<R>> {
    return new Promise((resolve) => this.#world.side.call(helper.service, method, request, TIMEOUT_MS, resolve));
  }
}
