/** One request and its response, over as many attempts as are safe within its deadline. */

import { messageOf } from "../base/errors.ts";
import { Code } from "../base/grpc-codes.ts";
import type { MethodType } from "../base/protobuf.ts";
import type { Caller, Retry } from "./caller.ts";
import { type CallDiagnostics, callChannel } from "./diagnostics.ts";
import type { ForwardedOptions } from "./options.ts";
import { RpcError } from "./rpc-error.ts";
import type { Safety } from "./safety.ts";
import { CallSpan } from "./tracing.ts";
import { Call, type Reached } from "./transport/call.ts";
import type { Link, Waiter } from "./transport/links.ts";
import type { CallHead } from "./transport/request-encoder.ts";

export class UnaryCall<I, O, R> extends Call implements Waiter, Retry {
  head: CallHead;
  readonly endpoint: string | undefined;
  readonly #caller: Caller;
  readonly #method: MethodType<I, O>;
  readonly #request: Buffer;
  readonly #safety: Safety;
  readonly #timeoutMs: number;
  readonly #token: string | undefined;
  readonly #signal: AbortSignal | undefined;
  readonly #convert: (response: O) => R;
  readonly #resolve: (result: R) => void;
  readonly #reject: (error: unknown) => void;
  #response: Uint8Array | undefined;
  #link: Link | undefined;
  #tries = 0;
  #isDone = false;
  /** Among the client's bytes without an answer. */
  #isCounted = false;
  /** With OpenTelemetry. */
  #span: CallSpan | undefined;
  /** When it began, if somebody listens. */
  #beganMs = 0;
  /** An attempt that may have been carried out failed: true for writes alone, and then it is the last. */
  #lastError: RpcError | undefined;

  constructor(
    caller: Caller,
    method: MethodType<I, O>,
    request: Buffer,
    safety: Safety,
    options: ForwardedOptions | undefined,
    convert: (response: O) => R,
    resolve: (result: R) => void,
    reject: (error: unknown) => void,
  ) {
    super(caller.deadlineOf(options, caller.timeoutMs), caller.responseBytesMax);
    this.#caller = caller;
    this.#method = method;
    this.#request = request;
    this.#safety = safety;
    this.#timeoutMs = options?.timeoutMs ?? caller.timeoutMs;
    this.#token = options?.token;
    this.#signal = options?.signal;
    this.endpoint = options?.endpoint;
    this.#convert = convert;
    this.#resolve = resolve;
    this.#reject = reject;
    this.head = caller.headOf(method.path, this.#timeoutMs, false, this.#token);
  }

  begin(): void {
    const signal = this.#signal;
    if (signal !== undefined) {
      if (signal.aborted) return this.cancel(signal.reason);
      signal.addEventListener("abort", this.#onAbort);
    }
    if (callChannel.hasSubscribers) this.#beganMs = this.#caller.clock.nowMs();
    this.#span = CallSpan.begin(this.#method.path);
    if (this.#span !== undefined) this.head = this.#headNow();
    const refusal = this.#caller.pending.admit(this.#request.length);
    if (refusal !== undefined) return this.cancel(refusal);
    this.#isCounted = true;
    this.#caller.track(this);
    if (this.deadlineMs !== Number.POSITIVE_INFINITY) this.#caller.deadlines.add(this);
    const { tokens } = this.#caller;
    if (tokens?.isNeededBy(this.#method.path)) tokens.renew(this);
    else this.#attempt();
  }

  #attempt(): void {
    const { links } = this.#caller;
    const link = this.endpoint === undefined ? links.pick() : links.to(this.endpoint);
    if (link?.connection === undefined) links.wait(this);
    else this.onConnection(link);
  }

  onConnection(link: Link): void {
    const { connection } = link;
    if (this.#isDone) return;
    if (connection === undefined) return this.#attempt();
    this.#tries++;
    this.#link = link;
    connection.start(this);
    connection.send(this, this.#request, true);
  }

  onUnreachable(): void {
    this.cancel(this.#caller.notConnected(this.endpoint));
  }

  onRetry(): void {
    if (this.#isDone) return;
    this.reset();
    this.#response = undefined;
    this.head = this.#headNow();
    this.#attempt();
  }

  #headNow(): CallHead {
    const head = this.#caller.headOf(this.#method.path, this.#timeoutMs, false, this.#token);
    const trace = this.#span?.traceparent;
    return trace === undefined ? head : { ...head, trace };
  }

  onMessage(bytes: Uint8Array): void {
    this.#response = bytes;
  }

  onEnd(code: number, details: string, reached: Reached): void {
    if (this.#isDone) return;
    if (code !== Code.OK) return this.#failed(code, details, reached);
    const response = this.#response;
    if (response === undefined) return this.#failed(Code.INTERNAL, "the server sent no response", "maybe");
    this.#finish(Code.OK);
    let result: R;
    try {
      result = this.#convert(this.#method.response.decode(response));
    } catch (error) {
      this.#reject(error);
      return;
    }
    this.#resolve(result);
  }

  #failed(code: number, details: string, reached: Reached): void {
    const lost = this.#safety === "write" && (reached === "maybe" || (reached === "yes" && isUndecided(code)));
    this.#lastError = new RpcError(code, details, lost);
    const again = this.#caller.retry(
      this.head.path,
      code,
      details,
      reached,
      this.#safety,
      this.#tries,
      this.#link,
      this,
    );
    if (!again) this.cancel(this.#lastError);
  }

  onDeadline(): void {
    const sent = this.id !== 0 && this.connection !== null;
    if (sent) this.#link?.avoid();
    if (!sent) return this.cancel(this.#lastError ?? this.#caller.notConnected(this.endpoint));
    const text = `no answer from ${this.#link?.endpoint} within the ${this.#timeoutMs} ms of the call`;
    this.cancel(new RpcError(Code.DEADLINE_EXCEEDED, text, this.#safety === "write"));
  }

  /** Ends the call with an error, once. */
  cancel(error: unknown): void {
    if (this.#isDone) return;
    this.#finish(error instanceof RpcError ? error.code : undefined);
    this.connection?.drop(this);
    this.#reject(error ?? new RpcError(Code.CANCELED, messageOf(error)));
  }

  readonly #onAbort = (): void => this.cancel(this.#signal!.reason);

  #finish(code: number | undefined): void {
    this.#isDone = true;
    if (callChannel.hasSubscribers) this.#publish(code);
    this.#span?.end(code, this.#link?.endpoint, this.#tries);
    this.#signal?.removeEventListener("abort", this.#onAbort);
    this.#caller.deadlines.remove(this);
    this.#caller.links.forget(this);
    this.#caller.untrack(this);
    if (this.#isCounted) this.#caller.pending.release(this.#request.length);
  }

  #publish(code: number | undefined): void {
    const tookMs = this.#beganMs === 0 ? 0 : this.#caller.clock.nowMs() - this.#beganMs;
    const told: CallDiagnostics = {
      method: this.#method.path,
      endpoint: this.#link?.endpoint,
      code,
      attempts: this.#tries,
      tookMs,
    };
    callChannel.publish(told);
  }
}

/** A server's answer of which the request may have been carried out, or still will be. */
function isUndecided(code: number): boolean {
  return (
    code === Code.UNAVAILABLE || code === Code.UNKNOWN || code === Code.DEADLINE_EXCEEDED || code === Code.CANCELED
  );
}
