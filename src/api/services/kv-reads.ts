/** Reads of the service KV that wait: for the read index, or for a turn. */
import type { StepResult, Work } from "../../base/turns.ts";
import type { RangeRequest, TxnRequest } from "../../proto/etcdserverpb.ts";
import type { CallInfo, StreamCall, UnaryCall } from "../../rpc/contract.ts";
import type { EtcdError } from "../../server/contract/errors.ts";
import type { Read } from "../../server/log/read-queue.ts";
import { refused } from "../calls/access.ts";
import { failWith, failWithAny } from "../calls/calls.ts";
import type { ReadTiming } from "../calls/read-timing.ts";
import type { LongAnswers } from "../range/long-answers.ts";

/** Serves them; for the times, see ReadTiming. */
export interface KvReads {
  readonly long: LongAnswers;
  readonly rangeTiming: ReadTiming;
  readonly txnTiming: ReadTiming;
  refusalOfRange(call: CallInfo, request: RangeRequest): EtcdError | null;
  serveRange(call: UnaryCall, request: RangeRequest, startMs: number, servedMs: number): void;
  /** A range of several keys, whose permissions are checked. */
  serveSeveral(call: UnaryCall, request: RangeRequest, startMs: number, servedMs: number): void;
  serveTxn(call: UnaryCall, request: TxnRequest, startMs: number): void;
}

export class PendingRange implements Read {
  readonly #api: KvReads;
  readonly #call: UnaryCall;
  readonly #request: RangeRequest;
  readonly #startMs: number;

  constructor(api: KvReads, call: UnaryCall, request: RangeRequest, startMs: number) {
    this.#api = api;
    this.#call = call;
    this.#request = request;
    this.#startMs = startMs;
  }

  failed(error: unknown): void {
    this.#call.crashed(error);
  }

  serve(error: EtcdError | null): void {
    const { rangeTiming } = this.#api;
    const servedMs = rangeTiming.begin();
    if (error === null) this.#api.serveRange(this.#call, this.#request, this.#startMs, servedMs);
    else {
      rangeTiming.end(this.#startMs, servedMs, false);
      failWith(this.#call, error);
    }
  }
}

export class PendingTxn implements Read {
  readonly #api: KvReads;
  readonly #call: UnaryCall;
  readonly #request: TxnRequest;
  readonly #startMs: number;

  constructor(api: KvReads, call: UnaryCall, request: TxnRequest, startMs: number) {
    this.#api = api;
    this.#call = call;
    this.#request = request;
    this.#startMs = startMs;
  }

  failed(error: unknown): void {
    this.#call.crashed(error);
  }

  serve(error: EtcdError | null): void {
    if (error === null) this.#api.serveTxn(this.#call, this.#request, this.#startMs);
    else {
      this.#api.txnTiming.end(this.#startMs, this.#startMs, false);
      failWith(this.#call, error);
    }
  }
}

/** A range that fits into one turn, but not the one in which it arrived. */
export class ShortRangeWork implements Work {
  readonly name = "Range";
  readonly #api: KvReads;
  readonly #call: UnaryCall;
  readonly #request: RangeRequest;
  readonly #startMs: number;
  readonly #servedMs: number;

  constructor(api: KvReads, call: UnaryCall, request: RangeRequest, startMs: number, servedMs: number) {
    this.#api = api;
    this.#call = call;
    this.#request = request;
    this.#startMs = startMs;
    this.#servedMs = servedMs;
  }

  step(): StepResult {
    const call = this.#call;
    if (call.cancelled) return "done";
    // Users and permissions may have changed meanwhile.
    const api = this.#api;
    if (!refused(call, api.refusalOfRange(call, this.#request))) {
      api.serveSeveral(call, this.#request, this.#startMs, this.#servedMs);
    }
    return "done";
  }

  fail(error: unknown): void {
    this.#api.rangeTiming.end(this.#startMs, this.#servedMs, false);
    failWithAny(this.#call, error);
  }
}

export class RangeStreamRead implements Read {
  readonly #api: KvReads;
  readonly #call: StreamCall;
  readonly #request: RangeRequest;

  constructor(api: KvReads, call: StreamCall, request: RangeRequest) {
    this.#api = api;
    this.#call = call;
    this.#request = request;
  }

  failed(error: unknown): void {
    this.#call.crashed(error);
  }

  serve(error: EtcdError | null): void {
    const api = this.#api;
    if (error !== null) failWith(this.#call, error);
    else if (!refused(this.#call, api.refusalOfRange(this.#call, this.#request))) {
      api.long.rangeStream(this.#call, this.#request);
    }
  }
}
