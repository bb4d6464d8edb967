/** The clients: they execute a plan's steps on members, and record what they observe. */
import {
  CompactionRequest,
  Compare,
  DefragmentRequest,
  DeleteRangeRequest,
  HashKVRequest,
  KVService,
  LeaseGrantRequest,
  LeaseKeepAliveRequest,
  LeaseRevokeRequest,
  LeaseService,
  LeaseTimeToLiveRequest,
  MaintenanceService,
  MoveLeaderRequest,
  PutRequest,
  RangeRequest,
  RequestOp,
  type ResponseHeader,
  SnapshotRequest,
  StatusRequest,
  TxnRequest,
  WatchCreateRequest,
  WatchProgressRequest,
  WatchRequest,
  type WatchResponse,
  WatchService,
} from "../../src/proto/etcdserverpb.ts";
import { Event_EventType } from "../../src/proto/mvccpb.ts";
import type { Action, Operation } from "./checkers/history.ts";
import type { LeaseLog } from "./checkers/lease.ts";
import { type Answer, deleteAnswer, kvOf, rangeAnswer, text, txnAnswer } from "./checkers/model.ts";
import type { WatchLog } from "./checkers/watch.ts";
import type { ClientSide, ClientStream, Method, Reply } from "./connection.ts";
import type { SimMachine } from "./machine.ts";
import type { ClientStep, CompareShape, OpShape, RangeShape, Target } from "./plan.ts";
import type { SimRandom } from "./random.ts";
import type { Users } from "./users.ts";

/** A client's time limit: longer than a member's. */
const TIMEOUT_MS = 12_000;
const FIRST_LEASE = 1000n;
/** Sent without a token, so that no other token is used. */
const NO_TOKEN = "";

export interface ClientWorld {
  readonly side: ClientSide;
  readonly random: SimRandom;
  /** Undefined where authentication is disabled. */
  users: Users | undefined;
  machineAt(target: Target): SimMachine | undefined;
  machines(): readonly SimMachine[];
  trace(line: string): void;
  found(checker: string, message: string): void;
}

/** A hash of a member's state, to compare with others at the same revision. */
export interface SeenHash {
  readonly machine: string;
  readonly revision: number;
  readonly compactRevision: number;
  readonly hash: number;
}

export class Clients {
  readonly operations: Operation[] = [];
  readonly watches: LiveWatch[] = [];
  readonly leases: LeaseLog[] = [];
  readonly hashes: SeenHash[] = [];
  readonly #world: ClientWorld;
  /** The largest revision reported to any client. */
  #known = 1;
  #ids = 0;

  constructor(world: ClientWorld) {
    this.#world = world;
  }

  /** A write that a member makes for a client, whose outcome the client does not learn directly. */
  note(machine: SimMachine, action: Action): Operation {
    const operation: Operation = {
      id: this.operations.length,
      client: "client",
      member: machine.name,
      action,
      invoked: this.#moment,
      returned: Number.POSITIVE_INFINITY,
      outcome: { kind: "unknown", error: "no answer yet" },
    };
    this.operations.push(operation);
    return operation;
  }

  /** Operations without an answer yet. */
  get pending(): number {
    return this.operations.filter(({ returned }) => returned === Number.POSITIVE_INFINITY).length;
  }

  do(step: ClientStep): void {
    if (step.kind === "moveLeader") this.#moveLeader(step.to);
    else if (step.kind === "progress") {
      const live = this.watches.filter(({ isLive }) => isLive);
      live[step.pick % live.length]?.requestProgress();
    } else {
      const machine = this.#world.machineAt(step.target);
      if (machine !== undefined) this.#do(step, machine);
    }
  }

