import { AuthInfo } from "../../auth/auth-info.ts";
import { Allowance } from "../../base/allowance.ts";
import { Owner, type Work } from "../../base/turns.ts";
import { CompactedError, FutureRevisionError } from "../../mvcc/model/types.ts";
import type { ReadPoint } from "../../mvcc/store/range-cursor.ts";
import type { MvccStore } from "../../mvcc/store/store.ts";
import type { DeleteRangeResponse, PutResponse, RangeRequest, TxnResponse } from "../../proto/etcdserverpb.ts";
import type { CallInfo, RpcSocket, StreamCall, UnaryCall } from "../../rpc/contract.ts";
import { type EtcdError, errors } from "../../server/contract/errors.ts";
import { READ_SLICE, type ReadSlice } from "../../server/contract/options.ts";
import type { DeferredAnswer } from "../../server/log/outcome.ts";
import type { EtcdServer } from "../../server/server.ts";
import type { Access } from "../calls/access.ts";
import { failWithAny } from "../calls/calls.ts";
import { HeaderWriter } from "../calls/header.ts";
import { RangeAnswer } from "./answer.ts";
import { type AnswerPlan, AnswerWork, type MeasuredPart } from "./answer-work.ts";
import { AnswerTree } from "./deferred-answer.ts";
import { PiecesPart } from "./pieces-part.ts";
import { rowsRemembered } from "./rows.ts";
import { RangeStreamWork } from "./stream.ts";

/** Users whose time is tracked; beyond, all are dropped and tracked from zero. */
const USERS_MAX = 10_000;
/** Rows held by all running sorts, about 30 bytes each. A larger sort runs alone. */
const SORTED_ROWS_MAX = 2_000_000;

/**
 * Answers that may take more than one turn: produced in slices between other work, and sent as the client reads. Their
 * time is charged to the user, or without users to the connection, so that asking more often gains nothing.
 */
export class LongAnswers {
  readonly #server: EtcdServer;
  readonly #header: HeaderWriter;
  readonly #access: Access;
  readonly #connections = new WeakMap<RpcSocket, Owner>();
  readonly #users = new Map<string, Owner>();
  readonly #limits: ReadSlice;
  readonly #memory = new Allowance(SORTED_ROWS_MAX);

  constructor(server: EtcdServer, header: HeaderWriter, access: Access) {
    this.#server = server;
    this.#header = header;
    this.#access = access;
    this.#limits = server.options.readSlice ?? READ_SLICE;
  }

