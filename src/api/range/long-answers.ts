import { AuthInfo } from "../../auth/auth-info.ts";
import { Allowance } from "../../base/allowance.ts";
import type { Slices } from "../../base/slices.ts";
import { Owner, type Work } from "../../base/turns.ts";
import { CompactedError, FutureRevisionError } from "../../mvcc/model/types.ts";
import type { Pin } from "../../mvcc/store/pins.ts";
import type { ReadPoint } from "../../mvcc/store/range-cursor.ts";
import type { MvccStore } from "../../mvcc/store/store.ts";
import type { DeleteRangeResponse, PutResponse, RangeRequest, TxnResponse } from "../../proto/etcdserverpb.ts";
import type { CallInfo, RpcSocket, StreamCall, UnaryCall } from "../../rpc/contract.ts";
import { type EtcdError, errors } from "../../server/contract/errors.ts";
import { READ_SLICE, type ReadSlice } from "../../server/contract/options.ts";
import type { DeferredAnswer, DeferredRead } from "../../server/log/outcome.ts";
import type { EtcdServer } from "../../server/server.ts";
import type { Access } from "../calls/access.ts";
import { failWithAny } from "../calls/calls.ts";
import { HeaderWriter } from "../calls/header.ts";
import { RangeAnswer } from "./answer.ts";
import { type AnswerPlan, AnswerWork, type MeasuredPart } from "./answer-work.ts";
import { AnswerTree } from "./deferred-answer.ts";
import { PiecesPart } from "./pieces-part.ts";
import { rowsRemembered } from "./rows.ts";
import { SlicedWork } from "./sliced-work.ts";
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

  /** Answers a range, of any form and size, at the current newest state. `onEnd`: it is answered, or has failed. */
  range(call: UnaryCall, request: RangeRequest, onEnd: (success: boolean) => void): void {
    const { store } = this.#server;
    try {
      const point = pointOf(store, request.revision);
      const count = liveCount(store, request, point);
      const part = new RangeAnswer(store, request, point, count, this.#limits);
      const header = this.#headerBytes(store.currentRevision);
      const rows = rowsRemembered(store, request, count);
      this.#begin(call, {
        name: "Range",
        parts: [part],
        assemble: () => inOrder(header, part),
        rows,
        isApplied: false,
        point,
        onEnd,
      });
    } catch (error) {
      onEnd(false);
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
    const { store } = this.#server;
    answer.response.header = this.#header.fill(answer.response.header);
    const point = earliest(answer.reads.values());
    const slices = AnswerTree.inSlices(store, answer, this.#limits);
    const begin = (tree: AnswerTree): void =>
      this.#begin(call, {
        name,
        parts: tree.parts,
        assemble: () => tree.assemble(),
        rows: tree.rowsRemembered,
        isApplied,
        point,
      });
    try {
      // Nearly all are ready after the first slice.
      const { done, value } = slices.next();
      if (done === true) begin(value);
      else
        this.start(
          call,
          new SlicedWork(call, { name, slices, pin: pinAt(store, point), isApplied, onDone: begin }),
          isApplied,
        );
    } catch (error) {
      failWithAny(call, isApplied && error instanceof CompactedError ? errors.appliedUnanswered : error);
    }
  }

  /** Answers with a message whose last field is a list produced in slices. `head` encodes the fields before it. */
  list(call: UnaryCall, name: string, list: Iterator<Buffer | undefined>, head: () => Uint8Array): void {
    const part = new PiecesPart(list);
    const assemble = (): Slices<Pieces> => inOrder(Buffer.from(head()), part);
    this.#begin(call, { name, parts: [part], assemble, rows: 0, isApplied: false, point: undefined });
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

  /** Begins an answer with parts of unknown length. */
  #begin(call: UnaryCall, { rows, point, ...answer }: BegunAnswer): void {
    const plan: AnswerPlan = {
      ...answer,
      // The caller's permissions were checked when it was applied.
      check: answer.isApplied ? () => null : this.#checkLater(),
      pin: pinAt(this.#server.store, point),
      memory: { rows, of: this.#memory },
      limits: this.#limits,
    };
    this.start(call, new AnswerWork(call, plan), answer.isApplied);
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

interface BegunAnswer extends Pick<AnswerPlan, "name" | "parts" | "assemble" | "isApplied" | "onEnd"> {
  /** Rows that the parts will hold at a time. */
  readonly rows: number;
  /** The earliest read point of the parts; undefined when they read nothing. */
  readonly point: ReadPoint | undefined;
}

type Pieces = readonly (Buffer | MeasuredPart)[];

// biome-ignore lint/correctness/useYield: there is nothing to wait for.
function* inOrder(...pieces: Pieces): Slices<Pieces> {
  return pieces;
}

const pinAt = (store: MvccStore, point: ReadPoint | undefined): Pin | null =>
  point === undefined ? null : store.pin(point);

function earliest(reads: Iterable<DeferredRead>): ReadPoint | undefined {
  let first: ReadPoint | undefined;
  for (const { point } of reads) if (first === undefined || isBefore(point, first)) first = point;
  return first;
}

function isBefore(a: ReadPoint, b: ReadPoint): boolean {
  return a.main < b.main || (a.main === b.main && a.sub < b.sub);
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