  #do(step: Exclude<ClientStep, { kind: "moveLeader" | "progress" }>, machine: SimMachine): void {
    switch (step.kind) {
      case "put": {
        const value = step.ignore === "value" ? "" : this.#value();
        const request = PutRequest.create({
          key: bytes(step.key),
          value: bytes(value),
          prevKv: step.prevKv,
          ignoreValue: step.ignore === "value",
          ignoreLease: step.ignore === "lease",
          lease: step.ignore === "lease" ? 0n : this.#lease(step.lease),
        });
        this.#kv(machine, { kind: "put", request }, KVService.Put, request, (response) => ({
          kind: "put",
          prev: kvOf(response.prevKv),
        }));
        return;
      }
      case "delete": {
        const request = DeleteRangeRequest.create({
          key: bytes(step.key),
          rangeEnd: bytes(step.end),
          prevKv: step.prevKv,
        });
        this.#kv(machine, { kind: "delete", request }, KVService.DeleteRange, request, deleteAnswer);
        return;
      }
      case "range":
        this.read(machine, step.range);
        return;
      case "txn": {
        const request = TxnRequest.create({
          compare: step.compares.map((compare) => this.#compare(compare)),
          success: step.success.map((op) => this.#op(op)),
          failure: step.failure.map((op) => this.#op(op)),
        });
        this.#kv(machine, { kind: "txn", request }, KVService.Txn, request, txnAnswer);
        return;
      }
      case "compact": {
        const revision = this.#known - step.back;
        if (revision < 1) return;
        const request = CompactionRequest.create({ revision, physical: step.physical });
        this.#record(machine, { kind: "compact", revision }, KVService.Compact, request, () => undefined);
        return;
      }
      case "watch":
        this.watches.push(
          new LiveWatch(this.#world, {
            id: this.#ids++,
            key: step.key,
            end: step.end,
            prevKv: step.prevKv,
            progress: step.progress,
            filter: step.filter,
            slow: step.slow,
            startRevision: step.back === undefined ? 0 : Math.max(1, this.#known - step.back),
            forMs: step.forMs,
            machine,
          }),
        );
        return;
      case "grant":
        this.openLease(machine, step.ttl, (lease) => {
          let renewals = step.renewals;
          this.renewWhile(lease, () => renewals-- > 0);
        });
        return;
      case "revoke": {
        const lease = this.#pickLease(step.lease);
        if (lease === undefined) return;
        lease.revokeInvoked = Math.min(lease.revokeInvoked, this.#moment);
        const request = LeaseRevokeRequest.create({ id: lease.id });
        this.#other(machine, "revoke", LeaseService.LeaseRevoke, request, () => {}, lease);
        return;
      }
      case "timeToLive": {
        const lease = this.#pickLease(step.lease);
        if (lease === undefined) return;
        const invoked = this.#moment;
        const request = LeaseTimeToLiveRequest.create({ id: lease.id, keys: true });
        this.#other(machine, "timeToLive", LeaseService.LeaseTimeToLive, request, (response) => {
          if (response.ttl === -1) this.#missing(lease, invoked, `time to live at ${machine.name}`);
        });
        return;
      }
      case "hash":
        this.hash(machine, Math.max(1, this.#known - step.back));
        return;
      case "defragment":
        this.#other(machine, "defragment", MaintenanceService.Defragment, DefragmentRequest.create(), () => {});
        return;
      case "backup":
        this.#backup(machine);
        return;
      case "status":
        this.#other(machine, "status", MaintenanceService.Status, StatusRequest.create(), () => {});
        return;
    }
  }

  read(machine: SimMachine, shape: RangeShape, done: (ok: boolean) => void = () => {}): void {
    const request = RangeRequest.create({
      key: bytes(shape.key),
      rangeEnd: bytes(shape.end),
      revision: shape.back === undefined ? 0 : Math.max(1, this.#known - shape.back),
      limit: shape.limit,
      serializable: shape.serializable,
      keysOnly: shape.keysOnly,
      countOnly: shape.countOnly,
      sortOrder: shape.sort as RangeRequest["sortOrder"],
      sortTarget: shape.target as RangeRequest["sortTarget"],
      minModRevision: shape.minMod ? Math.max(1, this.#known - 10) : 0,
    });
    this.#kv(machine, { kind: "range", request }, KVService.Range, request, rangeAnswer, done);
  }

  /** A put with full permissions. */
  put(machine: SimMachine, key: string, done: (ok: boolean) => void, size = 0): void {
    const request = PutRequest.create({ key: bytes(key), value: bytes(this.#value().padEnd(size, "-")) });
    const answer = (): Answer => ({ kind: "put", prev: undefined });
    const root = this.#world.users?.root;
    this.#kv(machine, { kind: "put", request }, KVService.Put, request, answer, done, root);
  }

  hash(machine: SimMachine, revision: number): void {
    const request = HashKVRequest.create({ revision });
    this.#other(machine, "hash", MaintenanceService.HashKV, request, ({ hash, compactRevision, hashRevision }) => {
      this.hashes.push({ machine: machine.name, revision: hashRevision, compactRevision, hash });
    });
  }

  /** Requests a lease; `granted` is called with it. */
  openLease(machine: SimMachine, ttl: number, granted: (lease: LeaseLog) => void): void {
    const lease: LeaseLog = {
      id: FIRST_LEASE + BigInt(this.leases.length),
      ttl: 0,
      grantInvoked: this.#moment,
      grantInvokedMs: this.#nowMs,
      grantReturned: Number.POSITIVE_INFINITY,
      renewals: [],
      revokeInvoked: Number.POSITIVE_INFINITY,
      missing: [],
    };
    this.leases.push(lease);
    this.#other(
      machine,
      "grant",
      LeaseService.LeaseGrant,
      LeaseGrantRequest.create({ id: lease.id, ttl }),
      (response) => {
        lease.ttl = response.ttl;
        lease.grantReturned = this.#moment;
        granted(lease);
      },
    );
  }

  /** Renews a lease three times per TTL, as long as it is wanted. */
  renewWhile(lease: LeaseLog, isWanted: () => boolean): void {
    if (!isWanted()) return;
    this.#world.side.scheduler.after((lease.ttl * 1000) / 3, () => this.#renew(lease, isWanted));
  }

  #renew(lease: LeaseLog, isWanted: () => boolean): void {
    const { side, random, trace } = this.#world;
    const machine = random.pick(this.#world.machines());
    this.renewWhile(lease, isWanted);
    if (machine.service === undefined) return;
    const invoked = this.#moment;
    const invokedMs = this.#nowMs;
    trace(`lease ${lease.id}: is renewed at ${machine.name}`);
    const stream: ClientStream<LeaseKeepAliveRequest> = side.open(machine.service, LeaseService.LeaseKeepAlive, {
      message: ({ ttl }) => {
        trace(`lease ${lease.id}: renewal answered with ${ttl}`);
        if (ttl > 0) lease.renewals.push({ invokedMs, returned: this.#moment, ttl });
        else this.#missing(lease, invoked, `renewal at ${machine.name}`);
        stream.cancel();
      },
      end: (_code, message) => trace(`lease ${lease.id}: renewal failed: ${message}`),
    });
    stream.send(LeaseKeepAliveRequest.create({ id: lease.id }));
  }

  get #moment(): number {
    return this.#world.side.scheduler.moment;
  }

  get #nowMs(): number {
    return this.#world.side.scheduler.nowMs;
  }

  /** A value that no other request uses. */
  #value(): string {
    return `v${this.#ids++}`;
  }

  #pickLease(pick: number): LeaseLog | undefined {
    return this.leases.length === 0
      ? undefined
      : this.leases[this.leases.length - 1 - (pick % Math.min(6, this.leases.length))];
  }

  #lease(pick: number | undefined): bigint {
    return pick === undefined ? 0n : (this.#pickLease(pick)?.id ?? 0n);
  }

  #compare({ key, end, target, result, pick }: CompareShape): Compare {
    const revision = Math.max(0, this.#known - (pick % 20));
    const compare = Compare.create({
      key: bytes(key),
      rangeEnd: bytes(end),
      target: target as Compare["target"],
      result: result as Compare["result"],
    });
    if (target === 0) compare.version = pick % 4;
    else if (target === 1) compare.createRevision = pick % 3 === 0 ? 0 : revision;
    else if (target === 2) compare.modRevision = pick % 3 === 0 ? 0 : revision;
    else if (target === 3) compare.value = bytes(`v${pick % Math.max(1, this.#ids)}`);
    else compare.lease = this.#lease(pick);
    return compare;
  }

  #op(shape: OpShape): RequestOp {
    switch (shape.kind) {
      case "put":
        return RequestOp.create({
          requestPut: PutRequest.create({
            key: bytes(shape.key),
            value: bytes(this.#value()),
            prevKv: shape.prevKv,
            lease: this.#lease(shape.lease),
          }),
        });
      case "delete":
        return RequestOp.create({
          requestDeleteRange: DeleteRangeRequest.create({
            key: bytes(shape.key),
            rangeEnd: bytes(shape.end),
            prevKv: shape.prevKv,
          }),
        });
      case "range":
        return RequestOp.create({
          requestRange: RangeRequest.create({
            key: bytes(shape.key),
            rangeEnd: bytes(shape.end),
            revision: shape.back === undefined ? 0 : Math.max(1, this.#known - shape.back),
          }),
        });
      case "txn":
        return RequestOp.create({
          requestTxn: TxnRequest.create({
            compare: shape.compares.map((compare) => this.#compare(compare)),
            success: shape.success.map((op) => this.#op(op)),
            failure: shape.failure.map((op) => this.#op(op)),
          }),
        });
    }
  }

  #kv<Q, R extends { header: ResponseHeader | undefined }>(
    machine: SimMachine,
    action: Action,
    method: Method<Q, R>,
    request: Q,
    answer: (response: R) => Answer,
    done: (ok: boolean) => void = () => {},
    credential = this.#world.users?.pick(),
  ): void {
    this.#record(machine, action, method, request, answer, done, () => {}, credential);
  }

  #other<Q, R extends { header: ResponseHeader | undefined }>(
    machine: SimMachine,
    name: string,
    method: Method<Q, R>,
    request: Q,
    answered: (response: R) => void,
    lease?: LeaseLog,
  ): void {
    const invoked = this.#moment;
    this.#record(
      machine,
      { kind: "other", name },
      method,
      request,
      answered,
      () => {},
      (message) => {
        if (lease !== undefined && message.includes("lease not found"))
          this.#missing(lease, invoked, `${name} at ${machine.name}`);
      },
    );
  }

  #missing(lease: LeaseLog, invoked: number, by: string): void {
    lease.missing.push({ invoked, returned: this.#moment, returnedMs: this.#nowMs, by });
  }

  #record<Q, R extends { header: ResponseHeader | undefined }>(
    machine: SimMachine,
    action: Action,
    method: Method<Q, R>,
    request: Q,
    answer: (response: R) => unknown,
    done: (ok: boolean) => void = () => {},
    refused: (message: string) => void = () => {},
    credential = this.#world.users?.root,
  ): void {
    const operation = this.note(machine, action);
    if (credential !== undefined) this.#world.users?.used.push({ operation, credential });
    const name = action.kind === "other" ? action.name : action.kind;
    const by =
      credential === undefined
        ? ""
        : ` by ${credential.user} with${credential.token === undefined ? "out" : ""} a token`;
    this.#world.trace(`operation ${operation.id}: ${name} at ${machine.name}${by} ${describe(request)}`);
    const heard = (reply: Reply<R>): void => {
      operation.returned = this.#moment;
      if (reply.ok) {
        const revision = reply.response.header?.revision ?? 0;
        this.#known = Math.max(this.#known, revision);
        operation.outcome = { kind: "ok", revision, answer: answer(reply.response) };
        this.#world.trace(`operation ${operation.id}: ok at revision ${revision}`);
      } else {
        const error = reply.message;
        operation.outcome = hadNoEffect(error) ? { kind: "refused", error } : { kind: "unknown", error };
        this.#world.trace(`operation ${operation.id}: ${operation.outcome.kind}: ${error}`);
        refused(error);
      }
      done(reply.ok);
    };
    this.#world.side.call(
      machine.service,
      method,
      request,
      TIMEOUT_MS,
      heard,
      credential && (credential.token ?? NO_TOKEN),
    );
  }

  #backup(machine: SimMachine): void {
    if (machine.service === undefined) return;
    let size = 0;
    this.#world.trace(`backup of ${machine.name} begins`);
    const stream = this.#world.side.open(machine.service, MaintenanceService.Snapshot, {
      message: ({ blob }) => {
        size += blob.length;
      },
      end: (code, message) => this.#world.trace(`backup of ${machine.name} ends: ${size} bytes, ${code} ${message}`),
    });
    stream.send(SnapshotRequest.create());
  }

  #moveLeader(to: number): void {
    const leader = this.#world.machineAt("leader");
    const target = this.#world.machineAt(to)?.running;
    if (leader === undefined || target === undefined || leader.running === target) return;
    const request = MoveLeaderRequest.create({ targetId: target.parts.memberId });
    this.#other(leader, "moveLeader", MaintenanceService.MoveLeader, request, () => {});
  }
}