  /** Answers a range, of any form and size, at the current newest state. */
  range(call: UnaryCall, request: RangeRequest): void {
    const { store } = this.#server;
    try {
      const point = pointOf(store, request.revision);
      const count = liveCount(store, request, point);
      const part = new RangeAnswer(store, request, point, count, this.#limits);
      const header = this.#headerBytes(store.currentRevision);
      const rows = rowsRemembered(store, request, count);
      this.#begin(call, "Range", point, [part], () => [header, part], rows, false);
    } catch (error) {
      failWithAny(call, error);
    }
  }

  /**
   * Completes a response with pending reads, and sends it. `isApplied`: its request has passed the log, so it must not
   * be refused any more.
   */
  deferred(
    call: UnaryCall,
    name: string,
    answer: DeferredAnswer<TxnResponse | DeleteRangeResponse | PutResponse>,
    isApplied: boolean,
  ): void {
    const { response } = answer;
    response.header = this.#header.fill(response.header);
    try {
      const tree = new AnswerTree(this.#server.store, answer, this.#limits);
      this.#begin(call, name, tree.point, tree.parts, () => tree.assemble(), tree.rowsRemembered, isApplied);
    } catch (error) {
      failWithAny(call, isApplied && error instanceof CompactedError ? errors.appliedUnanswered : error);
    }
  }

  /** Answers with a message whose last field is a list produced in slices. `head` encodes the fields before it. */
  list(call: UnaryCall, name: string, list: Iterator<Buffer | undefined>, head: () => Uint8Array): void {
    const part = new PiecesPart(list);
    const assemble = (): (Buffer | MeasuredPart)[] => [Buffer.from(head()), part];
    const memory = { rows: 0, of: this.#memory };
    const plan = { name, parts: [part], assemble, check: this.#checkLater(), isApplied: false, pin: null };
    this.start(call, new AnswerWork(call, { ...plan, memory, limits: this.#limits }));
  }

  rangeStream(call: StreamCall, request: RangeRequest): void {
    const { store } = this.#server;
    try {
      const point = pointOf(store, request.revision);
      const count = liveCount(store, request, point);
      const work = new RangeStreamWork(this.#server, this.#header, call, request, point, count, this.#memory);
      work.begin(this.ownerOf(call));
    } catch (error) {
      failWithAny(call, error);
    }
  }

  /** Begins an answer with parts of unknown length, read at `point`. */
  #begin(
    call: UnaryCall,
    name: string,
    point: ReadPoint,
    parts: readonly MeasuredPart[],
    assemble: AnswerPlan["assemble"],
    rowsRemembered: number,
    isApplied: boolean,
  ): void {
    const plan: AnswerPlan = {
      name,
      parts,
      assemble,
      // The caller's permissions were checked when it was applied.
      check: isApplied ? () => null : this.#checkLater(),
      isApplied,
      pin: this.#server.store.pin(point),
      memory: { rows: rowsRemembered, of: this.#memory },
      limits: this.#limits,
    };
    this.start(call, new AnswerWork(call, plan), isApplied);
  }

  /** Queues work for a call, or refuses the call if that is still allowed. */
  start(call: UnaryCall, work: Work, isApplied = false): void {
    const { turns } = this.#server;
    const owner = this.ownerOf(call);
    if (isApplied) turns.mustBegin(owner, work);
    else if (turns.begin(owner, work) === undefined) work.fail(errors.tooManyLongRequests);
  }

  /** The owner charged for a call's time. */
  ownerOf(call: CallInfo): Owner {
    const user = this.#access.enabled ? this.#access.userOf(call) : undefined;
    if (user instanceof AuthInfo && user.username !== "") {
      let owner = this.#users.get(user.username);
      if (owner === undefined) {
        if (this.#users.size >= USERS_MAX) this.#users.clear();
        owner = new Owner(`user ${user.username}`);
        this.#users.set(user.username, owner);
      }
      return owner;
    }
    let owner = this.#connections.get(call.socket);
    if (owner === undefined) this.#connections.set(call.socket, (owner = new Owner(call.remoteAddress)));
    return owner;
  }

  /** The caller's permissions must still hold when the answer is sent. */
  #checkLater(): () => EtcdError | null {
    const { auth } = this.#server;
    if (!auth.enabled) return () => null;
    const { revision } = auth;
    return () => (auth.revision === revision ? null : errors.authOldRevision);
  }

  /** A header as the first field of an answer. */
  #headerBytes(revision: number): Buffer {
    const bytes = Buffer.alloc(HeaderWriter.BYTES_MAX);
    return bytes.subarray(0, this.#header.write(bytes, 0, revision));
  }
}

/** The revision of a request, where 0 is the current one. Throws CompactedError, FutureRevisionError. */
export function readableRevision(store: MvccStore, revision: number): number {
  if (revision <= 0) return store.currentRevision;
  if (revision > store.currentRevision) throw new FutureRevisionError(store.currentRevision);
  if (revision < store.compactRevision) throw new CompactedError(store.compactRevision);
  return revision;
}

function pointOf(store: MvccStore, revision: number): ReadPoint {
  return { main: readableRevision(store, revision), sub: Number.POSITIVE_INFINITY };
}

/** Keys of a range at the current revision; undefined for an older one, where they must be counted individually. */
function liveCount(store: MvccStore, request: RangeRequest, { main }: ReadPoint): number | undefined {
  if (main !== store.currentRevision) return undefined;
  return request.rangeEnd.length === 0 ? undefined : store.countLive(request.key, request.rangeEnd);
}
