/**
 * Clients that contend for locks and elections, through etcd's services: each has a lease that it renews or not, and
 * holds the lock or leadership for a while before it releases it or disappears.
 */
import {
  Compare,
  DeleteRangeRequest,
  LeaseRevokeRequest,
  LeaseService,
  PutRequest,
  RangeRequest,
  RequestOp,
  TxnRequest,
} from "../../src/proto/etcdserverpb.ts";
import {
  CampaignRequest,
  ElectionService,
  LeaderKey,
  LeaderRequest,
  ProclaimRequest,
  ResignRequest,
} from "../../src/proto/v3electionpb.ts";
import { LockRequest, LockService, UnlockRequest } from "../../src/proto/v3lockpb.ts";
import type { Operation } from "./checkers/history.ts";
import type { LeaseLog } from "./checkers/lease.ts";
import { kvOf, text } from "./checkers/model.ts";
import type { CampaignLog, LeaderLog, LockLog, ObserveLog, ReleaseLog } from "./checkers/session.ts";
import { bytes, type Clients, type ClientWorld } from "./clients.ts";
import type { ClientStream } from "./connection.ts";
import type { SimMachine } from "./machine.ts";
import type { SessionStep } from "./scenes.ts";

type LockStep = Extract<SessionStep, { kind: "lock" }>;
type CampaignStep = Extract<SessionStep, { kind: "campaign" }>;

/** How long a client waits in a queue. */
const WAIT_MS = 20_000;
const CALL_MS = 12_000;
const RETRY_MS = 300;
/** TTL, in seconds, of the clients that contend after all faults have ended; they wait without limit. */
const LAST_TTL = 10;
const FOR_EVER_MS = Number.MAX_SAFE_INTEGER;

export class Sessions {
  readonly locks: LockLog[] = [];
  readonly releases: ReleaseLog[] = [];
  readonly campaigns: CampaignLog[] = [];
  readonly leaders: LeaderLog[] = [];
  readonly observers: Observer[] = [];
  readonly #world: ClientWorld;
  readonly #clients: Clients;
  readonly #names = new Map<string, LockStep["kind"] | CampaignStep["kind"]>();
  #values = 0;
  #unfinished = 0;

  constructor(world: ClientWorld, clients: Clients) {
    this.#world = world;
    this.#clients = clients;
  }

  get observes(): ObserveLog[] {
    return this.observers.flatMap(({ logs }) => logs);
  }

