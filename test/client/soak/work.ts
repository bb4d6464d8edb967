/** What the clients of a soak do while members fail, and the guarantees that are checked meanwhile. */
import { setMaxListeners } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { type Claim, Client, LeaseLostError, Mirror, op, RpcError } from "../../../src/client/index.ts";
import type { SeededRandom } from "../../harness/random.ts";
import type { Findings } from "./findings.ts";
import { Ledger } from "./ledger.ts";

const WRITERS = 3;
const KEYS = 40;
const CONTENDERS = 3;
const CALL_MS = 8000;
const TTL_S = 4;

export class Work {
  readonly #findings: Findings;
  readonly #random: SeededRandom;
  readonly #stop = new AbortController();
  readonly #clients: Client[] = [];
  readonly #running: Promise<void>[] = [];
  readonly #ledger: Ledger;
  readonly #seenRevisions = new Map<string, number>();
  #counted = { acknowledged: 0, unsure: 0 };
  #endpoints: readonly string[];
  #isWriting = true;
  #lastWriteMs = performance.now();
  /** The longest time without an acknowledged write of anybody. */
  gapMs = 0;

  constructor(endpoints: readonly string[], random: SeededRandom, findings: Findings) {
    this.#endpoints = endpoints;
    this.#random = random;
    this.#findings = findings;
    this.#ledger = new Ledger(findings, WATCHERS.length);
  }

