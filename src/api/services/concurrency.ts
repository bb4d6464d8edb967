import type { Clock } from "../../base/clock.ts";
import { Code } from "../../base/grpc-codes.ts";
import { EMPTY_BYTES } from "../../base/protobuf.ts";
import type { WatchBatch } from "../../mvcc/watch/batch.ts";
import type { WatchStream } from "../../mvcc/watch/stream.ts";
import type { Watch, WatchSink } from "../../mvcc/watch/types.ts";
import { type LargeBatch, LargeBatchGoneError } from "../../mvcc/watch/types.ts";
import {
  Compare,
  Compare_CompareResult as CompareResult,
  Compare_CompareTarget as CompareTarget,
  LeaseGrantRequest,
  PutRequest,
  RangeRequest,
  RequestOp,
  RangeRequest_SortOrder as SortOrder,
  RangeRequest_SortTarget as SortTarget,
  TxnRequest,
  type TxnResponse,
  WatchResponse,
} from "../../proto/etcdserverpb.ts";
import { type Event, Event_EventType as EventType } from "../../proto/mvccpb.ts";
import type { CallInfo } from "../../rpc/contract.ts";
import { executeRange } from "../../server/apply/range.ts";
import { EtcdError, errors } from "../../server/contract/errors.ts";
import { READ_SLICE } from "../../server/contract/options.ts";
import { Op } from "../../server/log/op.ts";
import type { RequestOf, ResponseOf } from "../../server/log/operations.ts";
import type { EtcdServer } from "../../server/server.ts";
import type { Access } from "../calls/access.ts";
import { type FirstRow, FirstRowWork } from "../range/first-row.ts";
import type { LongAnswers } from "../range/long-answers.ts";

/**
 * The basis of locks and elections: a queue of keys under one prefix, ordered by create revision, each attached to its
 * owner's lease. The owner of the oldest key holds the lock. Source: etcd `client/v3/concurrency`.
 */

/** TTL in seconds of a lease created by the server for a client. */
const SESSION_TTL_SECONDS = 60;

/** Ends a wait when the client leaves. */
export interface Cancellation {
  readonly cancelled: boolean;
  onCancel: (() => void) | null;
}

/** The client is gone; the answer is not received. */
export const cancelled = new EtcdError(Code.CANCELED, "context canceled");

/** A call that can wait. */
export type WaitingCall = CallInfo & Cancellation;

/** A client of these services: all operations run as its user, with its permissions. All methods throw EtcdError. */
export class Caller {
  readonly server: EtcdServer;
  readonly call: WaitingCall;
  readonly #access: Access;
  readonly #long: LongAnswers;

  constructor(server: EtcdServer, access: Access, long: LongAnswers, call: WaitingCall) {
    this.server = server;
    this.call = call;
    this.#access = access;
    this.#long = long;
  }

