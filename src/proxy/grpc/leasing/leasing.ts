/**
 * `--experimental-leasing-prefix`: linearizable reads of single keys are answered by the proxy itself, for keys that it holds
 * and all writers with the same prefix therefore ask it for. Source: etcd v3.7, client/v3/leasing.
 *
 * A write is a transaction that is guarded by the key's leasing key: it fails when others hold the key, which then are asked
 * to give it up. While the outcome of a write is not known, the key is read from the cluster, and when it stays unknown the
 * key is given up; it is held again only by a new leasing key, for which the guard of the old write does not hold.
 */
import { Code } from "../../../base/grpc-codes.ts";
import { RpcError } from "../../../client/rpc-error.ts";
import {
  type Compare,
  type DeleteRangeRequest,
  DeleteRangeResponse,
  type PutRequest,
  PutResponse,
  RangeRequest,
  type RangeResponse,
  type RequestOp,
  type TxnRequest,
  type TxnResponse,
} from "../../../proto/etcdserverpb.ts";
import type { KeyValue } from "../../../proto/mvccpb.ts";
import type { UnaryCall } from "../../../rpc/contract.ts";
import { endOfPrefix } from "../namespace.ts";
import { tokenOf } from "../upstream.ts";
import { type Held, nameOf, PAIR_BYTES_MAX } from "./cache.ts";
import { answerLocally } from "./local-txn.ts";
import type { LowerKv } from "./lower-kv.ts";
import { compareCreated, compareLease, deleteOp, getOp, putOp, txnOp } from "./requests.ts";
import { type LeasingSession, REVOKE } from "./session.ts";

interface Span {
  readonly key: Uint8Array;
  readonly rangeEnd: Uint8Array;
}

export class LeasingKv {
  readonly #session: LeasingSession;
  readonly #lower: LowerKv;
  /** Keys that are being acquired. */
  readonly #acquiring = new Set<string>();

  constructor(session: LeasingSession, lower: LowerKv) {
    this.#session = session;
    this.#lower = lower;
  }

  async range(call: UnaryCall, request: RangeRequest): Promise<RangeResponse> {
    const { cache, lease } = this.#session;
    // Who may read what is not known here.
    if (request.revision > 0 || request.rangeEnd.length > 0 || lease === undefined || tokenOf(call) !== undefined) {
      return this.#lower.range(call, request);
    }
    const name = nameOf(request.key);
    const known = cache.read(name, request);
    if (known !== undefined) return known;
    if (request.serializable || this.#acquiring.has(name) || cache.get(name) !== undefined || !cache.mayAcquire(name)) {
      return this.#lower.range(call, request);
    }
    this.#acquiring.add(name);
    try {
      return await this.#acquire(call, request, lease);
    } catch (error) {
      if (!(error instanceof RpcError) || error.code !== Code.NOT_FOUND) throw error;
      // Somebody has revoked the lease.
      this.#session.lose(lease);
      return await this.#lower.range(call, request);
    } finally {
      this.#acquiring.delete(name);
    }
  }

