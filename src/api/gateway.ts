import type { Clock } from "../base/clock.ts";
import { Code } from "../base/grpc-codes.ts";
import type { MethodType } from "../base/protobuf.ts";
import * as etcdserverpb from "../proto/etcdserverpb.ts";
import { ElectionService } from "../proto/v3electionpb.ts";
import { LockService } from "../proto/v3lockpb.ts";
import type { RpcServer } from "../rpc/server.ts";
import { parseTimeout } from "../rpc/status.ts";
import type { Access } from "./access.ts";
import { LocalCall, type LocalCallSink } from "./gateway-call.ts";
import type { JsonCodec } from "./gateway-codec.ts";
import { encodeString, type StringStyle } from "./gateway-encode.ts";
import type { HttpHandler, HttpRequest, HttpResponse, HttpSink } from "./http.ts";

export interface GatewayOptions {
  readonly rpc: RpcServer;
  readonly access: Access;
  readonly clock: Clock;
  /** A larger message fails as it does over gRPC. */
  readonly maxMessageBytes: number;
}

/** Calls that may be open at a time: beyond, clients are told to come back. */
const CALLS_MAX = 10_000;

/**
 * The JSON gateway: `POST /v3/…` with a message as JSON, answered with the response as JSON, or for a streaming method
 * with one `{"result":…}` a line. Each request becomes a call of the gRPC handler itself.
 * Source: https://etcd.io/docs/v3.6/dev-guide/api_grpc_gateway/ and the google.api.http options in proto/.
 */
export function gatewayHandler(options: GatewayOptions): HttpHandler {
  const gateway = new Gateway(options);
  return (request) => {
    const path = request.path.startsWith(OLD_PREFIX) ? PREFIX + request.path.slice(OLD_PREFIX.length) : request.path;
    return path.startsWith(PREFIX) ? gateway.serve(path, request) : undefined;
  };
}

const PREFIX = "/v3/";
/** Its name before etcd 3.4. */
const OLD_PREFIX = "/v3beta/";

class Gateway {
  readonly #options: GatewayOptions;
  readonly #methods = new Map<string, MethodType>();
  #loading: Promise<JsonCodec> | undefined;
  #calls = 0;

  constructor(options: GatewayOptions) {
    this.#options = options;
    for (const method of SERVICES.flatMap((service): MethodType[] => Object.values(service))) {
      for (const path of method.httpPaths) this.#methods.set(path, method);
    }
  }

  async serve(path: string, request: HttpRequest): Promise<HttpResponse> {
    if (this.#options.access.ignoresCertificateOf(request.socket)) return CERTIFICATE_IGNORED;
    const method = this.#methods.get(path);
    if (method === undefined) return failure(Code.NOT_FOUND, "Not Found");
    if (request.method !== "POST") return failure(Code.UNIMPLEMENTED, "Method Not Allowed");
    const timeoutMs = timeoutOf(request);
    if (typeof timeoutMs === "string") return failure(Code.INVALID_ARGUMENT, timeoutMs);
    if (this.#calls >= CALLS_MAX) {
      return failure(
        Code.RESOURCE_EXHAUSTED,
        `etcdserver: too many requests: the gateway serves ${CALLS_MAX} at a time`,
      );
    }
    this.#calls++;
    let open = true;
    const closed = (): void => {
      if (open) this.#calls--;
      open = false;
    };
    try {
      this.#loading ??= import("./gateway-codec.ts").then(({ JsonCodec }) => new JsonCodec());
      return await this.#call(new Answer(await this.#loading, method, request, closed), timeoutMs);
    } catch (error) {
      closed();
      throw error;
    }
  }

  #call(answer: Answer, timeoutMs: number): Promise<HttpResponse> {
    const { codec, method, request } = answer;
    const { messages, error } = codec.read(method.request.typeName, request.body, method.requestStream);
    // What is wrong in a stream of requests ends the stream; what came before is served.
    if (error !== undefined && !method.requestStream) return answer.refuse(Code.INVALID_ARGUMENT, error);
    const { rpc, clock, maxMessageBytes } = this.#options;
    const call = new LocalCall(rpc, method.path, request, clock, timeoutMs, answer);
    answer.call = call;
    request.onCancel = () => call.cancel();
    const tooLarge = messages.find(({ length }) => length > maxMessageBytes);
    if (tooLarge !== undefined) {
      const sizes = `(${tooLarge.length} vs. ${maxMessageBytes})`;
      call.refuse(Code.RESOURCE_EXHAUSTED, `grpc: received message larger than max ${sizes}`);
    } else if (request.cancelled) call.cancel();
    else call.start(messages);
    return answer.response;
  }
}

