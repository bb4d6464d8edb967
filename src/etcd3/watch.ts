/**
 * Watches as emitters of events, over those of the client: many on one stream, which go on where they were after whatever
 * interrupts it. `error` means that a watch is over: refused, or compacted.
 */
import { EventEmitter } from "node:events";
import type { KeyRange, KeyValue } from "../client/keys.ts";
import { RpcError } from "../client/rpc-error.ts";
import { type WatchBatch, WatchCompactedError } from "../client/watch-events.ts";
import type { Watcher as ClientWatcher } from "../client/watcher.ts";
import { FilterType } from "./enums.ts";
import { castGrpcError, EtcdError, EtcdWatchStreamEnded } from "./errors.ts";
import type { IEvent, IKeyValue, IWatchCreateRequest, IWatchRequest, IWatchResponse } from "./messages.ts";
import type { ConnectionPool } from "./pool.ts";
import { type Rangable, Range } from "./range.ts";
import { type NSApplicator, toBuffer, zeroKey } from "./util.ts";

/** What a watch may leave out, by what it is called. */
const operationNames = { put: FilterType.Noput, delete: FilterType.Nodelete } as const;

type Bytes = Uint8Array;

export interface WatcherEvents {
  connecting: [request: IWatchRequest];
  connected: [response: IWatchResponse];
  data: [response: IWatchResponse];
  put: [kv: IKeyValue, previous?: IKeyValue];
  delete: [kv: IKeyValue, previous?: IKeyValue];
  end: [];
  disconnected: [error: Error];
  error: [error: Error];
}

export class WatchBuilder {
  readonly #pool: ConnectionPool;
  readonly #namespace: NSApplicator;
  #request: IWatchCreateRequest = { progress_notify: true };

  constructor(pool: ConnectionPool, namespace: NSApplicator) {
    this.#pool = pool;
    this.#namespace = namespace;
  }

  key(key: string | Buffer): this {
    this.#request.key = toBuffer(key);
    return this;
  }

  prefix(value: string | Buffer): this {
    return this.inRange(Range.prefix(value));
  }

  inRange(range: Rangable): this {
    const { start, end } = Range.from(range);
    this.#request.key = start;
    this.#request.range_end = end;
    return this;
  }

  ignore(...operations: (keyof typeof operationNames)[]): this {
    this.#request.filters = operations.map((operation) => operationNames[operation]);
    return this;
  }

  only(...operations: (keyof typeof operationNames)[]): this {
    const others = (["put", "delete"] as const).filter((operation) => !operations.includes(operation));
    return this.ignore(...others);
  }

  withPreviousKV(): this {
    this.#request.prev_kv = true;
    return this;
  }

  startRevision(revision: string): this {
    this.#request.start_revision = revision;
    return this;
  }

  /** Begins to watch; listen for `connected`. */
  watcher(): Watcher {
    return new Watcher(this.#pool, this.#namespace, { ...this.#request });
  }

  /** Resolves when the server watches. */
  create(): Promise<Watcher> {
    const watcher = this.watcher();
    return new Promise((resolve, reject) => {
      watcher.once("connected", () => {
        watcher.off("error", reject);
        resolve(watcher);
      });
      watcher.once("error", reject);
    });
  }
}

export class Watcher extends EventEmitter<WatcherEvents> {
  /** As it was asked for; `start_revision` is the first that has not been seen. */
  readonly request: IWatchCreateRequest;
  readonly #namespace: NSApplicator;
  readonly #watcher: ClientWatcher<Bytes, Bytes>;
  #id: string | null = null;
  #isOver = false;

