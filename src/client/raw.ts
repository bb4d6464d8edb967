/**
 * One gRPC connection to one endpoint, typed by the generated services in src/proto.
 *
 * Owns the channel and the translation between codecs and frames. Promises that a request is sent at most once (no
 * retries), and that a stream's messages arrive in order, all before its error. Knows nothing about individual RPCs:
 * balancing, retry, watch resume and keep-alive belong to the client built on top.
 */

import * as grpc from "@grpc/grpc-js";
import { type Clock, systemClock } from "../base/clock.ts";
import type { MethodType } from "../base/protobuf.ts";
import { hostPort, parseEndpoint } from "./endpoint.ts";
import { systemRoots } from "./roots.ts";
import { RpcError } from "./rpc-error.ts";

export { RpcError };

export interface TlsOptions {
  /** PEM. Trusted CAs; the system's when absent. */
  readonly ca?: Uint8Array;
  /** PEM. Client certificate and its key, both or none. */
  readonly cert?: Uint8Array;
  readonly key?: Uint8Array;
  /** Expected name in the server's certificate, instead of the endpoint's host. */
  readonly serverName?: string;
  /** Accepts any server certificate. */
  readonly insecureSkipVerify?: boolean;
}

export interface ConnectOptions {
  /** Uses TLS when given, or when the endpoint starts with `https://` or `unixs://`. */
  readonly tls?: TlsOptions;
  /** Sent with every call, such as `token` when authentication is enabled. */
  readonly metadata?: Readonly<Record<string, string>>;
  /**
   * Milliseconds between HTTP/2 pings while calls are in progress; none when absent. Without calls etcd forbids pings.
   */
  readonly keepAliveMs?: number;
  /** Milliseconds to wait for the answer to a ping. */
  readonly keepAliveTimeoutMs?: number;
  /** Largest accepted response in bytes; 2 GiB when absent. */
  readonly responseBytesMax?: number;
  /** Converts timeouts to deadlines; the system's clock when absent. */
  readonly clock?: Clock;
}

export interface CallOptions {
  /** Milliseconds until the call fails with DEADLINE_EXCEEDED; no limit when absent. */
  readonly timeoutMs?: number;
  readonly metadata?: Readonly<Record<string, string>>;
  /** Cancels the call when it fires. */
  readonly signal?: AbortSignal;
}

export interface RawClient {
  readonly endpoint: string;
  /**
   * Resolves once connected; rejects with RpcError UNAVAILABLE after `timeoutMs`. `failed` is called after a failed
   * attempt that will be retried.
   */
  ready(timeoutMs: number, failed?: () => void): Promise<void>;
  /** Whether it is connected. */
  readonly isReady: boolean;
  /** One request, one response. Rejects with RpcError. */
  unary<I, O>(method: MethodType<I, O>, request: Partial<I>, options?: CallOptions): Promise<O>;
  /** A call that streams requests, responses or both. */
  stream<I, O>(method: MethodType<I, O>, options?: CallOptions): RawStream<I, O>;
  /** Ends the connection; calls in flight fail. */
  close(): void;
}

/** Iterates over responses; throws RpcError when the server ends the call with an error. Iterate it once. */
export interface RawStream<I, O> extends AsyncIterable<O> {
  /** Queues a request. Resolves when the transport has taken it; await it to bound memory. */
  send(request: Partial<I>): Promise<void>;
  /** Half-closes the stream: no request follows. */
  end(): void;
  /** Abandons the call; the iteration ends without an error. */
  cancel(): void;
}

/**
 * Throws EndpointError.
 *
 * @param endpoint `host:port`, `http://host:port`, `https://host:port`, `unix:///path` or `unixs:///path`
 * @example
 * const client = connect("127.0.0.1:2379");
 * const { kvs } = await client.unary(KVService.Range, { key: Buffer.from("a") });
 */
export function connect(endpoint: string, options: ConnectOptions = {}): RawClient {
  return new Connection(endpoint, options);
}

/** The largest message length used with gRPC, as in etcd's clients. */
const RESPONSE_BYTES_MAX = 2 ** 31 - 1;

