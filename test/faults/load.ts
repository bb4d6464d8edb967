/**
 * Clients of a real cluster, at a bounded rate: some bound to each member, some that switch when theirs fails, watches,
 * and leases. They do not wait for one another, so an outage shows in full.
 */
import { randomInt } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { RpcError } from "../../src/client/raw.ts";
import {
  Compare,
  Compare_CompareResult as CompareResult,
  Compare_CompareTarget as CompareTarget,
  DeleteRangeRequest,
  KVService,
  LeaseGrantRequest,
  LeaseKeepAliveRequest,
  LeaseLeasesRequest,
  LeaseRevokeRequest,
  LeaseService,
  PutRequest,
  RangeRequest,
  RequestOp,
  TxnRequest,
} from "../../src/proto/etcdserverpb.ts";
import type { LeaseLog } from "../sim/checkers/lease.ts";
import { deleteAnswer, kvOf, rangeAnswer, txnAnswer } from "../sim/checkers/model.ts";
import type { History, Observed } from "./history.ts";
import { Recorder, type Target } from "./recorder.ts";
import { Watcher } from "./watcher.ts";

export interface LoadSettings {
  /** Requests per second at each member. */
  readonly rate?: number;
  /** Bytes of a value beyond its number. */
  readonly valueSize?: number;
  /** Clients that hold a lease at any time. */
  readonly leaseClients?: number;
  /** Above the numbers of an earlier load on the same data; values must not repeat. */
  readonly firstId?: number;
}

/** Requests at one member that may be waiting for an answer. */
const WAITING_MAX = 400;
const KEYS = 20;
const FIRST_LEASE = 7_000_000n;
/** TTL of a lease, in seconds, or one more. */
const TTL_MIN = 2;
const KEEPALIVE_MS = 3_000;
const REST_MS = 30_000;
const ASK = { timeoutMs: 5_000 };

export class Load {
  readonly recorder: Recorder;
  readonly #settings: Required<LoadSettings>;
  readonly #targets = new Map<string, Target>();
  readonly #observers = new Map<string, Watcher>();
  readonly #gone: Observed[] = [];
  readonly #watchers: Watcher[] = [];
  readonly #timers = new Map<string, NodeJS.Timeout>();
  readonly #waiting = new Map<string, number>();
  readonly #padding: string;
  #leaseClients: Promise<void>[] = [];
  #stopping = false;
  readonly #stopped = new AbortController();

