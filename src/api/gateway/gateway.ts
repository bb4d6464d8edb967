import type { Clock } from "../../base/clock.ts";
import { Code } from "../../base/grpc-codes.ts";
import type { Logger } from "../../base/log.ts";
import type { MethodType } from "../../base/protobuf.ts";
import { Owner, type Turns } from "../../base/turns.ts";
import * as etcdserverpb from "../../proto/etcdserverpb.ts";
import { ElectionService } from "../../proto/v3electionpb.ts";
import { LockService } from "../../proto/v3lockpb.ts";
import type { RpcSocket } from "../../rpc/contract.ts";
import type { RpcServer } from "../../rpc/server.ts";
import type { Access } from "../calls/access.ts";
import type { HttpHandler, HttpRequest, HttpResponse } from "../http/contract.ts";
import { isBelow } from "../http/paths.ts";
import { failure, GatewayAnswer } from "./answer.ts";
import { LocalCall } from "./call.ts";
import { JsonCodec } from "./codec.ts";
import { Intake, IntakeBudget, type IntakeSink } from "./intake.ts";

export interface GatewayOptions {
  readonly rpc: RpcServer;
  readonly access: Access;
  readonly clock: Clock;
  /** The scheduler for large bodies and responses. */
  readonly turns: Turns;
  readonly logger: Logger;
  /** Larger messages fail as they do over gRPC. */
  readonly maxMessageBytes: number;
}

/** Open calls at a time: beyond, clients are told to retry. */
const CALLS_MAX = 10_000;
/** Bytes of all request bodies in progress, for messages of ordinary size. */
const BODIES_BYTES_MAX = 64 * 1024 * 1024;
/** JSON text of one message, relative to the largest message size, and the minimum limit. */
const TEXT_BYTES_FACTOR = 64;
const TEXT_BYTES_MORE = 1024 * 1024;
/** A shorter timeout expires before anything can be done. */
const TIMEOUT_MS_MIN = 0.01;
const CROWDED = "etcdserver: too many requests: too much is being received; try again later, or send more quickly";

/**
 * The JSON gateway: `POST /v3/…` with a message as JSON, answered with the response as JSON, or for a streaming method
 * with one `{"result":…}` per line. Each request becomes a call of the gRPC handler itself. Source:
 * https://etcd.io/docs/v3.6/dev-guide/api_grpc_gateway/ and the google.api.http options in proto/.
 */
export function gatewayHandler(options: GatewayOptions): HttpHandler {
  const gateway = new Gateway(options);
  return (request) => {
    if (request.path.startsWith(OLD_PREFIX)) {
      return gateway.serve(PREFIX + request.path.slice(OLD_PREFIX.length), request);
    }
    return isBelow(request.target!, "v3") ? gateway.serve(request.path, request) : undefined;
  };
}

const PREFIX = "/v3/";
/** The prefix before etcd 3.4. */
const OLD_PREFIX = "/v3beta/";

class Gateway {
  readonly #options: GatewayOptions;
  readonly #methods = new Map<string, MethodType>();
  readonly #budget: IntakeBudget;
  readonly #owners = new WeakMap<RpcSocket, Owner>();
  readonly #codec = new JsonCodec();
  #calls = 0;

  constructor(options: GatewayOptions) {
    this.#options = options;
    this.#budget = new IntakeBudget(Math.max(BODIES_BYTES_MAX, options.maxMessageBytes * 2));
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
    if (timeoutMs < TIMEOUT_MS_MIN) return failure(Code.DEADLINE_EXCEEDED, "context deadline exceeded");
    if (this.#calls >= CALLS_MAX) {
      return failure(
        Code.RESOURCE_EXHAUSTED,
        `etcdserver: too many requests: the gateway serves ${CALLS_MAX} at a time`,
      );
    }
    this.#calls++;
    try {
      return this.#call(method, request, timeoutMs);
    } catch (error) {
      this.#calls--;
      this.#options.rpc.crashed(method.path, error);
      return failure(Code.INTERNAL, "the server failed to serve this call; its log has the reason");
    }
  }