  do(step: SessionStep): void {
    const machine = this.#world.machineAt(step.target);
    if (machine === undefined) return;
    switch (step.kind) {
      case "lock":
        this.#names.set(step.name, step.kind);
        this.#withLease(machine, step.ttl, (session) => this.#lock(session, step, machine, WAIT_MS, () => {}));
        return;
      case "campaign":
        this.#names.set(step.name, step.kind);
        this.#withLease(machine, step.ttl, (session) => this.#campaign(session, step, machine, WAIT_MS, () => {}));
        return;
      case "leaderOf":
        this.#askLeader(step.name, machine);
        return;
      case "observe": {
        const observer = new Observer(this.#world, prefixOf(step.name), this.observers.length);
        this.observers.push(observer);
        observer.open(machine, bytes(step.name));
        this.#world.side.scheduler.after(step.forMs, () => observer.close());
        return;
      }
    }
  }

  /**
   * The faults have ended: from every member one more client requests each lock, and one more campaigns. All must get
   * their turn, whatever came before.
   */
  contendOnce(machines: readonly SimMachine[]): void {
    for (const [name, kind] of this.#names) {
      for (const machine of machines) {
        this.#unfinished++;
        const done = (): void => void this.#unfinished--;
        const step = { target: 0, name, ttl: LAST_TTL, renew: true, holdMs: 500 };
        this.#withLastLease(machine, (session) => {
          if (kind === "lock") {
            this.#lock(session, { ...step, kind, end: "unlock" }, machine, FOR_EVER_MS, done);
          } else {
            const last: CampaignStep = { ...step, kind, proclaims: 1, end: "resign" };
            this.#campaign(session, last, machine, FOR_EVER_MS, done);
          }
        });
      }
    }
  }

  /** Gets another lease when the first request is not answered. */
  #withLastLease(machine: SimMachine, then: (session: Session) => void): void {
    let state: "asked" | "granted" | "given up" = "asked";
    this.#withLease(machine, LAST_TTL, (session) => {
      if (state !== "asked") return;
      state = "granted";
      then(session);
    });
    this.#world.side.scheduler.after(CALL_MS, () => {
      if (state !== "asked") return;
      state = "given up";
      this.#withLastLease(machine, then);
    });
  }

  /** Clients that have not had their turn. */
  get unfinished(): number {
    return this.#unfinished;
  }

  /** No further events will come: what an observer has not received by now it never will. */
  settled(): void {
    for (const observer of this.observers) {
      if (!observer.isLive) continue;
      const last = this.campaigns
        .filter(({ prefix }) => prefix === observer.prefix)
        .sort((a, b) => a.rev - b.rev)
        .at(-1);
      const seen = observer.logs.at(-1)?.seen.at(-1);
      if (last === undefined || (seen !== undefined && seen.kv.create >= last.rev)) continue;
      this.#world.found("session", `observer ${observer.id} has not heard of the last leader, ${last.by}`);
    }
  }

  get #moment(): number {
    return this.#world.side.scheduler.moment;
  }

  #withLease(machine: SimMachine, ttl: number, then: (session: Session) => void): void {
    this.#clients.openLease(machine, ttl, (lease) => {
      const session = { lease, wants: true };
      then(session);
    });
  }

  #lock(session: Session, step: LockStep, machine: SimMachine, waitMs: number, done: () => void): void {
    const { lease } = session;
    const { scheduler } = this.#world.side;
    if (step.renew) this.#clients.renewWhile(lease, () => session.wants);
    const prefix = prefixOf(step.name);
    const expectedKey = keyOf(prefix, lease);
    const by = `session ${lease.id} at ${machine.name}`;
    const join = this.#note(machine, queueUp(expectedKey, lease.id, ""));
    const leave = this.#note(machine, {
      kind: "delete",
      request: DeleteRangeRequest.create({ key: bytes(expectedKey) }),
    });
    const invoked = this.#moment;
    this.#world.trace(`${by}: locks ${step.name}`);
    const request = LockRequest.create({ name: bytes(step.name), lease: lease.id });
    this.#world.side.call(machine.service, LockService.Lock, request, waitMs, (reply) => {
      join.returned = leave.returned = this.#moment;
      if (!reply.ok) {
        this.#world.trace(`${by}: has no lock: ${reply.message}`);
        if (waitMs === FOR_EVER_MS) this.#later(() => this.#lock(session, step, machine, waitMs, done));
        else session.wants = false;
        return;
      }
      leave.outcome = { kind: "refused", error: "the lock was given" };
      const { header, key } = reply.response;
      const revision = header?.revision ?? 0;
      this.#world.trace(`${by}: has the lock ${step.name} at revision ${revision}`);
      this.locks.push({ prefix, key: text(key), expectedKey, revision, invoked, returned: this.#moment, by });
      scheduler.after(step.holdMs, () => {
        session.wants = false;
        if (step.end === "unlock") this.#unlock(machine, text(key), by, done);
        else this.#leave(machine, step.end, lease, done);
      });
    });
  }

  #unlock(machine: SimMachine, key: string, by: string, done: () => void): void {
    const operation = this.#note(machine, { kind: "delete", request: DeleteRangeRequest.create({ key: bytes(key) }) });
    const request = UnlockRequest.create({ key: bytes(key) });
    this.#world.trace(`${by}: unlocks ${key}`);
    this.#world.side.call(machine.service, LockService.Unlock, request, CALL_MS, (reply) => {
      operation.returned = this.#moment;
      done();
      if (!reply.ok) return;
      const revision = reply.response.header?.revision ?? 0;
      this.releases.push({ key, revision, returned: this.#moment, by });
    });
  }

  /** Leaves without a release, or by revoking its lease. */
  #leave(machine: SimMachine, end: "abandon" | "revoke", lease: LeaseLog, done: () => void): void {
    done();
    if (end === "abandon") return;
    lease.revokeInvoked = Math.min(lease.revokeInvoked, this.#moment);
    const request = LeaseRevokeRequest.create({ id: lease.id });
    this.#world.side.call(machine.service, LeaseService.LeaseRevoke, request, CALL_MS, () => {});
  }

  #campaign(
    session: Session,
    step: CampaignStep,
    machine: SimMachine,
    waitMs: number,
    done: () => void,
    value: string = this.#value(),
  ): void {
    const { lease } = session;
    const { scheduler } = this.#world.side;
    if (step.renew) this.#clients.renewWhile(lease, () => session.wants);
    const prefix = prefixOf(step.name);
    const expectedKey = keyOf(prefix, lease);
    const by = `session ${lease.id} at ${machine.name}`;
    const join = this.#note(machine, queueUp(expectedKey, lease.id, value));
    // A client that gives up is removed from the queue, whatever the revision of its key.
    const leave = this.#note(machine, {
      kind: "delete",
      request: DeleteRangeRequest.create({ key: bytes(expectedKey) }),
    });
    const invoked = this.#moment;
    this.#world.trace(`${by}: campaigns for ${step.name} with ${value}`);
    const request = CampaignRequest.create({ name: bytes(step.name), lease: lease.id, value: bytes(value) });
    this.#world.side.call(machine.service, ElectionService.Campaign, request, waitMs, (reply) => {
      join.returned = leave.returned = this.#moment;
      if (!reply.ok) {
        this.#world.trace(`${by}: does not lead: ${reply.message}`);
        if (waitMs === FOR_EVER_MS) this.#later(() => this.#campaign(session, step, machine, waitMs, done, value));
        else session.wants = false;
        return;
      }
      leave.outcome = { kind: "refused", error: "the election was won" };
      const leader = reply.response.leader ?? LeaderKey.create();
      const key = text(leader.key);
      this.#world.trace(`${by}: leads ${step.name} since revision ${leader.rev}`);
      this.campaigns.push({ prefix, key, expectedKey, rev: leader.rev, invoked, returned: this.#moment, by });
      for (let i = 1; i <= step.proclaims; i++) {
        scheduler.after((step.holdMs * i) / (step.proclaims + 1), () => this.#proclaim(machine, leader));
      }
      scheduler.after(step.holdMs, () => {
        session.wants = false;
        if (step.end === "resign") this.#resign(machine, leader, by, done);
        else this.#leave(machine, step.end, lease, done);
      });
    });
  }

  /** An ordinary transaction and its answer. */
  #proclaim(machine: SimMachine, leader: LeaderKey): void {
    const value = this.#value();
    const request = TxnRequest.create({
      compare: [createdAt(leader.key, leader.rev)],
      success: [putOp(leader.key, value, leader.lease)],
    });
    const operation = this.#note(machine, { kind: "txn", request });
    const proclaim = ProclaimRequest.create({ leader, value: bytes(value) });
    this.#world.trace(`operation ${operation.id}: proclaims ${value} for ${text(leader.key)}`);
    this.#world.side.call(machine.service, ElectionService.Proclaim, proclaim, CALL_MS, (reply) => {
      operation.returned = this.#moment;
      if (reply.ok) {
        operation.outcome = {
          kind: "ok",
          revision: reply.response.header?.revision ?? 0,
          answer: { kind: "txn", succeeded: true, answers: [{ kind: "put", prev: undefined }] },
        };
      } else if (reply.message.includes("not leader")) operation.outcome = { kind: "refused", error: reply.message };
    });
  }

  #resign(machine: SimMachine, leader: LeaderKey, by: string, done: () => void): void {
    const remove = RequestOp.create({ requestDeleteRange: DeleteRangeRequest.create({ key: leader.key }) });
    const request = TxnRequest.create({ compare: [createdAt(leader.key, leader.rev)], success: [remove] });
    const operation = this.#note(machine, { kind: "txn", request });
    this.#world.trace(`${by}: resigns`);
    const resign = ResignRequest.create({ leader });
    this.#world.side.call(machine.service, ElectionService.Resign, resign, CALL_MS, (reply) => {
      operation.returned = this.#moment;
      done();
      if (!reply.ok) return;
      const revision = reply.response.header?.revision ?? 0;
      this.releases.push({ key: text(leader.key), revision, returned: this.#moment, by });
    });
  }

  #askLeader(name: string, machine: SimMachine): void {
    const invoked = this.#moment;
    const by = machine.name;
    this.#world.trace(`who leads ${name} is asked of ${by}`);
    const request = LeaderRequest.create({ name: bytes(name) });
    this.#world.side.call(machine.service, ElectionService.Leader, request, CALL_MS, (reply) => {
      const said = reply.ok
        ? { kv: kvOf(reply.response.kv), revision: reply.response.header?.revision ?? 0 }
        : undefined;
      if (said === undefined && (reply.ok || !reply.message.includes("no leader"))) return;
      if (!reply.ok && reply.message !== "election: no leader") return;
      const { kv, revision } = said ?? { kv: undefined, revision: 0 };
      this.leaders.push({ prefix: prefixOf(name), kv, revision, invoked, returned: this.#moment, by });
    });
  }

  /** A member that receives a snapshot instead of entries never answers their proposers. They retry. */
  #later(again: () => void): void {
    this.#world.side.scheduler.after(RETRY_MS, again);
  }

  /** The server's actions for the client are recorded as the client's requests. */
  #note(machine: SimMachine, action: Operation["action"]): Operation {
    return this.#clients.note(machine, action);
  }

  #value(): string {
    return `s${this.#values++}`;
  }
}

