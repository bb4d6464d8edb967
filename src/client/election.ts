/** Elections: one of many candidates is the leader, until it resigns or is lost; the others wait, and all can see who. */
import { KVService } from "../proto/etcdserverpb.ts";
import { Claim, type ClaimContext, type ClaimOptions, claim, folderOf, type Held, rawTxn } from "./claims.ts";
import { bytes } from "./codec.ts";
import { type Key, type KeyValue, Space } from "./keys.ts";
import { LeaseLostError } from "./leases.ts";
import { getResult, op, rangeRequest } from "./operations.ts";
import type { CallOptions } from "./options.ts";
import { WatchCompactedError } from "./watch-events.ts";

/** Who leads, and what it says of itself. */
export interface Leader<V> {
  readonly value: V;
  /** Its fencing token. */
  readonly token: number;
  /** When it said so. */
  readonly revision: number;
}

/** The leadership, while it is held. Close it with `await using` or `release`. */
export class Leadership<V> extends Claim {
  readonly #encode: (value: V) => Uint8Array;
  readonly #context: ClaimContext;

  /** @internal */
  constructor(context: ClaimContext, held: Held, encode: (value: V) => Uint8Array) {
    super(context, held);
    this.#context = context;
    this.#encode = encode;
  }

  /** Changes what the leader says of itself. Rejects with LeaseLostError when it leads no more. */
  async proclaim(value: V, options?: CallOptions): Promise<void> {
    const txn = { compare: [this.condition], success: [op.put(this.key, this.#encode(value), { lease: this.lease })] };
    const answer = await rawTxn(this.#context.caller, txn, "write", options);
    if (!answer.succeeded) throw new LeaseLostError(this.lease.id, "its key was deleted");
  }
}

/**
 * An election by name.
 *
 * @example
 * const election = client.election("scheduler");
 * await using leadership = await election.campaign("me:8080");
 * await work({ signal: leadership.signal, token: leadership.token });
 */
export class Election<V> {
  readonly #context: ClaimContext;
  readonly #name: Key;
  readonly #encode: (value: V) => Uint8Array;
  readonly #space: Space<V, Uint8Array>;

  /** @internal */
  constructor(context: ClaimContext, name: Key, values: Space<V, unknown>["values"]) {
    this.#context = context;
    this.#name = name;
    this.#encode = (value) => values.encode(value);
    this.#space = new Space(new Uint8Array(), bytes, values);
  }

  /** Waits until this candidate leads. */
  async campaign(value: V, options: ClaimOptions = {}): Promise<Leadership<V>> {
    const held = await claim(this.#context, this.#name, this.#encode(value), options);
    return new Leadership(this.#context, held, this.#encode);
  }

  /** Who leads now, or undefined. */
  async leader(options?: CallOptions): Promise<Leader<V> | undefined> {
    return (await this.#first(options)).leader;
  }

  /**
   * The leader of now, and each time another one leads or it says something else. Ends with its loop or the signal.
   *
   * @example
   * for await (const { value } of client.election("scheduler").leaders()) console.log("now", value);
   */
  async *leaders(options: Pick<CallOptions, "signal"> = {}): AsyncGenerator<Leader<V>, void, undefined> {
    let last = 0;
    for (;;) {
      const { leader, revision } = await this.#first(options);
      if (leader !== undefined && leader.revision !== last) {
        last = leader.revision;
        yield leader;
      }
      try {
        const range = { prefix: folderOf(this.#context.prefix, this.#name) };
        const watcher = this.#context.watches.watch(this.#space, range, { ...options, revision: revision + 1 });
        for await (const { events } of watcher.batches()) if (events.length > 0) break;
      } catch (error) {
        if (!(error instanceof WatchCompactedError)) throw error;
      }
    }
  }

  #first(
    options: CallOptions | undefined,
  ): Promise<{ readonly leader: Leader<V> | undefined; readonly revision: number }> {
    const range = { prefix: folderOf(this.#context.prefix, this.#name) };
    const request = rangeRequest(this.#space, range, { sort: "create", limit: 1 });
    return this.#context.caller.unary(KVService.Range, request, "read", options, (answer) => ({
      leader: leaderOf(getResult(this.#space, answer)),
      revision: answer.header?.revision ?? 0,
    }));
  }
}

function leaderOf<V>(kv: KeyValue<V, Uint8Array> | undefined): Leader<V> | undefined {
  return kv === undefined ? undefined : { value: kv.value, token: kv.createRevision, revision: kv.modRevision };
}
