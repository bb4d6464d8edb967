import { Code } from "../../base/grpc-codes.ts";
import type { Logger } from "../../base/log.ts";
import type { MethodType } from "../../base/protobuf.ts";
import type { Owner, StepResult, Ticket, Turns, Work } from "../../base/turns.ts";
import type { HttpRequest, HttpResponse, HttpSink } from "../http/contract.ts";
import type { LocalCall, LocalCallSink } from "./call.ts";
import type { JsonCodec } from "./codec.ts";
import { encodeString, type StringStyle } from "./encode.ts";
import type { Intake } from "./intake.ts";
import type { JsonPieces } from "./pieces.ts";

/** Bytes of a message converted to JSON in one turn: well below a millisecond. A larger message takes several. */
const SLICE_BYTES = 32 * 1024;

/** A message too large for one turn, and its progress. */
interface Pending {
  readonly bytes: Uint8Array;
  at: number;
  readonly encoder: JsonPieces;
}

export interface AnswerOptions {
  readonly turns: Turns;
  readonly owner: Owner;
  readonly logger: Logger;
  /** Called once, when nothing is held for the request any more. */
  readonly closed: () => void;
}

/**
 * Converts a call's responses to an HTTP response. Its head is known with the first message, or at the end. Large
 * messages become JSON in slices, each when the client has taken the previous one, so that the extra memory does not
 * depend on their size.
 */
export class GatewayAnswer implements LocalCallSink {
  readonly codec: JsonCodec;
  readonly method: MethodType;
  readonly request: HttpRequest;
  readonly response: Promise<HttpResponse>;
  call: LocalCall | null = null;
  intake: Intake | null = null;
  readonly #options: AnswerOptions;
  #respond: (response: HttpResponse) => void = () => {};
  #started = false;
  /** Text that came before the sink. */
  #early = "";
  #sink: HttpSink | null = null;
  /** The sink is paused. */
  #full = false;
  /** Messages waiting for their turn; the first may be in progress. */
  #pending: Pending[] = [];
  /** Set while there is data that the sink would accept. */
  #ticket: Ticket | undefined;
  /** The message that the call sends in pieces. */
  #pieces: JsonPieces | null = null;
  /** How the call ended; the response ends when nothing is pending. */
  #end: { readonly code: number; readonly text: string } | null = null;
  #isOver = false;

  constructor(codec: JsonCodec, method: MethodType, request: HttpRequest, options: AnswerOptions) {
    this.codec = codec;
    this.method = method;
    this.request = request;
    this.#options = options;
    this.response = new Promise((resolve) => {
      this.#respond = resolve;
    });
  }

  /** Answers a request that does not become a call. */
  refuse(code: number, text: string): void {
    if (this.#isOver || this.#started) return;
    this.call?.dismiss();
    this.#respond(failure(code, text));
    this.#over();
  }

  /** The client is gone. */
  cancel(): void {
    this.call?.cancel();
    this.refuse(Code.CANCELED, "context canceled");
    this.#over();
  }

  // ---- input from the call

  message(bytes: Uint8Array, isOwned: boolean): boolean {
    if (this.#isOver) return false;
    const { typeName } = this.method.response;
    const { responseStream } = this.method;
    if (bytes.length > SLICE_BYTES || this.#pending.length > 0) {
      const encoder = this.codec.pieces(typeName, responseStream ? "stream" : "single");
      this.#pending.push({ bytes: isOwned ? bytes : Buffer.from(bytes), at: 0, encoder });
      this.#schedule();
      return false;
    }
    if (responseStream) return this.#write(`{"result":${this.codec.write(typeName, bytes, "stream")}}\n`);
    const body = this.codec.write(typeName, bytes, "single");
    this.#started = true;
    this.#respond({ status: 200, headers: SUCCESS, body });
    return true;
  }

  piece(bytes: Uint8Array): boolean {
    return this.#writePieces((pieces) => pieces.push(bytes));
  }

  piecesEnded(): boolean {
    return this.#writePieces((pieces) => {
      this.#pieces = null;
      return pieces.finish() + (this.method.responseStream ? "}\n" : "");
    });
  }

  pause(): void {
    this.intake?.pause();
  }

  resume(): void {
    this.intake?.resume();
  }