  constructor(settings: LoadSettings = {}) {
    this.#settings = { rate: 40, valueSize: 0, leaseClients: 3, firstId: 0, ...settings };
    this.recorder = new Recorder(this.#settings.firstId);
    this.#padding = ".".repeat(this.#settings.valueSize);
  }

  start(targets: readonly Target[]): void {
    for (const target of targets) this.attach(target);
    const all = { key: "\0", end: "\0" };
    const some = { key: "k05", end: "k15" };
    for (const range of [all, all, some, some]) {
      this.#watch({ ...range, prevKv: range === all, startRevision: 0 });
    }
    this.#watch({ ...some, prevKv: true, startRevision: 1, breakMs: 1_700 });
    this.#watch({ ...all, prevKv: false, startRevision: 0, breakMs: 900 });
    this.#leaseClients = Array.from({ length: this.#settings.leaseClients }, () => this.#holdLeases());
    this.#roam();
  }

  /** Starts using a member. */
  attach(target: Target): void {
    const { name } = target;
    this.#targets.set(name, target);
    if (!this.#observers.has(name)) {
      const settings = { key: "\0", end: "\0", prevKv: false, startRevision: 1, target: () => this.#targets.get(name) };
      this.#observers.set(name, new Watcher(this.recorder, settings));
    }
    this.#timers.set(
      name,
      setInterval(() => this.#request("bound", name), 1000 / this.#settings.rate),
    );
  }

  /** A member that will not return. What it reported stays in the history. */
  async detach(name: string): Promise<void> {
    clearInterval(this.#timers.get(name));
    this.#timers.delete(name);
    this.#targets.delete(name);
    const observer = this.#observers.get(name);
    this.#observers.delete(name);
    if (observer === undefined) return;
    await observer.close();
    this.#gone.push({ member: name, log: observer.log });
  }

  /** Stops the requests and waits for the last answers; watches continue. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#stopped.abort();
    for (const timer of this.#timers.values()) clearInterval(timer);
    this.#timers.clear();
    await Promise.all(this.#leaseClients);
    while (this.recorder.pending > 0) await sleep(20);
  }

  /** After stop: waits until all watches are up to date and all leases have ended, and returns what is not. */
  async finish(): Promise<{ history: History; problems: string[] }> {
    const { recorder } = this;
    const leasesLeft = await this.#outliveLeases();
    // A request without an answer has had its effect, if any, once two reads agree on the revision.
    let revision = 0;
    for (let last = -1; last !== revision; await sleep(200)) {
      last = revision;
      await Promise.all([...this.#targets.values()].map((target) => this.#range("settling", target, false)));
      revision = recorder.known;
    }
    const watchers = [...this.#watchers, ...this.#observers.values()];
    const problems = await Promise.all(watchers.map((watcher) => watcher.settle(revision, REST_MS)));
    await Promise.all(watchers.map((watcher) => watcher.close()));
    const observed = [...this.#observers].map(([member, { log }]) => ({ member, log }));
    const history: History = {
      operations: recorder.operations,
      watches: this.#watchers.map(({ log }) => log),
      observed: [...observed, ...this.#gone],
      leases: recorder.leases,
      leasesLeft,
      endMs: recorder.now,
    };
    return { history, problems: problems.filter((problem) => problem !== undefined) };
  }

  async close(): Promise<void> {
    for (const timer of this.#timers.values()) clearInterval(timer);
    this.#stopping = true;
    await Promise.all([...this.#watchers, ...this.#observers.values()].map((watcher) => watcher.close()));
  }

  get #someone(): Target | undefined {
    const targets = [...this.#targets.values()];
    return targets[randomInt(Math.max(1, targets.length))];
  }

  #watch(settings: { key: string; end: string; prevKv: boolean; startRevision: number; breakMs?: number }): void {
    this.#watchers.push(new Watcher(this.recorder, { ...settings, target: () => this.#someone }));
  }

  /** A client that stays at its member as long as it gets answers. */
  #roam(): void {
    let name = this.#someone?.name;
    const timer = setInterval(async () => {
      if (name === undefined || !this.#targets.has(name)) name = this.#someone?.name;
      const asked = name;
      if (asked !== undefined && (await this.#request("roaming", asked)) instanceof RpcError && name === asked)
        name = this.#someone?.name;
    }, 2000 / this.#settings.rate);
    this.#timers.set("", timer);
  }

  async #request(client: string, name: string): Promise<unknown> {
    const target = this.#targets.get(name);
    const waiting = this.#waiting.get(name) ?? 0;
    if (target === undefined || waiting >= WAITING_MAX) return undefined;
    this.#waiting.set(name, waiting + 1);
    try {
      return await this.#one(client, target);
    } finally {
      this.#waiting.set(name, this.#waiting.get(name)! - 1);
    }
  }

  #one(client: string, target: Target): Promise<unknown> {
    const pick = randomInt(100);
    if (pick < 30) {
      const request = this.#put(randomInt(2) === 0);
      return this.recorder.call(client, target, { kind: "put", request }, KVService.Put, request, ({ prevKv }) => ({
        kind: "put",
        prev: kvOf(prevKv),
      }));
    }
    if (pick < 38) {
      const request = this.#delete();
      const action = { kind: "delete", request } as const;
      return this.recorder.call(client, target, action, KVService.DeleteRange, request, deleteAnswer);
    }
    if (pick < 55) {
      const request = this.#txn();
      return this.recorder.call(client, target, { kind: "txn", request }, KVService.Txn, request, txnAnswer);
    }
    return this.#range(client, target, pick >= 85);
  }

  #put(prevKv: boolean): PutRequest {
    return PutRequest.create({ key: key(), value: Buffer.from(`v${this.recorder.next()}${this.#padding}`), prevKv });
  }

  #delete(): DeleteRangeRequest {
    const at = randomInt(KEYS);
    const rangeEnd = randomInt(4) === 0 ? keyAt(at + 3) : Buffer.alloc(0);
    return DeleteRangeRequest.create({ key: keyAt(at), rangeEnd, prevKv: randomInt(2) === 0 });
  }

  #txn(): TxnRequest {
    const at = randomInt(KEYS);
    const compare = Compare.create({
      key: keyAt(at),
      target: CompareTarget.MOD,
      result: [CompareResult.EQUAL, CompareResult.LESS, CompareResult.GREATER][randomInt(3)]!,
    });
    if (randomInt(2) === 0)
      compare.modRevision = randomInt(3) === 0 ? 0 : Math.max(0, this.recorder.known - randomInt(60));
    else {
      compare.target = CompareTarget.VERSION;
      compare.version = randomInt(5);
    }
    const get = (): RequestOp => RequestOp.create({ requestRange: RangeRequest.create({ key: keyAt(at) }) });
    const set = (): RequestOp => RequestOp.create({ requestPut: this.#put(true) });
    const unset = (): RequestOp =>
      RequestOp.create({ requestDeleteRange: DeleteRangeRequest.create({ key: keyAt(at), prevKv: true }) });
    const put = RequestOp.create({ requestPut: { ...this.#put(false), key: keyAt(at) } });
    return TxnRequest.create({
      compare: [compare],
      success: [put, get(), ...(randomInt(3) === 0 ? otherThan(at, set()) : [])],
      failure: randomInt(2) === 0 ? [get()] : [unset(), get()],
    });
  }

  #range(client: string, target: Target, serializable: boolean): Promise<unknown> {
    const all = randomInt(4) === 0;
    const request = RangeRequest.create({
      key: all ? Buffer.from([0]) : key(),
      rangeEnd: all ? Buffer.from([0]) : Buffer.alloc(0),
      serializable,
      limit: all && randomInt(2) === 0 ? 5 : 0,
    });
    return this.recorder.call(client, target, { kind: "range", request }, KVService.Range, request, rangeAnswer);
  }

  /** Grants a lease, attaches a key, renews it several times, and then revokes it or lets it expire. */
  async #holdLeases(): Promise<void> {
    const { recorder } = this;
    while (!this.#stopping) {
      const target = this.#someone;
      if (target === undefined) {
        await sleep(100);
        continue;
      }
      const ttl = TTL_MIN + randomInt(2);
      const lease: LeaseLog = {
        id: FIRST_LEASE + BigInt(recorder.next()),
        ttl: 0,
        grantInvoked: recorder.now,
        grantInvokedMs: recorder.now,
        grantReturned: Number.POSITIVE_INFINITY,
        renewals: [],
        revokeInvoked: Number.POSITIVE_INFINITY,
        missing: [],
      };
      recorder.leases.push(lease);
      const request = LeaseGrantRequest.create({ id: lease.id, ttl });
      const grant = { kind: "other", name: "grant" } as const;
      const granted = await recorder.call("leases", target, grant, LeaseService.LeaseGrant, request, () => undefined);
      if (granted instanceof RpcError) {
        await sleep(200);
        continue;
      }
      lease.ttl = granted.ttl;
      lease.grantReturned = recorder.now;
      await this.#useLease(lease);
    }
  }

  async #useLease(lease: LeaseLog): Promise<void> {
    const { recorder } = this;
    const put = PutRequest.create({
      key: Buffer.from(`lease/${lease.id}`),
      value: Buffer.from(`v${recorder.next()}`),
      lease: lease.id,
    });
    const invoked = recorder.now;
    const target = this.#someone;
    if (target === undefined) return;
    const answer = await recorder.call("leases", target, { kind: "put", request: put }, KVService.Put, put, () => ({
      kind: "put",
      prev: undefined,
    }));
    if (answer instanceof RpcError && answer.details.includes("lease not found"))
      this.#missing(lease, invoked, `a put at ${target.name}`);
    for (let renewals = randomInt(5); renewals > 0 && !this.#stopping; renewals--) {
      await this.#rest((lease.ttl * 1000) / 3);
      const at = this.#someone;
      if (at !== undefined) await this.#renew(lease, at);
    }
    if (randomInt(3) === 0 && this.#someone !== undefined) {
      lease.revokeInvoked = recorder.now;
      const revoke = { kind: "other", name: "revoke" } as const;
      const request = LeaseRevokeRequest.create({ id: lease.id });
      await recorder.call("leases", this.#someone, revoke, LeaseService.LeaseRevoke, request, () => undefined);
    } else await this.#rest(lease.ttl * 1000);
  }

  /** Sleeps, but not beyond stop. */
  async #rest(ms: number): Promise<void> {
    await sleep(ms, undefined, { signal: this.#stopped.signal }).catch(() => {});
  }

  async #renew(lease: LeaseLog, target: Target): Promise<void> {
    const { recorder } = this;
    const invoked = recorder.now;
    const stream = target.client.stream(LeaseService.LeaseKeepAlive, { timeoutMs: KEEPALIVE_MS });
    stream.send(LeaseKeepAliveRequest.create({ id: lease.id })).catch(() => {});
    try {
      for await (const { ttl } of stream) {
        if (ttl > 0) lease.renewals.push({ invokedMs: invoked, returned: recorder.now, ttl });
        else this.#missing(lease, invoked, `a renewal at ${target.name}`);
        return;
      }
    } catch (error) {
      if (!(error instanceof RpcError)) throw error;
    }
  }

  #missing(lease: LeaseLog, invoked: number, by: string): void {
    lease.missing.push({ invoked, returned: this.recorder.now, returnedMs: this.recorder.now, by });
  }

  /** Renewals have stopped, so all leases end. Returns those that have not, within the time limit. */
  async #outliveLeases(): Promise<{ id: bigint; member: string }[]> {
    const deadline = this.recorder.now + 2 * REST_MS;
    for (;;) {
      const left = await Promise.all(
        [...this.#targets.values()].map(async ({ name, client }) => {
          // 0 for a member that does not answer; it is asked again.
          const leases = await client.unary(LeaseService.LeaseLeases, LeaseLeasesRequest.create(), ASK).then(
            (response) => response.leases.map(({ id }) => id),
            () => [0n],
          );
          return leases.map((id) => ({ id, member: name }));
        }),
      );
      if (left.flat().length === 0 || this.recorder.now > deadline) return left.flat();
      await sleep(100);
    }
  }
}

const keyAt = (at: number): Buffer => Buffer.from(`k${String(at).padStart(2, "0")}`);
const key = (): Buffer => keyAt(randomInt(KEYS));

/** A transaction must not put a key twice. */
const otherThan = (at: number, op: RequestOp): RequestOp[] =>
  keyAt(at).equals(Buffer.from(op.requestPut!.key)) ? [] : [op];