interface Session {
  readonly lease: LeaseLog;
  /** It still wants what it requested or holds. */
  wants: boolean;
}

/** Observes an election, at the next member when a stream breaks; each stream has its own log. */
class Observer {
  readonly logs: ObserveLog[] = [];
  readonly prefix: string;
  readonly id: number;
  readonly #world: ClientWorld;
  #stream: ClientStream<LeaderRequest> | undefined;
  #closed = false;

  constructor(world: ClientWorld, prefix: string, id: number) {
    this.#world = world;
    this.prefix = prefix;
    this.id = id;
  }

  get isLive(): boolean {
    return !this.#closed;
  }

  open(machine: SimMachine, name: Uint8Array): void {
    const { side, trace, random } = this.#world;
    if (this.#closed) return;
    const again = (): void =>
      void side.scheduler.after(RETRY_MS, () => this.open(random.pick(this.#world.machines()), name));
    if (machine.service === undefined) {
      again();
      return;
    }
    const by = `observer ${this.id} at ${machine.name}`;
    trace(`${by}: opens`);
    const log: ObserveLog = { prefix: this.prefix, by, seen: [] };
    this.logs.push(log);
    this.#stream = side.open(machine.service, ElectionService.Observe, {
      message: ({ kv, header }) => {
        const seen = { kv: kvOf(kv)!, revision: header?.revision ?? 0, moment: side.scheduler.moment };
        trace(`${by}: ${seen.kv.key}=${seen.kv.value} leads at revision ${seen.revision}`);
        if (!this.#closed) log.seen.push(seen);
      },
      end: (_code, message) => {
        trace(`${by}: breaks: ${message}`);
        again();
      },
    });
    this.#stream.send(LeaderRequest.create({ name }));
  }

  close(): void {
    this.#closed = true;
    this.#stream?.cancel();
  }
}

const prefixOf = (name: string): string => `${name}/`;

const keyOf = (prefix: string, { id }: LeaseLog): string => `${prefix}${id.toString(16)}`;

const createdAt = (key: Uint8Array, createRevision: number): Compare =>
  Compare.create({ key, target: 1, result: 0, createRevision });

const putOp = (key: Uint8Array, value: string, lease: bigint): RequestOp =>
  RequestOp.create({ requestPut: PutRequest.create({ key, value: bytes(value), lease }) });

/** The transaction with which both services begin; its other reads do not matter here. */
function queueUp(key: string, lease: bigint, value: string): Operation["action"] {
  const request = TxnRequest.create({
    compare: [createdAt(bytes(key), 0)],
    success: [putOp(bytes(key), value, lease)],
    failure: [RequestOp.create({ requestRange: RangeRequest.create({ key: bytes(key) }) })],
  });
  return { kind: "txn", request };
}