  constructor(pool: ConnectionPool, namespace: NSApplicator, request: IWatchCreateRequest) {
    super();
    this.request = request;
    this.#namespace = namespace;
    const { key = Buffer.alloc(0), range_end: end } = namespace.applyToRequest(request);
    const { start_revision: revision, filters = [], prev_kv: previous = false } = request;
    const isWithout = (filter: number) => filters.some((each) => each === filter);
    const without = isWithout(FilterType.Noput) ? "put" : isWithout(FilterType.Nodelete) ? "delete" : undefined;
    this.#watcher = pool.client.bytes.watch(rangeOf(key, end), {
      previous,
      onConnection: (connected) => this.#connection(connected),
      ...(revision === undefined ? {} : { revision: Number(revision) }),
      ...(without === undefined ? {} : { without }),
    });
    void this.#run();
  }

  get id(): string | null {
    return this.#id;
  }

  /** The newest revision up to which everything has been seen; null before anything has. */
  lastRevision(): number | null {
    const { start_revision: next } = this.request;
    return next === undefined ? null : Number(next) - 1;
  }

  /** Ends it. */
  async cancel(): Promise<void> {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#watcher.close();
    this.emit("end");
  }

  async #run(): Promise<void> {
    // Those who listen may do so until the end of this turn.
    await Promise.resolve();
    if (this.#isOver) return;
    this.emit("connecting", { create_request: this.request });
    try {
      await this.#watcher.ready;
      for await (const batch of this.#watcher.batches()) this.#received(batch);
    } catch (error) {
      if (this.#isOver) return;
      this.#isOver = true;
      this.emit("error", watchError(error));
    }
  }

  #connection(connected: boolean): void {
    if (this.#isOver) return;
    if (!connected) {
      this.emit("disconnected", new EtcdWatchStreamEnded());
      this.emit("connecting", { create_request: this.request });
      return;
    }
    this.#id = `${this.#watcher.watchId ?? 0}`;
    const next = this.#watcher.nextRevision;
    this.request.start_revision = `${next}`;
    this.emit("connected", this.#response(next - 1, [], true));
  }

  #received({ events, revision }: WatchBatch<Bytes, Bytes>): void {
    this.request.start_revision = `${revision + 1}`;
    const shown = events.map((event): IEvent => {
      const kv = event.type === "put" ? this.#pair(event.kv) : this.#deleted(event.key, event.revision);
      const type = event.type === "put" ? "Put" : "Delete";
      if (event.previous !== undefined) return { type, kv, prev_kv: this.#pair(event.previous) };
      const alone = { type, kv, prev_kv: kv } as const;
      // The module gives null for a pair that there is not, whatever its types say.
      Reflect.set(alone, "prev_kv", null);
      return alone;
    });
    this.emit("data", this.#response(revision, shown, false));
    for (const { type, kv, prev_kv: previous } of shown) {
      if (type === "Put") this.emit("put", kv, previous);
      else this.emit("delete", kv, previous);
    }
  }

  #pair(kv: KeyValue<Bytes, Bytes>): IKeyValue {
    return {
      key: this.#namespace.unprefix(buffer(kv.key)),
      create_revision: `${kv.createRevision}`,
      mod_revision: `${kv.modRevision}`,
      version: `${kv.version}`,
      value: buffer(kv.value),
      lease: `${BigInt.asIntN(64, kv.lease ?? 0n)}`,
    };
  }

  #deleted(key: Bytes, revision: number): IKeyValue {
    const rest = { create_revision: "0", version: "0", value: Buffer.alloc(0), lease: "0" };
    return { ...rest, key: this.#namespace.unprefix(buffer(key)), mod_revision: `${revision}` };
  }

  #response(revision: number, events: IEvent[], created: boolean): IWatchResponse {
    const header = { cluster_id: "0", member_id: "0", revision: `${revision}`, raft_term: "0" };
    const rest = { canceled: false, compact_revision: "0", cancel_reason: "", fragment: false };
    return { header, watch_id: this.#id ?? "0", created, events, ...rest };
  }
}

const buffer = (bytes: Bytes): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);

function rangeOf(key: Buffer, end: Buffer | undefined): KeyRange {
  if (end === undefined || end.length === 0) return key;
  return end.equals(zeroKey) ? { from: key } : { from: key, to: end };
}

function watchError(error: unknown): Error {
  if (error instanceof WatchCompactedError) {
    return new EtcdError("etcdserver: mvcc: required revision has been compacted");
  }
  return error instanceof RpcError || error instanceof Error ? castGrpcError(error) : new EtcdError(`${error}`);
}