/** Errors after which a request certainly had no effect, and will have none. */
const NO_EFFECT = [
  "connection refused",
  "lease not found",
  "lease already exists",
  "key not found",
  "has been compacted",
  "is a future revision",
  "request is too large",
  "too many requests",
  "permission denied",
  "user name is empty",
  "invalid auth token",
  "revision of auth store is old",
];

const hadNoEffect = (error: string): boolean => NO_EFFECT.some((text) => error.includes(text));

export const bytes = (value: string): Buffer => Buffer.from(value, "latin1");

function describe(request: unknown): string {
  return JSON.stringify(request, (_, value: unknown) => {
    if (typeof value === "bigint") return `${value}`;
    const buffer = value as { type?: string; data?: number[] } | null;
    if (buffer?.type === "Buffer" && buffer.data !== undefined) return Buffer.from(buffer.data).toString("latin1");
    if (value === 0 || value === false || (Array.isArray(value) && value.length === 0)) return undefined;
    return value;
  });
}

interface WatchSettings {
  readonly id: number;
  readonly key: string;
  readonly end: string;
  readonly prevKv: boolean;
  readonly progress: boolean;
  readonly filter: "" | "put" | "delete";
  readonly slow: boolean;
  readonly startRevision: number;
  readonly forMs: number;
  readonly machine: SimMachine;
}

