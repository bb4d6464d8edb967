/**
 * Writers that record acknowledged writes, and the check that each exists, on every member, exactly once.
 *
 * Every write puts its own key, so the store shows how often each was applied: its key has version 1, the acknowledged
 * revision and value. An unanswered write may exist or not, but at most once.
 */
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { type RawClient, RpcError } from "../../src/client/raw.ts";
import { KVService } from "../../src/proto/etcdserverpb.ts";
import { waitFor } from "./wait.ts";

export interface LoadOptions {
  /** Connections to write through; evaluated before each write, so that it can follow the members of a cluster. */
  readonly clients: () => readonly RawClient[];
  readonly writers?: number;
  readonly valueSize?: number;
  /** Pause of each writer after a write, in milliseconds, to leave room for other work. */
  readonly pauseMs?: number;
}

const CALL_MS = 2_000;
const PAGE = 5_000;
const PREFIX = "load/";
const PREFIX_END = "load0";

export class AcknowledgedLoad {
  /** Revision of each acknowledged key. */
  readonly #acknowledged = new Map<string, number>();
  /** Keys of unanswered writes. */
  readonly #unknown = new Set<string>();
  readonly #refusals = new Map<string, number>();
  readonly #options: Required<LoadOptions>;
  #sequence = 0;
  #stopping = false;
  #running: Promise<void> = Promise.resolve();
  #lastAtMs = 0;
  #gapMs = 0;

  constructor(options: LoadOptions) {
    this.#options = { writers: 8, valueSize: 100, pauseMs: 0, ...options };
  }

  get acknowledged(): number {
    return this.#acknowledged.size;
  }

  get unknown(): number {
    return this.#unknown.size;
  }

  /** Longest time without an acknowledgement since the last call, in milliseconds. */
  takeGapMs(): number {
    const gap = this.#gapMs;
    this.#gapMs = 0;
    return gap;
  }

  start(): void {
    this.#stopping = false;
    this.#lastAtMs = performance.now();
    const writers = Array.from({ length: this.#options.writers }, () => this.#write());
    this.#running = Promise.all(writers).then(() => undefined);
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    await this.#running;
  }

  /** Waits until further writes are acknowledged. */
  async progress(count = 100): Promise<void> {
    const floor = this.acknowledged + count;
    await waitFor(`${count} more writes are acknowledged`, () => this.acknowledged >= floor, 30_000);
  }

  /** The errors received instead of acknowledgements, for people. */
  describe(): string {
    const refusals = [...this.#refusals].map(([text, count]) => `${count} × ${text}`).join("; ");
    return `${this.acknowledged} acknowledged, ${this.unknown} without an answer${refusals && `: ${refusals}`}`;
  }

  async #write(): Promise<void> {
    while (!this.#stopping) {
      const sequence = this.#sequence++;
      const clients = this.#options.clients();
      const client = clients[sequence % clients.length];
      if (client === undefined) throw new Error("the load has nobody to write to");
      const key = `${PREFIX}${String(sequence).padStart(8, "0")}`;
      try {
        const put = { key: Buffer.from(key), value: this.#value(key) };
        const { header } = await client.unary(KVService.Put, put, { timeoutMs: CALL_MS });
        assert.ok(!this.#acknowledged.has(key), `${key} is written once only`);
        this.#acknowledged.set(key, header!.revision);
        const now = performance.now();
        this.#gapMs = Math.max(this.#gapMs, now - this.#lastAtMs);
        this.#lastAtMs = now;
        if (this.#options.pauseMs > 0) await sleep(this.#options.pauseMs);
      } catch (error) {
        if (!(error instanceof RpcError)) throw error;
        // Even a refusal may come from a member that gave up on a proposal that is applied later.
        this.#unknown.add(key);
        const text = error.details.replace(/( after [\d.]+s|\. ).*/, "");
        this.#refusals.set(text, (this.#refusals.get(text) ?? 0) + 1);
        await sleep(20);
      }
    }
  }

  /** Throws unless the member holds every acknowledged write at its revision, and no write that was never made. */
  async verify(name: string, client: RawClient): Promise<void> {
    const left = new Map(this.#acknowledged);
    for (let key = Buffer.from(PREFIX); ; ) {
      const request = { key, rangeEnd: Buffer.from(PREFIX_END), limit: PAGE };
      const { kvs, more } = await client.unary(KVService.Range, request, { timeoutMs: CALL_MS });
      for (const kv of kvs) {
        const text = Buffer.from(kv.key).toString();
        const revision = left.get(text);
        assert.ok(revision !== undefined || this.#unknown.has(text), `${name} has ${text}, which nobody wrote`);
        assert.equal(kv.version, 1, `${name} applied ${text} more than once`);
        assert.ok(this.#value(text).equals(kv.value), `${name} has another value of ${text}`);
        if (revision !== undefined) assert.equal(kv.modRevision, revision, `${name}: the revision of ${text}`);
        left.delete(text);
      }
      const last = kvs.at(-1);
      if (!more || last === undefined) break;
      key = Buffer.concat([last.key, Buffer.from([0])]);
    }
    const lost = [...left].slice(0, 5).map(([key, revision]) => `${key} at revision ${revision}`);
    assert.equal(left.size, 0, `${name} lost ${left.size} acknowledged writes, such as ${lost.join(", ")}`);
  }

  #value(key: string): Buffer {
    return Buffer.alloc(this.#options.valueSize, key);
  }
}