  /** The client's lease, or a new one. */
  async sessionLease(lease: bigint): Promise<bigint> {
    if (lease !== 0n) return lease;
    throwUnknown(this.#access.refuseNobody(this.call));
    const id = BigInt.asUintN(63, this.server.ids.nextBig());
    const request = LeaseGrantRequest.create({ id, ttl: SESSION_TTL_SECONDS });
    const granted = await this.request(Op.LEASE_GRANT, request, LeaseGrantRequest.encode(request));
    return granted.id;
  }

  /** Commits a transaction. */
  commit(request: TxnRequest): Promise<TxnResponse> {
    return this.request(Op.TXN, request, TxnRequest.encode(request));
  }

  async request<O extends Op>(op: O, request: RequestOf<O>, payload: Uint8Array): Promise<ResponseOf<O>> {
    const outcome = await this.#access.request(this.call, op, request, payload);
    if (outcome instanceof EtcdError) throw unknown(outcome);
    return outcome;
  }

  /** Whether a key exists in the member's local state. */
  exists(key: Uint8Array): boolean {
    this.mayWatch(key, EMPTY_BYTES);
    return executeRange(this.server.store, RangeRequest.create({ key, countOnly: true })).count > 0;
  }

  /** The first key of a range in its order, in the member's local state. The request has the limit 1. */
  first(request: RangeRequest): Promise<FirstRow> {
    this.mayWatch(request.key, request.rangeEnd);
    const { server, call } = this;
    if (call.cancelled) return Promise.reject(cancelled);
    return new Promise((resolve, reject) => {
      const limits = server.options.readSlice ?? READ_SLICE;
      const work = new FirstRowWork("oldest key", server.store, request, limits, (error, found) => {
        call.onCancel = null;
        if (found !== undefined) resolve(found);
        else reject(error instanceof EtcdError ? unknown(error) : error);
      });
      call.onCancel = () => {
        call.onCancel = null;
        work.cancel();
        reject(cancelled);
      };
      if (server.turns.begin(this.#long.ownerOf(call), work) === undefined) work.fail(errors.tooManyLongRequests);
    });
  }

  /** Throws when the client lacks read permission on these keys. */
  mayWatch(key: Uint8Array, rangeEnd: Uint8Array): void {
    const { permissions } = this.#access;
    throwUnknown(this.#access.checkRead(this.call, (user) => permissions.range(user, { key, rangeEnd })));
  }
}

/** The key of a session under a prefix. */
export function sessionKey(prefix: Uint8Array, lease: bigint): Buffer {
  return Buffer.concat([prefix, Buffer.from(BigInt.asUintN(64, lease).toString(16))]);
}

/** Compares a create revision; 0 means that the key must not exist. */
export function createdAt(key: Uint8Array, createRevision: number): Compare {
  return Compare.create({ key, target: CompareTarget.CREATE, result: CompareResult.EQUAL, createRevision });
}

export function putOp(key: Uint8Array, value: Uint8Array, lease: bigint): RequestOp {
  return RequestOp.create({ requestPut: PutRequest.create({ key, value, lease }) });
}

/** A client's place in a queue: the create revision of its key. */
export interface Place {
  readonly response: TxnResponse;
  readonly rev: number;
  /** What the key holds, if it was there before. */
  readonly former: Uint8Array | undefined;
}

/** Puts the client's key, unless it is there. */
export async function takePlace(caller: Caller, key: Uint8Array, value: Uint8Array, lease: bigint): Promise<Place> {
  const response = await caller.commit(
    TxnRequest.create({
      compare: [createdAt(key, 0)],
      success: [putOp(key, value, lease)],
      failure: [RequestOp.create({ requestRange: RangeRequest.create({ key }) })],
    }),
  );
  if (response.succeeded) return { response, rev: response.header!.revision, former: undefined };
  const old = response.responses[0]!.responseRange!.kvs[0]!;
  return { response, rev: old.createRevision, former: old.value };
}

/** The oldest key under a prefix. */
export function oldestUnder(prefix: Uint8Array): RangeRequest {
  return RangeRequest.create({
    key: prefix,
    rangeEnd: prefixEnd(prefix),
    sortTarget: SortTarget.CREATE,
    sortOrder: SortOrder.ASCEND,
    limit: 1,
  });
}

/** The first key after those with the prefix; one zero byte when there is none. */
export function prefixEnd(prefix: Uint8Array): Buffer {
  const end = Buffer.from(prefix);
  for (let i = end.length - 1; i >= 0; i--) {
    if (end[i]! < 0xff) {
      end[i]!++;
      return end.subarray(0, i + 1);
    }
  }
  return Buffer.from([0]);
}

/**
 * Resolves when no key under the prefix with a create revision up to `maxCreateRevision` is left: to false if there was
 * none.
 */
export async function waitForOlder(caller: Caller, prefix: Uint8Array, maxCreateRevision: number): Promise<boolean> {
  for (let hasWaited = false; ; hasWaited = true) {
    const { kv, revision } = await caller.first(
      RangeRequest.create({
        key: prefix,
        rangeEnd: prefixEnd(prefix),
        sortTarget: SortTarget.CREATE,
        sortOrder: SortOrder.DESCEND,
        limit: 1,
        maxCreateRevision,
      }),
    );
    if (kv === undefined) return hasWaited;
    await new KeyWatch(caller, kv.key, null, revision, (event) => event.type === EventType.DELETE).done;
  }
}

/** Watches a key, or a prefix, until a listener has seen enough. */
export class KeyWatch implements WatchSink {
  /**
   * Resolves when the listener returned true. Rejects when the client leaves, lacks permission, or the revision is
   * compacted.
   */
  readonly done: Promise<void>;
  readonly #listener: (event: Event, headerRevision: number) => boolean;
  readonly #clock: Clock;
  readonly #stream: WatchStream;
  /** Events may still arrive until the stream is closed, before the promise settles. */
  #over = false;
  #resolve: () => void = () => {};
  #reject: (error: EtcdError) => void = () => {};

  constructor(
    caller: Caller,
    key: Uint8Array,
    rangeEnd: Uint8Array | null,
    startRevision: number,
    listener: (event: Event, headerRevision: number) => boolean,
  ) {
    caller.mayWatch(key, rangeEnd ?? Buffer.alloc(0));
    const client: Cancellation = caller.call;
    this.#listener = listener;
    this.#clock = caller.server.options.clock;
    const stream = caller.server.watchHub.newStream(this);
    this.#stream = stream;
    this.done = new Promise<void>((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    }).finally(() => {
      this.#over = true;
      client.onCancel = null;
      stream.close();
    });
    client.onCancel = () => this.#reject(cancelled);
    if (client.cancelled) this.#reject(cancelled);
    stream.watch({
      key,
      rangeEnd: rangeEnd ?? Buffer.alloc(0),
      startRevision,
      watchId: 0,
      filters: [],
      prevKv: false,
      progressNotify: false,
      fragment: false,
    });
  }

  deliver(_watch: Watch, batch: WatchBatch): boolean {
    this.#listen(batch.decodedEvents(), batch.revision);
    return true;
  }

  deliverLarge(_watch: Watch, batch: LargeBatch): boolean {
    let next = 0;
    const goOn = (): void => {
      if (this.#over) return;
      try {
        if (batch.measure()) {
          if (next === batch.pieceCount) {
            this.#stream.drained();
            return;
          }
          this.#listen(WatchResponse.decode(batch.piece(next++)).events, batch.revision);
        }
      } catch (error) {
        if (!(error instanceof LargeBatchGoneError)) throw error;
        this.#reject(new EtcdError(Code.UNAVAILABLE, error.message));
        return;
      }
      this.#clock.defer(goOn);
    };
    this.#clock.defer(goOn);
    return true;
  }

  #listen(events: readonly Event[], revision: number): void {
    if (this.#over) return;
    for (const event of events) {
      if (!this.#listener(event, revision)) continue;
      this.#over = true;
      this.#resolve();
      return;
    }
  }

  deliverCompacted(): boolean {
    this.#reject(new EtcdError(Code.UNKNOWN, "etcdserver: mvcc: required revision has been compacted"));
    return true;
  }

  deliverProgress(): boolean {
    return true;
  }
}

/** Errors of these services have no gRPC code: they pass through etcd's own client, which drops it. */
function throwUnknown(error: EtcdError | null): void {
  if (error !== null) throw unknown(error);
}

function unknown(error: EtcdError): EtcdError {
  return new EtcdError(Code.UNKNOWN, error.message);
}