/** Turns what a call sends into an HTTP answer. Its head is known with the first message, or with the end. */
class Answer implements LocalCallSink {
  readonly codec: JsonCodec;
  readonly method: MethodType;
  readonly request: HttpRequest;
  readonly response: Promise<HttpResponse>;
  call: LocalCall | null = null;
  readonly #closed: () => void;
  #respond: (response: HttpResponse) => void = () => {};
  #started = false;
  /** Pieces that came before the sink. */
  #early = "";
  #sink: HttpSink | null = null;
  #ended = false;

  constructor(codec: JsonCodec, method: MethodType, request: HttpRequest, closed: () => void) {
    this.codec = codec;
    this.method = method;
    this.request = request;
    this.#closed = closed;
    this.response = new Promise((resolve) => {
      this.#respond = resolve;
    });
  }

  /** Answers a request that becomes no call. */
  async refuse(code: number, text: string): Promise<HttpResponse> {
    this.#closed();
    return failure(code, text);
  }

  message(bytes: Uint8Array): boolean {
    const { typeName } = this.method.response;
    if (!this.method.responseStream) {
      this.#started = true;
      this.#respond({ status: 200, headers: SUCCESS, body: this.codec.write(typeName, bytes, "single") });
      return true;
    }
    return this.#piece(`{"result":${this.codec.write(typeName, bytes, "stream")}}\n`, 200, SUCCESS);
  }

  ended(code: number, text: string): void {
    this.#ended = true;
    this.#closed();
    this.request.onCancel = null;
    if (this.request.cancelled) this.#respond(failure(code, text));
    else if (!this.method.responseStream) {
      if (!this.#started) this.#respond(failure(code, text));
    } else if (code !== Code.OK) {
      this.#piece(`{"error":${statusJson(code, text, "stream")}}\n`, HTTP_STATUS[code]!, JSON_HEADERS);
    } else if (!this.#started) this.#respond({ status: 200, headers: {}, body: "" });
    this.#sink?.end();
  }

  #piece(text: string, status: number, headers: Readonly<Record<string, string>>): boolean {
    if (this.#sink !== null) return this.#sink.write(text);
    this.#early += text;
    if (!this.#started) this.#respond({ status, headers, body: (sink) => this.#attach(sink) });
    this.#started = true;
    return false;
  }

  #attach(sink: HttpSink): void {
    this.#sink = sink;
    const more = sink.write(this.#early);
    this.#early = "";
    if (this.#ended) {
      sink.end();
      return;
    }
    sink.onDrain = () => this.call?.drained();
    if (more) this.call?.drained();
  }
}

const SERVICES = [
  etcdserverpb.KVService,
  etcdserverpb.WatchService,
  etcdserverpb.LeaseService,
  etcdserverpb.ClusterService,
  etcdserverpb.MaintenanceService,
  etcdserverpb.AuthService,
  LockService,
  ElectionService,
];

const JSON_HEADERS = { "content-type": "application/json" };
/** With the header of the gRPC answer that etcd's gateway passes on. */
const SUCCESS = { ...JSON_HEADERS, "grpc-metadata-content-type": "application/grpc" };

const CERTIFICATE_IGNORED: HttpResponse = {
  status: 400,
  headers: { "content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff" },
  body: "CommonName of client sending a request against gateway will be ignored and not used as expected\n",
};

/** HTTP's status for each gRPC code. Source: google/rpc/code.proto */
const HTTP_STATUS: readonly number[] = [
  200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401,
];

function failure(code: number, text: string): HttpResponse {
  const headers = code === Code.UNAUTHENTICATED ? { ...JSON_HEADERS, "www-authenticate": text } : JSON_HEADERS;
  return { status: HTTP_STATUS[code]!, headers, body: statusJson(code, text, "single") };
}

function statusJson(code: number, text: string, style: StringStyle): string {
  return `{"code":${code},"message":${encodeString(text, style)}}`;
}

/** Milliseconds of the header `grpc-timeout`, Infinity without one, or what is wrong with it. */
function timeoutOf({ headers }: HttpRequest): number | string {
  const text = headers["grpc-timeout"];
  if (typeof text !== "string" || text === "") return Number.POSITIVE_INFINITY;
  const timeoutMs = parseTimeout(text);
  return typeof timeoutMs === "number" ? timeoutMs : `invalid grpc-timeout: ${text}`;
}