/** How long one check of the connection state lasts. */
const LOOK_MS = 1_000;

/** Responses buffered for the consumer before the stream stops reading from the transport. */
const WAITING_MAX = 128;

class Connection implements RawClient {
  readonly endpoint: string;
  readonly #client: grpc.Client;
  readonly #metadata: Readonly<Record<string, string>>;
  readonly #clock: Clock;
  #closed = false;

  constructor(endpoint: string, options: ConnectOptions) {
    this.endpoint = endpoint;
    this.#metadata = options.metadata ?? {};
    this.#clock = options.clock ?? systemClock;
    const address = parseEndpoint(endpoint);
    const tls = options.tls ?? (address.secure ? {} : undefined);
    const channel: grpc.ChannelOptions = {
      "grpc.max_receive_message_length": options.responseBytesMax ?? RESPONSE_BYTES_MAX,
      "grpc.max_send_message_length": -1,
      "grpc.enable_retries": 0,
      "grpc.enable_http_proxy": 0,
      "grpc.service_config_disable_resolution": 1,
      "grpc.use_local_subchannel_pool": 1,
      "grpc.initial_reconnect_backoff_ms": 100,
      "grpc.max_reconnect_backoff_ms": 1000,
    };
    if (options.keepAliveMs !== undefined) channel["grpc.keepalive_time_ms"] = options.keepAliveMs;
    if (options.keepAliveTimeoutMs !== undefined) channel["grpc.keepalive_timeout_ms"] = options.keepAliveTimeoutMs;
    const serverName = tls?.serverName ?? (tls && address.path !== undefined ? address.host : undefined);
    if (serverName !== undefined) channel["grpc.ssl_target_name_override"] = serverName;
    const target = address.path === undefined ? hostPort(address) : `unix:${address.path}`;
    this.#client = new grpc.Client(target, credentials(tls), channel);
  }