  ended(code: number, text: string): void {
    if (this.#end !== null) return;
    this.#end = { code, text };
    if (this.#pending.length === 0) this.#finish();
  }

  // ---- internal

  #finish(): void {
    if (this.#isOver) return;
    const { code, text } = this.#end!;
    if (this.#pieces !== null && this.#started) return this.#cutOff();
    if (!this.method.responseStream) {
      if (!this.#started) this.#respond(failure(code, text));
      else if (code !== Code.OK) return this.#cutOff();
    } else if (code !== Code.OK) {
      this.#write(`{"error":${statusJson(code, text, "stream")}}\n`, HTTP_STATUS[code]!, JSON_HEADERS);
    } else if (!this.#started) this.#respond({ status: 200, headers: {}, body: "" });
    // Until the sink is there its text waits; the sink is ended after that text.
    this.#over();
    this.#sink?.end();
  }

  /** A response that cannot be completed must not look complete. */
  #cutOff(): void {
    this.#over();
    this.#sink?.abort();
  }

  #over(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.intake?.stop();
    this.#pending = [];
    this.#pieces = null;
    this.request.onCancel = null;
    this.#ticket?.cancel();
    this.#options.closed();
  }

  #write(text: string, status = 200, headers: Readonly<Record<string, string>> = SUCCESS): boolean {
    if (this.#sink !== null) {
      this.#full = !this.#sink.write(text);
      return !this.#full;
    }
    this.#early += text;
    this.#full = true;
    if (!this.#started) this.#respond({ status, headers, body: (sink) => this.#attach(sink) });
    this.#started = true;
    return false;
  }

  #attach(sink: HttpSink): void {
    this.#sink = sink;
    sink.onDrain = () => this.#drained();
    this.#full = !sink.write(this.#early);
    this.#early = "";
    if (this.#isOver) {
      if (this.#end?.code === Code.OK || this.method.responseStream) sink.end();
      else sink.abort();
    } else if (!this.#full) this.#drained();
  }

  #drained(): void {
    this.#full = false;
    if (this.#isOver) return;
    if (this.#pending.length > 0) this.#schedule();
    else this.call?.drained();
  }

  /** Waiting for the client takes no turn: the work ends when the sink is full, and restarts when it has room. */
  #schedule(): void {
    if (this.#ticket !== undefined || (this.#full && this.#started)) return;
    const work: Work = {
      name: this.method.path,
      step: () => {
        const result = this.#step();
        if (result === "done") this.#ticket = undefined;
        return result;
      },
      fail: (error) => this.#unwritable(error),
    };
    this.#ticket = this.#options.turns.add(this.#options.owner, work);
    if (this.#ticket !== undefined) return;
    this.call?.cancel();
    if (this.#started) this.#cutOff();
    else this.refuse(Code.RESOURCE_EXHAUSTED, "etcdserver: too many requests: too many large ones wait for their turn");
  }

  /** Writes one slice of the first pending message. */
  #step(): StepResult {
    const first = this.#pending[0];
    if (this.#isOver || first === undefined) return "done";
    this.#write(this.#slice(first));
    if (this.#pending.length > 0) return this.#full ? "done" : "more";
    if (this.#end !== null) this.#finish();
    else if (!this.#full) this.call?.drained();
    return "done";
  }

  #writePieces(next: (pieces: JsonPieces) => string): boolean {
    if (this.#isOver) return false;
    const { responseStream, response } = this.method;
    try {
      let text = "";
      if (this.#pieces === null) {
        this.#pieces = this.codec.pieces(response.typeName, responseStream ? "stream" : "single");
        if (responseStream) text = '{"result":';
      }
      return this.#write(text + next(this.#pieces));
    } catch (error) {
      this.#unwritable(error);
      return false;
    }
  }

  /** An invalid message: a bug of this server, which ends only this response. */
  #unwritable(error: unknown): void {
    this.#options.logger.error("failed to write a response as JSON", { path: this.method.path, error: `${error}` });
    this.#pending = [];
    if (this.#started) this.#cutOff();
    this.call?.terminate(Code.INTERNAL, UNWRITABLE);
    this.refuse(Code.INTERNAL, UNWRITABLE);
  }

  #slice(first: Pending): string {
    const { responseStream } = this.method;
    let text = first.at === 0 && responseStream ? '{"result":' : "";
    text += first.encoder.push(first.bytes.subarray(first.at, first.at + SLICE_BYTES));
    first.at += SLICE_BYTES;
    if (first.at < first.bytes.length) return text;
    this.#pending.shift();
    return text + first.encoder.finish() + (responseStream ? "}\n" : "");
  }
}

const UNWRITABLE = "the response could not be written as JSON";

const JSON_HEADERS = { "content-type": "application/json" };
/** With the header of the gRPC response that etcd's gateway adds. */
const SUCCESS = { ...JSON_HEADERS, "grpc-metadata-content-type": "application/grpc" };

/** HTTP status for each gRPC code. Source: google/rpc/code.proto */
const HTTP_STATUS: readonly number[] = [
  200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401,
];

export function failure(code: number, text: string): HttpResponse {
  const headers = code === Code.UNAUTHENTICATED ? { ...JSON_HEADERS, "www-authenticate": text } : JSON_HEADERS;
  return { status: HTTP_STATUS[code]!, headers, body: statusJson(code, text, "single") };
}

function statusJson(code: number, text: string, style: StringStyle): string {
  return `{"code":${code},"message":${encodeString(text, style)}}`;
}