  async begin(): Promise<void> {
    setMaxListeners(0, this.#stop.signal);
    const first = this.#client();
    await first.ready({ timeoutMs: 60_000 });
    const from = (await first.range("none")).revision + 1;
    for (const [name, balance] of WATCHERS) this.#run(() => this.#watch(name, this.#client(balance), from));
    for (let i = 0; i < WRITERS; i++)
      this.#run(() => this.#write(`w${i}`, this.#client(i === 0 ? "round-robin" : "sticky")));
    for (let i = 0; i < 2; i++) this.#run(() => this.#mirror(`mirror ${i}`, this.#client()));
    for (const kind of ["lock", "election"] as const) {
      const group: Group = { kind, held: new Set(), token: 0 };
      for (let i = 0; i < CONTENDERS; i++) this.#run(() => this.#contend(group, this.#client()));
    }
    this.#run(() => this.#observe(this.#client()));
    for (let i = 0; i < 2; i++) this.#run(() => this.#add(this.#client()));
    this.#run(() => this.#lease(this.#client()));
  }

  /** Members were replaced: clients are told, as an operator would. */
  moved(endpoints: readonly string[]): void {
    this.#endpoints = endpoints;
    for (const client of this.#clients) client.endpoints = endpoints;
  }

  /** Everything up to this revision was received by all watchers. */
  get seenByAll(): number {
    return this.#seenRevisions.size < WATCHERS.length ? 0 : Math.min(...this.#seenRevisions.values());
  }

  /** Ends the writers, waits until all is seen, compares what is left, and ends everything. */
  async end(): Promise<void> {
    this.#isWriting = false;
    const untilMs = performance.now() + 90_000;
    while (this.#ledger.unseen.length > 0 && performance.now() < untilMs) await sleep(100);
    for (const text of this.#ledger.unseen)
      this.#findings.report(`acknowledged, and not seen by all watchers: ${text}`);
    const client = this.#client();
    const total = Number((await client.get("counter", { timeoutMs: 60_000 }))?.value ?? 0);
    const { acknowledged, unsure } = this.#counted;
    this.#findings.check(
      total >= acknowledged && total <= acknowledged + unsure,
      () => `the counter is ${total} after ${acknowledged} acknowledged additions and ${unsure} of unknown outcome`,
    );
    this.#stop.abort(new Error("the soak is over"));
    await Promise.all(this.#running);
    for (const each of this.#clients) each.close();
  }

  #client(balance: "sticky" | "round-robin" = "sticky"): Client {
    const client = new Client({
      endpoints: this.#endpoints,
      balance,
      timeoutMs: CALL_MS,
      keepAliveMs: 2000,
      keepAliveTimeoutMs: 2000,
    });
    this.#clients.push(client);
    return client;
  }

  #run(work: () => Promise<void>): void {
    const { signal } = this.#stop;
    this.#running.push(
      work().catch((error: unknown) => {
        if (!signal.aborted) this.#findings.report(`what must go on has ended: ${(error as Error)?.stack ?? error}`);
      }),
    );
  }

  async #write(name: string, client: Client): Promise<void> {
    for (let i = 0; this.#isWriting; i++) {
      const value = `${name}:${i}`;
      this.#ledger.attempted(value);
      try {
        const { revision } = await client.put(`log/${this.#random.below(KEYS)}`, value);
        this.#ledger.acknowledged(value, revision);
        this.#findings.count("writes");
        const nowMs = performance.now();
        this.gapMs = Math.max(this.gapMs, nowMs - this.#lastWriteMs);
        this.#lastWriteMs = nowMs;
      } catch (error) {
        if (!(error instanceof RpcError)) throw error;
        if (error.maybeApplied) this.#findings.count("writes of unknown outcome");
        else this.#ledger.refused(value);
      }
      await sleep(this.#random.below(20));
    }
  }

  async #watch(name: string, client: Client, from: number): Promise<void> {
    let last = from - 1;
    let caughtUp = 0;
    let batches = 0;
    const watcher = client.watch({ prefix: "log/" }, { revision: from, signal: this.#stop.signal });
    for await (const batch of watcher.batches()) {
      if (batch.caughtUp) this.#findings.check(++caughtUp === 1, () => `${name} caught up twice`);
      for (const { revision, type, ...event } of batch.events) {
        this.#findings.check(revision > last, () => `${name} saw revision ${revision} after all of ${last}`);
        this.#findings.check(
          revision <= batch.revision,
          () => `${name}: an event of ${revision} in a batch up to ${batch.revision}`,
        );
        if (type === "put" && "kv" in event) this.#ledger.seen(name, event.kv.value, revision);
      }
      this.#findings.check(batch.revision >= last, () => `${name} went back from ${last} to ${batch.revision}`);
      last = batch.revision;
      this.#seenRevisions.set(name, last);
      this.#findings.count("events", batch.events.length);
      if (name === "slow" && ++batches % 200 === 0) await sleep(2000);
    }
  }

  async #mirror(name: string, client: Client): Promise<void> {
    const own = new Map<string, string>();
    const mirror = new Mirror(
      client,
      { prefix: "log/" },
      {
        signal: this.#stop.signal,
        onChange: (change) => {
          const key = change.type === "set" ? change.kv.key : change.key;
          this.#findings.check(
            own.get(key) === undefined || change.previous?.value === own.get(key),
            () => `${name}: the change of ${key} has ${change.previous?.value} as its past, not ${own.get(key)}`,
          );
          if (change.type === "set") own.set(key, change.kv.value);
          else own.delete(key);
        },
      },
    );
    while (!this.#stop.signal.aborted) {
      await sleep(500 + this.#random.below(1000));
      try {
        const before = (await client.range("none")).revision;
        await mirror.sync();
        this.#findings.check(
          mirror.revision >= before,
          () => `${name} is at ${mirror.revision} after sync from ${before}`,
        );
        const shown = new Map(mirror.values().map(({ key, value }) => [key, value]));
        const { revision } = mirror;
        const { kvs } = await client.range({ prefix: "log/" }, { revision });
        this.#findings.check(
          kvs.length === shown.size && kvs.every(({ key, value }) => shown.get(key) === value),
          () => `${name} at ${revision} is not what the store was`,
        );
        this.#findings.count("mirrors compared");
      } catch (error) {
        this.#passing(error);
      }
    }
  }

