/** The settings of a client and of its calls, as users give them. */
import type { Socket } from "node:net";
import type { Clock } from "../base/clock.ts";
import { KvorumError } from "../base/errors.ts";
import type { Random } from "../base/random.ts";

/** PEM bytes, or files that are read again for each new connection, so that renewed certificates are used. */
export interface ClientTls {
  /** Trusted CAs; the system's when neither is given. */
  readonly ca?: string | Uint8Array;
  readonly caFile?: string;
  /** The client's certificate and key, both or none. */
  readonly cert?: string | Uint8Array;
  readonly certFile?: string;
  readonly key?: string | Uint8Array;
  readonly keyFile?: string;
  /** Expected name in the server's certificate, instead of the endpoint's host. */
  readonly serverName?: string;
  /** Accepts any server certificate. */
  readonly insecureSkipVerify?: boolean;
}

/**
 * The settings of a client, all optional.
 *
 * @example
 * const options: ClientOptions = { endpoints: "https://10.0.0.1:2379", tls: { caFile: "ca.crt" }, timeoutMs: 5000 };
 */
export interface ClientOptions {
  /**
   * Members: `host:port`, `http://…`, `https://…`, `unix:///path` or `unixs:///path`. `127.0.0.1:2379` when absent.
   */
  readonly endpoints?: string | readonly string[];
  /** Uses TLS when given, or for endpoints that begin with `https://` or `unixs://`. */
  readonly tls?: ClientTls;
  /** With both, calls carry a token, which is renewed when the server asks for it. */
  readonly username?: string;
  readonly password?: string;
  /** Milliseconds until a call fails with DEADLINE_EXCEEDED, retries included; 10,000 when absent. */
  readonly timeoutMs?: number;
  /** Milliseconds that one attempt to connect may take; 3,000 when absent. */
  readonly connectTimeoutMs?: number;
  /**
   * Calls fail as soon as no endpoint can be reached, instead of waiting for one until their deadline; false when absent.
   */
  readonly failFast?: boolean;
  /** Milliseconds of silence, while calls are in progress, after which a ping is sent; 10,000 when absent. */
  readonly keepAliveMs?: number;
  /** Milliseconds to wait for its answer before the connection counts as lost; 5,000 when absent. */
  readonly keepAliveTimeoutMs?: number;
  /** Largest request in bytes, above which a call fails with RESOURCE_EXHAUSTED and is not sent; 16 MiB when absent. */
  readonly requestBytesMax?: number;
  /**
   * Bytes of requests without an answer above which further calls fail at once with RESOURCE_EXHAUSTED, so that a program
   * that is faster than its cluster does not run out of memory; 256 MiB when absent. `client.drained()` waits for room.
   */
  readonly pendingBytesMax?: number;
  /** Largest accepted response in bytes; 2 GiB when absent. */
  readonly responseBytesMax?: number;
  /**
   * `sticky` (the default) sends all calls to one member until that fails, which gives the largest batches;
   * `round-robin` spreads them over all that answer.
   */
  readonly balance?: "sticky" | "round-robin";
  /**
   * Opens the connection to an endpoint in place of the network, such as through a tunnel: gives a socket on which
   * HTTP/2 can begin, throws what is wrong, or gives undefined to have it dialled as usual.
   */
  readonly connect?: (endpoint: string) => Socket | undefined;
  /** For tests: time. */
  readonly clock?: Clock;
  /** For tests: randomness. */
  readonly random?: Random;
}

/** What every call accepts. */
export interface CallOptions {
  /** Ends the call: it rejects with the signal's reason. A write may have been carried out all the same. */
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds until the call fails with DEADLINE_EXCEEDED; the client's setting when absent, no limit for Infinity. */
  readonly timeoutMs?: number | undefined;
  /**
   * Asks this member alone, which need not be one of the client's. For what concerns single members: status, hash,
   * backups, alarms, defragmentation.
   */
  readonly endpoint?: string | undefined;
}

/** For callers within: a call in the name of somebody else. */
export interface ForwardedOptions extends CallOptions {
  /** The token of that user, in place of the client's own. */
  readonly token?: string | undefined;
}

/** A setting of the client makes no sense. */
export class ClientOptionsError extends KvorumError {
  override name = "ClientOptionsError";
  readonly code = "ERR_CLIENT_OPTIONS";
}

/** The client, or the part of it that was used, is closed. */
export class ClientClosedError extends KvorumError {
  override name = "ClientClosedError";
  readonly code = "ERR_CLIENT_CLOSED";

  constructor(what = "the client") {
    super(`${what} is closed`);
  }
}