  ready(timeoutMs: number, failed?: () => void): Promise<void> {
    const channel = this.#client.getChannel();
    const deadlineMs = this.#clock.wallMs() + timeoutMs;
    return new Promise((resolve, reject) => {
      const look = () => {
        const state = channel.getConnectivityState(true);
        if (state === grpc.connectivityState.READY) return resolve();
        if (state === grpc.connectivityState.TRANSIENT_FAILURE) failed?.();
        // The library's timers outlive its channel, so each must be short.
        const untilMs = Math.min(deadlineMs, this.#clock.wallMs() + LOOK_MS);
        channel.watchConnectivityState(state, new Date(untilMs), (error) => {
          if (error && this.#clock.wallMs() >= deadlineMs) refuse();
          else attempt();
        });
      };
      const refuse = () => {
        reject(new RpcError(grpc.status.UNAVAILABLE, `${this.endpoint}: not connected in ${timeoutMs} ms`));
      };
      const attempt = () => {
        // Checking the state of a closed channel would reconnect it.
        if (this.#closed) refuse();
        else look();
      };
      attempt();
    });
  }

  get isReady(): boolean {
    return !this.#closed && this.#client.getChannel().getConnectivityState(false) === grpc.connectivityState.READY;
  }

  unary<I, O>(method: MethodType<I, O>, request: Partial<I>, options: CallOptions = {}): Promise<O> {
    return new Promise((resolve, reject) => {
      const { signal } = options;
      const call = this.#client.makeUnaryRequest<Buffer, O>(
        method.path,
        asIs,
        (bytes) => method.response.decode(bytes),
        method.request.encode(method.request.create(request)),
        this.#metadataFor(options),
        this.#callOptions(options),
        (error, response) => {
          signal?.removeEventListener("abort", abort);
          if (error) reject(rpcError(error));
          else resolve(response as O);
        },
      );
      const abort = () => call.cancel();
      if (signal?.aborted) abort();
      else signal?.addEventListener("abort", abort);
    });
  }

  stream<I, O>(method: MethodType<I, O>, options: CallOptions = {}): RawStream<I, O> {
    const call = this.#client.makeBidiStreamRequest<Buffer, O>(
      method.path,
      asIs,
      (bytes) => method.response.decode(bytes),
      this.#metadataFor(options),
      this.#callOptions(options),
    );
    return new Stream(method, call, options.signal);
  }

  close(): void {
    this.#closed = true;
    this.#client.close();
  }

  #deadline(timeoutMs: number): Date {
    return new Date(this.#clock.wallMs() + timeoutMs);
  }

  #callOptions(options: CallOptions): grpc.CallOptions {
    return options.timeoutMs === undefined ? {} : { deadline: this.#deadline(options.timeoutMs) };
  }

  #metadataFor(options: CallOptions): grpc.Metadata {
    const metadata = new grpc.Metadata();
    for (const [name, value] of Object.entries(this.#metadata)) metadata.set(name, value);
    for (const [name, value] of Object.entries(options.metadata ?? {})) metadata.set(name, value);
    return metadata;
  }
}

class Stream<I, O> implements RawStream<I, O> {
  readonly #method: MethodType<I, O>;
  readonly #call: grpc.ClientDuplexStream<Buffer, O>;
  readonly #waiting: O[] = [];
  #failure: RpcError | undefined;
  #ended = false;
  #cancelled = false;
  #wake: (() => void) | undefined;

  constructor(method: MethodType<I, O>, call: grpc.ClientDuplexStream<Buffer, O>, signal: AbortSignal | undefined) {
    this.#method = method;
    this.#call = call;
    call.on("data", (response: O) => {
      this.#waiting.push(response);
      if (this.#waiting.length >= WAITING_MAX) call.pause();
      this.#notify();
    });
    call.on("error", (error: grpc.ServiceError) => {
      this.#failure = rpcError(error);
      this.#notify();
    });
    call.on("end", () => {
      this.#ended = true;
      signal?.removeEventListener("abort", cancel);
      this.#notify();
    });
    const cancel = () => this.cancel();
    if (signal?.aborted) cancel();
    else signal?.addEventListener("abort", cancel);
  }

  send(request: Partial<I>): Promise<void> {
    return new Promise((resolve, reject) => {
      const bytes = this.#method.request.encode(this.#method.request.create(request));
      this.#call.write(bytes, (error: Error | null | undefined) => {
        if (error) reject(this.#failure ?? new RpcError(grpc.status.UNAVAILABLE, error.message));
        else resolve();
      });
    });
  }

  end(): void {
    this.#call.end();
  }

  cancel(): void {
    this.#cancelled = true;
    this.#call.cancel();
    this.#notify();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<O, void, undefined> {
    try {
      for (;;) {
        const response = this.#waiting.shift();
        if (this.#cancelled) return;
        if (response !== undefined) {
          if (this.#waiting.length === 0) this.#call.resume();
          yield response;
        } else if (this.#ended) {
          if (this.#failure) throw this.#failure;
          return;
        } else await new Promise<void>((resolve) => (this.#wake = resolve));
      }
    } finally {
      if (!this.#ended) this.cancel();
    }
  }

  #notify(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }
}

/** Requests are encoded before gRPC sees them, so that a malformed one throws in the caller. */
const asIs = (bytes: Buffer) => bytes;

function credentials(tls: TlsOptions | undefined): grpc.ChannelCredentials {
  if (tls === undefined) return grpc.credentials.createInsecure();
  const pem = (bytes: Uint8Array | undefined) => (bytes === undefined ? null : Buffer.from(bytes));
  const verify = tls.insecureSkipVerify ? { rejectUnauthorized: false, checkServerIdentity: () => undefined } : {};
  return grpc.credentials.createSsl(pem(tls.ca ?? systemRoots()), pem(tls.key), pem(tls.cert), verify);
}

/** Errors found on the client side, in the words of Go's gRPC. */
function rpcError(error: grpc.ServiceError): RpcError {
  const details = (error.details ?? error.message)
    .replace(/^Received message larger than max \((\d+) vs /, "grpc: received message larger than max ($1 vs. ")
    .replace(/^Received HTTP status code (\d+)$/, "unexpected HTTP status code received from server: $1");
  return new RpcError(error.code ?? grpc.status.UNKNOWN, details);
}