/** A client whose stream is often full. */
const SLOW = { readMs: 300, windowBytes: 64 };
/** Time before a broken watch tries the next member. */
const RETRY_MS = 200;

/** A watch of a correct client: when its stream breaks, it resumes at another member. */
export class LiveWatch {
  readonly log: WatchLog;
  /** When it last received events. */
  eventsMs = 0;
  readonly #world: ClientWorld;
  readonly #settings: WatchSettings;
  #stream: ClientStream<WatchRequest> | undefined;
  /** The next revision it needs; 0 while unknown. */
  #next: number;
  #closed = false;
  #streams = 0;

  constructor(world: ClientWorld, settings: WatchSettings) {
    this.#world = world;
    this.#settings = settings;
    this.#next = settings.startRevision;
    this.log = {
      id: settings.id,
      key: settings.key,
      end: settings.end,
      prevKv: settings.prevKv,
      noPut: settings.filter === "put",
      noDelete: settings.filter === "delete",
      steps: [],
    };
    world.side.scheduler.after(settings.forMs, () => this.close());
    this.#open(settings.machine);
  }

  get isLive(): boolean {
    return !this.#closed;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#stream?.cancel();
  }

  /** The cluster is at rest: events missing now will never come. */
  settled(): void {
    if (this.#next > 0 && this.isLive) this.log.steps.push({ kind: "settled", moment: this.#moment });
  }

  /** Requests progress, as clients do to know that they have seen everything. */
  requestProgress(): void {
    this.#stream?.send(WatchRequest.create({ progressRequest: WatchProgressRequest.create() }));
  }

  get #moment(): number {
    return this.#world.side.scheduler.moment;
  }

