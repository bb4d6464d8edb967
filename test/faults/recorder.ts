/** Makes calls to real members and records their results, on the observer's monotonic clock. */

import type { MethodType } from "../../src/base/protobuf.ts";
import { type RawClient, RpcError } from "../../src/client/raw.ts";
import type { ResponseHeader } from "../../src/proto/etcdserverpb.ts";
import type { Action, Moment, Operation } from "../sim/checkers/history.ts";
import type { LeaseLog } from "../sim/checkers/lease.ts";
import type { WatchLog } from "../sim/checkers/watch.ts";

/** One member as clients see it: its name, and a connection that survives its restarts. */
export interface Target {
  readonly name: string;
  readonly client: RawClient;
}

/** A client's time limit. A member gives up after seven seconds. */
const CALL_MS = 8_000;

export class Recorder {
  readonly operations: Operation[] = [];
  readonly watches: WatchLog[] = [];
  readonly leases: LeaseLog[] = [];
  /** Why calls got no answer, and how often. */
  readonly errors = new Map<string, number>();
  #known = 1;
  #ids: number;
  #pending = 0;

  constructor(firstId = 0) {
    this.#ids = firstId;
  }

  /** Milliseconds; never goes back. */
  get now(): Moment {
    return performance.now();
  }

  /** The largest revision reported to a client. */
  get known(): number {
    return this.#known;
  }

  /** Calls without an answer yet. */
  get pending(): number {
    return this.#pending;
  }

  /** A number used nowhere else. */
  next(): number {
    return ++this.#ids;
  }

  tellRevision(revision: number): void {
    this.#known = Math.max(this.#known, revision);
  }

  /** Resolves with the answer, or with the error of a failed call; never rejects with an RpcError. */
  async call<I, O extends { header: ResponseHeader | undefined }>(
    client: string,
    target: Target,
    action: Action,
    method: MethodType<I, O>,
    request: I,
    answer: (response: O) => unknown,
  ): Promise<O | RpcError> {
    const operation: Operation = {
      id: this.operations.length,
      client,
      member: target.name,
      action,
      invoked: this.now,
      returned: Number.POSITIVE_INFINITY,
      outcome: { kind: "unknown", error: "no answer yet" },
    };
    this.operations.push(operation);
    this.#pending++;
    try {
      const response = await target.client.unary(method, request, { timeoutMs: CALL_MS });
      operation.returned = this.now;
      const revision = response.header?.revision ?? 0;
      this.tellRevision(revision);
      operation.outcome = { kind: "ok", revision, answer: answer(response) };
      return response;
    } catch (error) {
      if (!(error instanceof RpcError)) throw error;
      operation.returned = this.now;
      const text = error.details;
      operation.outcome = { kind: hadNoEffect(text) ? "refused" : "unknown", error: text };
      const short = text.replaceAll(/[0-9a-f]{12,}|\d{3,}/g, "…").slice(0, 100);
      this.errors.set(short, (this.errors.get(short) ?? 0) + 1);
      return error;
    } finally {
      this.#pending--;
    }
  }
}

/** Errors after which a request certainly had no effect, and will have none. */
const NO_EFFECT = [
  // The call was never given to a connection.
  "No connection established",
  "lease not found",
  "lease already exists",
  "key not found",
  "has been compacted",
  "is a future revision",
  "request is too large",
  "too many requests",
];

const hadNoEffect = (error: string): boolean => NO_EFFECT.some((text) => error.includes(text));
