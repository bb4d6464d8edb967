/**
 * The operator's actions when members are out of space, as in etcd's guide: delete, compact, defragment, disarm. Failed
 * steps are not repeated: a member that still lacks space raises the alarm again, and the operator returns.
 */
import {
  AlarmRequest_AlarmAction as Action,
  AlarmRequest,
  type AlarmResponse,
  AlarmType,
  MaintenanceService,
} from "../../src/proto/etcdserverpb.ts";
import type { Reply } from "./connection.ts";
import type { SimMachine } from "./machine.ts";
import type { OperatorWorld } from "./operator.ts";
import { FILL } from "./scenes.ts";

const TIMEOUT_MS = 12_000;
const STEP_MS = 500;

export class Room {
  readonly #world: OperatorWorld;

  constructor(world: OperatorWorld) {
    this.#world = world;
  }

  async make(): Promise<void> {
    const { clients, trace } = this.#world;
    trace("operator: makes room");
    const indexes = this.#world.machines().flatMap((machine, i) => (machine.service === undefined ? [] : [i]));
    if (indexes.length === 0) return;
    const target = this.#world.random.pick(indexes);
    clients.do({ kind: "delete", target, ...FILL, prevKv: false });
    await this.#pass();
    clients.do({ kind: "compact", target, back: 0, physical: true });
    await this.#pass();
    for (const index of indexes) clients.do({ kind: "defragment", target: index });
    await this.#pass();
    const machine = this.#world.machines()[target]!;
    const known = await this.#alarm(machine, { action: Action.GET });
    if (!known.ok) return;
    for (const { memberId, alarm } of known.response.alarms) {
      const lifted = await this.#alarm(machine, { action: Action.DEACTIVATE, memberId, alarm });
      trace(`operator: alarm of ${memberId.toString(16)} is ${lifted.ok ? "lifted" : `not lifted: ${lifted.message}`}`);
    }
  }

  #alarm(machine: SimMachine, request: Partial<AlarmRequest>): Promise<Reply<AlarmResponse>> {
    const { side } = this.#world;
    const message = AlarmRequest.create({ alarm: AlarmType.NONE, ...request });
    return new Promise((resolve) => side.call(machine.service, MaintenanceService.Alarm, message, TIMEOUT_MS, resolve));
  }

  #pass(): Promise<void> {
    return new Promise((resolve) => this.#world.side.scheduler.after(STEP_MS, resolve));
  }
}