  #open(machine: SimMachine): void {
    if (this.#closed) return;
    const { side, trace } = this.#world;
    const { id, key, end, prevKv, progress, filter, slow } = this.#settings;
    if (machine.service === undefined) {
      this.#retry();
      return;
    }
    const startRevision = this.#next;
    const serial = ++this.#streams;
    // By the time of the refusal the user may have another token, which was not refused.
    const token = this.#world.users?.token();
    trace(`watch ${id}: opens at ${machine.name} from ${startRevision}`);
    const handlers = {
      message: (response: WatchResponse): void => {
        if (serial === this.#streams && !this.#closed) this.#receive(response, startRevision, token);
      },
      end: (_code: number, message: string): void => {
        trace(`watch ${id}: breaks: ${message}`);
        if (serial !== this.#streams) return;
        this.#stream = undefined;
        this.#retry();
      },
    };
    this.#stream = side.open(machine.service, WatchService.Watch, handlers, slow ? SLOW : undefined);
    this.#stream.send(
      WatchRequest.create({
        createRequest: WatchCreateRequest.create({
          key: bytes(key),
          rangeEnd: bytes(end),
          startRevision,
          prevKv,
          progressNotify: progress,
          filters: filter === "put" ? [0] : filter === "delete" ? [1] : [],
        }),
      }),
    );
  }

  #retry(): void {
    const { side, random } = this.#world;
    side.scheduler.after(RETRY_MS, () => this.#open(random.pick(this.#world.machines())));
  }

  #receive(response: WatchResponse, startRevision: number, token: string | undefined): void {
    const moment = this.#moment;
    const { steps } = this.log;
    const revision = response.header?.revision ?? 0;
    const { users } = this.#world;
    if (users !== undefined && response.canceled && response.compactRevision === 0) {
      this.#world.trace(`watch ${this.log.id}: is refused: ${response.cancelReason}`);
      users.refused(token, response.cancelReason);
      this.#streams++;
      this.#stream?.cancel();
      this.#stream = undefined;
      this.#retry();
      return;
    }
    if (response.created) {
      steps.push({ kind: "created", startRevision, revision, moment });
      if (this.#next === 0) this.#next = revision + 1;
      if (response.canceled) this.#world.found("watch", `watch ${this.log.id} was refused: ${response.cancelReason}`);
    } else if (response.compactRevision > 0) {
      steps.push({ kind: "compacted", compactRevision: response.compactRevision, moment });
      this.#next = Math.max(this.#next, response.compactRevision);
      this.#streams++;
      this.#stream?.cancel();
      this.#stream = undefined;
      this.#retry();
    } else if (response.canceled) {
      this.#world.found("watch", `watch ${this.log.id} was cancelled: ${response.cancelReason}`);
    } else if (response.events.length === 0) {
      steps.push({ kind: "progress", revision, moment });
      this.#next = Math.max(this.#next, revision + 1);
    } else {
      const events = response.events.map(({ type, kv, prevKv }) => ({
        key: text(kv!.key),
        kv: type === Event_EventType.PUT ? kvOf(kv) : undefined,
        mod: kv!.modRevision,
        prev: kvOf(prevKv),
      }));
      this.eventsMs = this.#world.side.scheduler.nowMs;
      steps.push({ kind: "events", revision, events, moment });
      this.#next = Math.max(this.#next, events.at(-1)!.mod + 1);
    }
  }
}
