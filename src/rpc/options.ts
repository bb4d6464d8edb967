/** The options of the RPC server, with etcd's defaults. */
import type { Clock } from "../base/clock.ts";
import type { Logger } from "../base/log.ts";
import type { CallInfo, PlainRequest, RpcSocket } from "./contract.ts";

export interface KeepaliveOptions {
  /**
   * Minimum interval between pings of a client with calls; the third violation ends the connection ("too_many_pings").
   */
  readonly minTimeMs: number;
  /** Whether clients without calls may ping at that rate too; otherwise once in two hours. */
  readonly permitWithoutStream: boolean;
  /** Silence after which the server sends a ping. */
  readonly intervalMs: number;
  /** Silence after that ping that ends the connection. */
  readonly timeoutMs: number;
}

export interface RpcServerOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  /** Open streams per connection; never more than `STREAMS_MAX`. */
  readonly maxConcurrentStreams: number;
  /** A larger request fails with RESOURCE_EXHAUSTED. */
  readonly maxRecvMessageBytes: number;
  /** A larger reply fails with RESOURCE_EXHAUSTED. */
  readonly maxSendMessageBytes: number;
  /** Incomplete request messages that one connection may make the server hold; the call that exceeds it fails. */
  readonly receiveBufferBytesMax: number;
  /** The same for all connections together: those that hold most for longest are released first. */
  readonly heldRequestBytesMax: number;
  /**
   * Unread replies of all connections together: those that hold most for longest are released first. A connection that
   * leaves a quarter of it unread, on many streams, gets no new calls.
   */
  readonly heldReplyBytesMax: number;
  readonly keepalive: KeepaliveOptions;
  /**
   * Takes a connection that does not begin with HTTP/2. The socket is paused; `head` holds the bytes read, to be
   * unshifted before resuming. Without this option the connection is closed.
   */
  readonly http1: ((socket: RpcSocket, head: Buffer) => void) | undefined;
  /** Takes an HTTP/2 request that is not gRPC. Without this option it gets 415. */
  readonly http2Request: ((request: PlainRequest) => void) | undefined;
  /** An HTTP/2 client has sent its settings. */
  readonly onHttp2?: ((socket: RpcSocket) => void) | undefined;
  /** For traces and histograms; the counters of `RpcServer.methods` cost less. */
  readonly onCallStart?: ((call: CallInfo) => void) | undefined;
  readonly onCallEnd?: ((call: CallInfo, code: number) => void) | undefined;
}

/** etcd's defaults, and our own limits. */
export const RPC_DEFAULTS = {
  maxConcurrentStreams: 0xffffffff,
  maxRecvMessageBytes: 1.5 * 1024 * 1024 + 512 * 1024,
  maxSendMessageBytes: 0x7fffffff,
  receiveBufferBytesMax: 128 * 1024 * 1024,
  heldRequestBytesMax: 256 * 1024 * 1024,
  heldReplyBytesMax: 256 * 1024 * 1024,
  keepalive: { minTimeMs: 5000, permitWithoutStream: false, intervalMs: 2 * 3600 * 1000, timeoutMs: 20_000 },
  http1: undefined,
  http2Request: undefined,
} as const;