  async put(call: UnaryCall, request: PutRequest): Promise<PutResponse> {
    const answer = await this.#write(call, request.key, putOp(request), (held, { header }) =>
      this.#notePut(held, request, header),
    );
    const { responsePut } = answer.responses[0] ?? {};
    return { ...(responsePut ?? PutResponse.create()), header: answer.header };
  }

  async deleteRange(call: UnaryCall, request: DeleteRangeRequest): Promise<DeleteRangeResponse> {
    const op = deleteOp(request);
    const answer =
      request.rangeEnd.length > 0
        ? await this.#guardedTxn(call, { compare: [], success: [op], failure: [] })
        : await this.#write(call, request.key, op, (held, { header }) => this.#note(held, header, () => undefined));
    const { responseDeleteRange } = answer.responses[0] ?? {};
    return { ...(responseDeleteRange ?? DeleteRangeResponse.create()), header: answer.header };
  }

  async txn(call: UnaryCall, request: TxnRequest): Promise<TxnResponse> {
    const { cache, lease } = this.#session;
    if (lease !== undefined && tokenOf(call) === undefined) {
      const known = answerLocally(cache, request);
      if (known !== undefined) return known;
    }
    if (writesOf(request).length === 0) return this.#lower.txn(call, request);
    return this.#guardedTxn(call, request);
  }

  /** Reads a key and holds it, unless others do or it has a lease, whose end would not be seen here. */
  async #acquire(call: UnaryCall, request: RangeRequest, lease: bigint): Promise<RangeResponse> {
    const { cache } = this.#session;
    const { key } = request;
    const leasingKey = this.#session.leasingKey(key);
    const answer = await this.#lower.txn(call, {
      compare: [compareCreated(leasingKey, "=", 0), compareLease(key, 0n)],
      success: [
        getOp({ ...RangeRequest.create(), key }),
        putOp({ key: leasingKey, value: NO_BYTES, lease, prevKv: false, ignoreValue: false, ignoreLease: false }),
      ],
      failure: [getOp(request), getOp({ ...RangeRequest.create(), key: leasingKey })],
    });
    const header = answer.header!;
    const read = answer.responses[0]!.responseRange!;
    const name = nameOf(key);
    if (!answer.succeeded) {
      const [leasing] = answer.responses[1]?.responseRange?.kvs ?? [];
      // Of a read whose answer did not arrive.
      if (leasing?.lease === this.#session.lease && leasing?.lease !== undefined) {
        this.#session.giveUp(name, leasing.createRevision);
      }
      return { ...read, header };
    }
    const [pair] = read.kvs;
    if (this.#session.lease !== lease) return this.#lower.range(call, request);
    if ((pair?.value.length ?? 0) > PAIR_BYTES_MAX) this.#session.giveUp(name, header.revision);
    else if (cache.add(name, header, pair)) {
      const known = cache.read(name, request);
      if (known !== undefined) return known;
    }
    return this.#lower.range(call, request);
  }

  /** One operation that writes one key. */
  async #write(
    call: UnaryCall,
    key: Uint8Array,
    op: RequestOp,
    note: (held: Held, answer: TxnResponse) => void,
  ): Promise<TxnResponse> {
    const { cache } = this.#session;
    const name = nameOf(key);
    const leasingKey = this.#session.leasingKey(key);
    for (;;) {
      await this.#session.ready(call);
      const held = cache.get(name);
      const compare = [compareCreated(leasingKey, "<", (held?.heldSince ?? 0) + 1)];
      const deletion = this.#session.expectDeletion(name);
      try {
        const answer = await this.#whileUnknown(held === undefined ? [] : [held], () =>
          this.#lower.txn(call, { compare, success: [op], failure: [revokeOp(leasingKey)] }),
        );
        if (answer.succeeded) {
          if (held !== undefined) note(held, answer);
          return answer;
        }
        if (held !== undefined) cache.drop(held);
        await this.#session.gone(call, deletion, answer.header!.revision);
      } finally {
        deletion.close();
      }
    }
  }

  /** A transaction that writes, once nobody else holds what it may write. */
  async #guardedTxn(call: UnaryCall, request: TxnRequest): Promise<TxnResponse> {
    const { cache } = this.#session;
    const spans = writesOf(request);
    for (;;) {
      await this.#session.ready(call);
      const guards: Compare[] = [];
      for (const span of spans) if (span.rangeEnd.length > 0) guards.push(await this.#revokeRange(call, span));
      const held = new Set(spans.flatMap((span) => [...this.#heldIn(span)]));
      const names = new Set<string>();
      for (const { key, rangeEnd } of spans) {
        const name = nameOf(key);
        if (rangeEnd.length > 0 || names.has(name)) continue;
        names.add(name);
        guards.push(compareCreated(this.#session.leasingKey(key), "<", (cache.get(name)?.heldSince ?? 0) + 1));
      }
      const answer = await this.#whileUnknown([...held], () =>
        this.#lower.txn(call, { compare: guards, success: [txnOp(request)], failure: [] }),
      );
      if (answer.succeeded) {
        const inner = answer.responses[0]!.responseTxn!;
        this.#noteAll(request, inner, answer);
        return { ...inner, header: answer.header };
      }
      for (const span of spans) if (span.rangeEnd.length === 0) await this.#revokeRange(call, span);
    }
  }

  /**
   * Asks all who hold keys of a span to give them up. Resolves with a comparison that holds until others hold some.
   * What this proxy holds itself stays.
   */
  async #revokeRange(call: UnaryCall, { key, rangeEnd }: Span): Promise<Compare> {
    const { prefix, cache } = this.#session;
    const isToTheEnd = rangeEnd.length === 1 && rangeEnd[0] === 0;
    const leasingEnd = isToTheEnd ? endOfPrefix(prefix) : Buffer.concat([prefix, rangeEnd]);
    const span = {
      key: this.#session.leasingKey(key),
      rangeEnd: rangeEnd.length === 0 ? rangeEnd : leasingEnd,
    };
    const { kvs } = await this.#lower.range(call, { ...RangeRequest.create(), ...span });
    let newest = 0;
    for (const leasing of kvs) {
      newest = Math.max(newest, leasing.createRevision);
      const own = leasing.key.subarray(prefix.length);
      const held = cache.get(nameOf(own));
      if (held?.heldSince === leasing.createRevision) continue;
      if (held !== undefined) cache.drop(held);
      await this.#revoke(call, Uint8Array.from(own));
    }
    return { ...compareCreated(span.key, "<", newest + 1), rangeEnd: span.rangeEnd };
  }

  async #revoke(call: UnaryCall, key: Uint8Array): Promise<void> {
    const leasingKey = this.#session.leasingKey(key);
    const deletion = this.#session.expectDeletion(nameOf(key));
    try {
      const answer = await this.#lower.txn(call, {
        compare: [compareCreated(leasingKey, "=", 0)],
        success: [],
        failure: [revokeOp(leasingKey)],
      });
      if (!answer.succeeded) await this.#session.gone(call, deletion, answer.header!.revision);
    } finally {
      deletion.close();
    }
  }

  /** Runs a write of held keys, which are read from the cluster meanwhile, and given up when its outcome is not known. */
  async #whileUnknown(held: readonly Held[], write: () => Promise<TxnResponse>): Promise<TxnResponse> {
    const { cache } = this.#session;
    for (const each of held) each.writers++;
    try {
      return await write();
    } catch (error) {
      if (!isRefusal(error)) for (const each of held) cache.drop(each);
      throw error;
    } finally {
      for (const each of held) each.writers--;
    }
  }

  /** Takes over what a transaction has written. */
  #noteAll(request: TxnRequest, response: TxnResponse, { header }: TxnResponse): void {
    const ops = response.succeeded ? request.success : request.failure;
    const changes = new Map<Held, ((pair: KeyValue | undefined) => KeyValue | undefined) | undefined>();
    this.#collect(ops, response, header, changes);
    for (const [held, change] of changes) {
      if (change === undefined) this.#session.cache.drop(held);
      else this.#note(held, header, change);
    }
  }

  #collect(
    ops: readonly RequestOp[],
    response: TxnResponse,
    header: TxnResponse["header"],
    changes: Map<Held, ((pair: KeyValue | undefined) => KeyValue | undefined) | undefined>,
  ): void {
    ops.forEach(({ requestPut, requestDeleteRange, requestTxn }, i) => {
      if (requestPut !== undefined) {
        const held = this.#session.cache.get(nameOf(requestPut.key));
        if (held !== undefined) changes.set(held, changes.has(held) ? undefined : changeOf(requestPut, header));
      } else if (requestDeleteRange !== undefined) {
        for (const held of this.#heldIn(requestDeleteRange)) {
          changes.set(held, changes.has(held) ? undefined : () => undefined);
        }
      } else if (requestTxn !== undefined) {
        const inner = response.responses[i]?.responseTxn;
        if (inner !== undefined) {
          this.#collect(inner.succeeded ? requestTxn.success : requestTxn.failure, inner, header, changes);
        }
      }
    });
  }

  #heldIn({ key, rangeEnd }: Span): Iterable<Held> {
    return this.#session.cache.within(nameOf(key), nameOf(rangeEnd));
  }

  #notePut(held: Held, request: PutRequest, header: TxnResponse["header"]): void {
    const change = changeOf(request, header);
    if (change === undefined) this.#session.cache.drop(held);
    else this.#note(held, header, change);
  }

  #note(held: Held, header: TxnResponse["header"], change: (pair: KeyValue | undefined) => KeyValue | undefined): void {
    this.#session.cache.wrote(held, header!, change);
  }
}

