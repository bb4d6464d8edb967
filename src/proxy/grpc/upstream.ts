/**
 * The cluster behind a gRPC proxy: calls in the name of the proxy's clients, each with its client's token and deadline.
 * Messages that the proxy does not need to understand pass as the bytes they are.
 */
import { inBackground } from "../../base/background.ts";
import { Code } from "../../base/grpc-codes.ts";
import type { Logger } from "../../base/log.ts";
import type { Codec, MethodType } from "../../base/protobuf.ts";
import type { Caller } from "../../client/caller.ts";
import { ClientClosedError } from "../../client/options.ts";
import { RpcError } from "../../client/rpc-error.ts";
import type { Safety } from "../../client/safety.ts";
import type { CallInfo, UnaryCall } from "../../rpc/contract.ts";

/** For calls whose client has set no deadline, and that a member answers at once. */
const NO_DEADLINE_MS = 60_000;

/** What all clients together may have in flight to the members. */
export interface UpstreamLimits {
  readonly callsMax: number;
  /** Of their requests. */
  readonly bytesMax: number;
}

const LIMITS: UpstreamLimits = { callsMax: 100_000, bytesMax: 256 * 1024 * 1024 };

export interface ForwardOptions {
  readonly safety: Safety;
  /** A member may take any time to answer. */
  readonly mayWait?: boolean;
}

export class Upstream {
  readonly caller: Caller;
  readonly #logger: Logger;
  readonly #requestBytesMax: number;
  readonly #limits: UpstreamLimits;
  #calls = 0;
  #bytes = 0;

  constructor(caller: Caller, logger: Logger, requestBytesMax: number, limits = LIMITS) {
    this.caller = caller;
    this.#logger = logger;
    this.#requestBytesMax = requestBytesMax;
    this.#limits = limits;
  }

  /** Whether a call with a request of so many bytes may go to a member; then `release` must follow. */
  admit(bytes: number): boolean {
    const { callsMax, bytesMax } = this.#limits;
    if (this.#calls >= callsMax || this.#bytes + bytes > bytesMax) return false;
    this.#calls++;
    this.#bytes += bytes;
    return true;
  }

  release(bytes: number): void {
    this.#calls--;
    this.#bytes -= bytes;
  }

  /** Forwards a call as it is. */
  forward(call: UnaryCall, method: MethodType, options: ForwardOptions): void {
    this.answer(call, async () => await this.send(call, method, call.message, options));
  }

  /** Answers a call with what `work` resolves with, or with its error. */
  answer(call: UnaryCall, work: () => Promise<Uint8Array>): void {
    const done = work().then(
      (message) => call.respond(message),
      (error: unknown) => failWith(call, error),
    );
    inBackground(done, "answer a call", this.#logger);
  }

  /** Sends a request in the name of the client of `call`. Rejects with RpcError. */
  async send(call: UnaryCall, method: MethodType, message: Uint8Array, options: ForwardOptions): Promise<Uint8Array> {
    const { length } = message;
    if (length > this.#requestBytesMax) {
      const limit = `trying to send message larger than max (${length} vs. ${this.#requestBytesMax})`;
      throw new RpcError(Code.RESOURCE_EXHAUSTED, limit);
    }
    if (!this.admit(length)) throw tooMany();
    const abort = new AbortController();
    call.onCancel = () => abort.abort(new RpcError(Code.CANCELED, "the client has left"));
    const { clock } = this.caller;
    const unbounded = options.mayWait === true ? Number.POSITIVE_INFINITY : NO_DEADLINE_MS;
    const timeoutMs =
      call.deadlineMs === Number.POSITIVE_INFINITY ? unbounded : Math.max(1, call.deadlineMs - clock.nowMs());
    const callOptions = { signal: abort.signal, timeoutMs, token: tokenOf(call) };
    try {
      return await this.caller.unary(asBytes(method), message, options.safety, callOptions, (response) => response);
    } finally {
      this.release(length);
    }
  }
}

/** The members have not answered as many calls as the proxy forwards at a time, or its clients ask for too much. */
export const tooMany = (): RpcError => new RpcError(Code.RESOURCE_EXHAUSTED, TOO_MANY);

/** The text of a member's own limits. */
export const TOO_MANY = "etcdserver: too many requests";

/** The token with which the client came. */
export const tokenOf = (call: CallInfo): string | undefined => call.header("token") ?? call.header("authorization");

/** The client asks for the end of a stream when the member that serves it has no leader. */
export const requiresLeader = (call: CallInfo): boolean => call.header("hasleader") === "true";

/** Fails a call with the error of a member, or of the way to it. */
export function failWith(call: { fail(code: number, message: string): void }, error: unknown): void {
  if (error instanceof RpcError) call.fail(error.code, error.details);
  else if (error instanceof ClientClosedError) call.fail(Code.UNAVAILABLE, "the proxy is stopping");
  else throw error;
}

const bytes: Codec<Uint8Array> = {
  typeName: "bytes",
  create: () => new Uint8Array(),
  decode: (buffer, start = 0, end = buffer.length) => buffer.subarray(start, end),
  encode: (message) => Buffer.from(message.buffer, message.byteOffset, message.byteLength),
  write: (writer, message) => void writer.raw(message),
  read: () => new Uint8Array(),
};

const bytesMethods = new Map<string, MethodType<Uint8Array, Uint8Array>>();

/** The same method, whose messages are bytes. */
export function asBytes(method: MethodType): MethodType<Uint8Array, Uint8Array> {
  let found = bytesMethods.get(method.path);
  if (found === undefined) {
    found = { ...method, request: bytes, response: bytes };
    bytesMethods.set(method.path, found);
  }
  return found;
}