  #call(method: MethodType, request: HttpRequest, timeoutMs: number): Promise<HttpResponse> {
    const { rpc, clock, turns, logger, maxMessageBytes } = this.#options;
    const codec = this.#codec;
    const owner = this.#ownerOf(request.socket);
    const closed = (): void => {
      this.#calls--;
    };
    const answer = new GatewayAnswer(codec, method, request, { turns, owner, logger, closed });
    const call = new LocalCall(rpc, method.path, request, clock, timeoutMs, answer);
    answer.call = call;
    const intake = new Intake(
      {
        body: request.body,
        decoder: () => codec.decoder(method.request.typeName, maxMessageBytes),
        isStream: method.requestStream,
        textBytesMax: maxMessageBytes * TEXT_BYTES_FACTOR + TEXT_BYTES_MORE,
        clock,
        turns,
        owner,
        budget: this.#budget,
        name: method.path,
      },
      method.requestStream ? this.#streamIntake(call) : this.#unaryIntake(call, answer),
    );
    answer.intake = intake;
    request.onCancel = () => answer.cancel();
    if (method.requestStream) call.start();
    intake.start();
    return answer.response;
  }

  /** The call begins when the body is complete. */
  #unaryIntake(call: LocalCall, answer: GatewayAnswer): IntakeSink {
    const { maxMessageBytes } = this.#options;
    let message: Uint8Array | undefined;
    return {
      value: (decoded) => {
        if (decoded.kind === "message") message = decoded.message;
        else if (decoded.kind === "error") answer.refuse(Code.INVALID_ARGUMENT, decoded.error);
        else call.refuse(Code.RESOURCE_EXHAUSTED, tooLarge(decoded.bytes, maxMessageBytes));
      },
      ended: () => {
        call.start(message);
        if (!answer.method.responseStream) return;
        call.deliver(message ?? EMPTY_MESSAGE);
        call.halfClose();
      },
      malformed: (error) => answer.refuse(Code.INVALID_ARGUMENT, error),
      endless: (bytes) => call.refuse(Code.RESOURCE_EXHAUSTED, tooLarge(bytes, maxMessageBytes)),
      crowded: () => answer.refuse(Code.RESOURCE_EXHAUSTED, CROWDED),
      broken: (error) => call.crashed(error),
    };
  }

  /** The call has begun. An error in the stream of requests ends it; earlier requests are served. */
  #streamIntake(call: LocalCall): IntakeSink {
    const { maxMessageBytes } = this.#options;
    return {
      value: (decoded) => {
        if (decoded.kind === "message") call.deliver(decoded.message);
        else if (decoded.kind === "error") call.halfClose();
        else call.terminate(Code.RESOURCE_EXHAUSTED, tooLarge(decoded.bytes, maxMessageBytes));
      },
      ended: () => {
        call.halfClose();
      },
      malformed: () => call.halfClose(),
      endless: (bytes) => call.terminate(Code.RESOURCE_EXHAUSTED, tooLarge(bytes, maxMessageBytes)),
      crowded: () => call.terminate(Code.RESOURCE_EXHAUSTED, CROWDED),
      broken: (error) => call.crashed(error),
    };
  }

  #ownerOf(socket: RpcSocket): Owner {
    let owner = this.#owners.get(socket);
    if (owner === undefined) this.#owners.set(socket, (owner = new Owner("gateway")));
    return owner;
  }
}

/** An empty body is an empty message. */
const EMPTY_MESSAGE = new Uint8Array();

const tooLarge = (bytes: number, max: number): string => `grpc: received message larger than max (${bytes} vs. ${max})`;

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

const CERTIFICATE_IGNORED: HttpResponse = {
  status: 400,
  headers: { "content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff" },
  body: "CommonName of client sending a request against gateway will be ignored and not used as expected\n",
};

const TIMEOUT_UNITS: Readonly<Record<string, bigint>> = {
  H: 3_600_000_000_000n,
  M: 60_000_000_000n,
  S: 1_000_000_000n,
  m: 1_000_000n,
  u: 1000n,
  n: 1n,
};
const INT64_MAX = 2n ** 63n - 1n;

/**
 * Milliseconds of the header `grpc-timeout`, Infinity without one, or its error. Read as in etcd's gateway, less
 * strictly than gRPC: zero means no limit; a negative timeout, or one that overflows 64-bit nanoseconds, has already
 * expired.
 */
function timeoutOf({ headers }: HttpRequest): number | string {
  const text = headers["grpc-timeout"];
  if (typeof text !== "string" || text === "") return Number.POSITIVE_INFINITY;
  const [, digits, unit] = /^([-+]?\d{1,19})([HMSmun])$/.exec(text) ?? [];
  const count = BigInt(digits?.replace("+", "") ?? 0);
  if (unit === undefined || count > INT64_MAX || count < -INT64_MAX - 1n) return `invalid grpc-timeout: ${text}`;
  const nanoseconds = Number(BigInt.asIntN(64, count * TIMEOUT_UNITS[unit]!));
  return nanoseconds === 0 ? Number.POSITIVE_INFINITY : nanoseconds / 1e6;
}