const NO_BYTES = new Uint8Array();

/** What a put makes of a pair; undefined when the pair cannot be told, or will end with a lease. */
function changeOf(request: PutRequest, header: TxnResponse["header"]) {
  const { key, value, lease, ignoreValue, ignoreLease } = request;
  if (lease !== 0n || ignoreValue || ignoreLease) return undefined;
  const revision = header!.revision;
  const [ownKey, ownValue] = [Uint8Array.from(key), Uint8Array.from(value)];
  return (pair: KeyValue | undefined): KeyValue => ({
    key: ownKey,
    value: ownValue,
    createRevision: pair?.createRevision ?? revision,
    modRevision: revision,
    version: (pair?.version ?? 0) + 1,
    lease: 0n,
  });
}

/** Asks the owner of a key to give it up; its lease stays, by which the owner knows that it is meant. */
const revokeOp = (key: Uint8Array): RequestOp =>
  putOp({ key, value: REVOKE, lease: 0n, prevKv: false, ignoreValue: false, ignoreLease: true });

/** What a transaction may write, with those that it nests. */
function writesOf({ success, failure }: TxnRequest): Span[] {
  return [...success, ...failure].flatMap(({ requestPut, requestDeleteRange, requestTxn }): Span[] => {
    if (requestPut !== undefined) return [{ key: requestPut.key, rangeEnd: NO_BYTES }];
    if (requestDeleteRange !== undefined) return [requestDeleteRange];
    return requestTxn === undefined ? [] : writesOf(requestTxn);
  });
}

/** A member has refused the request, so that it has done nothing. */
function isRefusal(error: unknown): boolean {
  return error instanceof RpcError && REFUSALS.has(error.code);
}

const REFUSALS = new Set<number>([
  Code.INVALID_ARGUMENT,
  Code.NOT_FOUND,
  Code.PERMISSION_DENIED,
  Code.UNAUTHENTICATED,
  Code.OUT_OF_RANGE,
  Code.FAILED_PRECONDITION,
]);