  async #contend(group: Group, client: Client): Promise<void> {
    const name = `${group.kind} of the soak`;
    while (!this.#stop.signal.aborted) {
      const { signal } = this.#stop;
      let claim: Claim | undefined;
      try {
        const options = { ttl: TTL_S, signal };
        claim =
          group.kind === "lock"
            ? await client.lock(name, options)
            : await client.election(name).campaign(`${this.#random.below(1e6)}`, options);
        if (claim.isHeld) this.#entered(group, claim);
        group.held.add(claim);
        await this.#whileHeld(group, claim, client);
      } catch (error) {
        if (!(error instanceof LeaseLostError)) this.#passing(error);
        else this.#findings.count(`${group.kind}s lost`);
      } finally {
        // Leaving the critical section comes first, whatever becomes of the release.
        if (claim !== undefined) group.held.delete(claim);
        await claim?.release({ timeoutMs: 2000 }).catch(() => claim?.lease.abandon());
      }
      await sleep(this.#random.below(50));
    }
  }

  #entered(group: Group, claim: Claim): void {
    const { kind, held } = group;
    for (const other of held) {
      const text = `${kind} of token ${claim.token} was given while that of ${other.token} is held`;
      this.#findings.check(!(other.isHeld && claim.isHeld), () => text);
    }
    this.#findings.check(claim.token > group.token, () => `the ${kind}'s token ${claim.token} follows ${group.token}`);
    group.token = Math.max(group.token, claim.token);
    this.#findings.count(`${kind}s held`);
  }

  /** What is done with the claim's condition happens in the order of tokens, even when the holder was too late to know. */
  async #whileHeld(group: Group, claim: Claim, client: Client): Promise<void> {
    const untilMs = performance.now() + 20 + this.#random.below(400);
    while (claim.isHeld && performance.now() < untilMs) {
      const success = [op.put(`guarded/${group.kind}`, `${claim.token}`, { previous: true })];
      const answer = await client.txn({ compare: [claim.condition], success });
      if (!answer.succeeded) return;
      const before = Number(answer.results[0]?.previous?.value ?? 0);
      this.#findings.check(before <= claim.token, () => `${group.kind}: ${claim.token} wrote after ${before}`);
      await sleep(10 + this.#random.below(40));
    }
  }

  async #observe(client: Client): Promise<void> {
    const { signal } = this.#stop;
    let last = 0;
    while (!signal.aborted) {
      try {
        for await (const { token } of client.election("election of the soak").leaders({ signal })) {
          this.#findings.check(token >= last, () => `leaders() went back from ${last} to ${token}`);
          last = token;
          this.#findings.count("leaders seen");
        }
      } catch (error) {
        this.#passing(error);
      }
    }
  }

  async #add(client: Client): Promise<void> {
    while (this.#isWriting) {
      try {
        await client.transaction(async (t) => t.put("counter", `${Number((await t.get("counter")) ?? 0) + 1}`));
        this.#counted.acknowledged++;
        this.#findings.count("transactions");
      } catch (error) {
        this.#passing(error);
        if (error instanceof RpcError && error.maybeApplied) this.#counted.unsure++;
      }
      await sleep(20 + this.#random.below(100));
    }
  }

  async #lease(client: Client): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        const lease = await client.leases.grant(TTL_S, { signal });
        const key = `leased/${lease.id}`;
        await client.put(key, "here", { lease });
        const untilMs = performance.now() + 15_000;
        while (!lease.signal.aborted && !signal.aborted && performance.now() < untilMs) {
          const kv = await client.get(key);
          // The answer was true when it was made, which is before now.
          if (lease.isAlive)
            this.#findings.check(kv !== undefined, () => `the key of lease ${lease.id} is gone while it is alive`);
          this.#findings.count("looks at leases");
          await sleep(200);
        }
        await lease.revoke();
        if (lease.signal.reason instanceof LeaseLostError) this.#findings.count("leases lost");
      } catch (error) {
        this.#passing(error);
      }
    }
  }

  /** The errors that a cluster with failing members may give. */
  #passing(error: unknown): void {
    if (this.#stop.signal.aborted || error instanceof LeaseLostError) return;
    if (!(error instanceof RpcError)) throw error;
    this.#findings.count("calls failed");
  }
}

const WATCHERS = [
  ["sticky", "sticky"],
  ["spread", "round-robin"],
  ["slow", "sticky"],
] as const;

/** Those that contend for one lock, or one leadership. */
interface Group {
  readonly kind: "lock" | "election";
  readonly held: Set<Claim>;
  token: number;
}
