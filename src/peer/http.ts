import * as http from "node:http";
import type * as net from "node:net";
import type { Clock } from "../base/clock.ts";
import { KvorumError } from "../base/errors.ts";
import type { Url } from "../config/values/url.ts";
import type { PeerDialer } from "./dialer.ts";

/** Members close connections idle for five seconds; this side closes them earlier. */
const IDLE_MS_MAX = 4000;
const IDLE_SOCKETS_MAX = 16;
/** Per URL; further requests wait for a socket. */
const SOCKETS_MAX = 64;
/** For responses: most are short, but a list of members and hashes may be longer. */
const BODY_BYTES_MAX = 16 * 1024 * 1024;

export interface PeerRequest {
  readonly method: "GET" | "POST";
  readonly url: Url;
  /** With the query, if any. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
  /** For the whole request. */
  readonly timeoutMs: number;
  /** A longer answer is an error; 16 MiB when absent. */
  readonly bytesMax?: number;
}

export interface PeerResponse {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: Buffer;
}

/** Ordinary (finite) requests to peers, over kept-alive connections; streams have their own. */
export class PeerHttp {
  readonly #clock: Clock;
  readonly #agent: PeerAgent;

  constructor(clock: Clock, dialer: PeerDialer) {
    this.#clock = clock;
    this.#agent = new PeerAgent(dialer);
  }

  /** Rejects with the reason when there is no complete answer; any status is an answer. */
  async request(request: PeerRequest): Promise<PeerResponse> {
    try {
      return await this.#attempt(request);
    } catch (error) {
      // The peer closed the connection while the request was in flight: it was not served.
      if (error instanceof StaleConnectionError) return this.#attempt(request);
      throw error;
    }
  }

  /** Starts a request whose body the caller writes. */
  begin(request: Omit<PeerRequest, "body" | "timeoutMs">): http.ClientRequest {
    const { url, method, path, headers } = request;
    const options: AgentOptions = {
      agent: this.#agent,
      method,
      path,
      headers: { Host: url.host, ...headers },
      peerUrl: url,
    };
    return http.request(options);
  }

  close(): void {
    this.#agent.destroy();
  }

  #attempt(request: PeerRequest): Promise<PeerResponse> {
    return new Promise((resolve, reject) => {
      const { body, timeoutMs } = request;
      const outgoing = this.begin(request);
      const timer = this.#clock.after(timeoutMs, () => outgoing.destroy(new Error("context deadline exceeded")));
      const fail = (error: NodeJS.ErrnoException): void => {
        timer.cancel();
        const isStale = outgoing.reusedSocket && (error.code === "ECONNRESET" || error.code === "EPIPE");
        reject(isStale ? new StaleConnectionError(error.message, { cause: error }) : error);
      };
      const succeed = (response: PeerResponse): void => {
        timer.cancel();
        resolve(response);
      };
      outgoing.on("error", fail);
      outgoing.on("response", (response) => readResponse(response, succeed, fail, request.bytesMax));
      if (body === undefined) outgoing.end();
      else {
        outgoing.setHeader("Content-Length", body.length);
        outgoing.end(body);
      }
    });
  }
}

/** Reads a response to its end and calls one of the two, possibly more than once: only the first call counts. */
export function readResponse(
  response: http.IncomingMessage,
  resolve: (response: PeerResponse) => void,
  reject: (error: Error) => void,
  bytesMax = BODY_BYTES_MAX,
): void {
  const parts: Buffer[] = [];
  let bytes = 0;
  response.on("data", (part: Buffer) => {
    bytes += part.length;
    if (bytes <= bytesMax) parts.push(part);
    else response.destroy(new Error(`response body exceeds ${bytesMax} bytes limit`));
  });
  response.on("end", () => {
    resolve({ status: response.statusCode!, headers: response.headers, body: Buffer.concat(parts) });
  });
  response.on("error", reject);
  response.on("close", () => reject(new Error("unexpected EOF")));
}

class StaleConnectionError extends KvorumError {
  override name = "StaleConnectionError";
  readonly code = "ERR_STALE_CONNECTION";
}

type AgentOptions = http.RequestOptions & { readonly peerUrl: Url };

class PeerAgent extends http.Agent {
  readonly #dialer: PeerDialer;

  constructor(dialer: PeerDialer) {
    super({ keepAlive: true, maxSockets: SOCKETS_MAX, maxFreeSockets: IDLE_SOCKETS_MAX, timeout: IDLE_MS_MAX });
    this.#dialer = dialer;
  }

  override createConnection(options: object): net.Socket {
    return this.#dialer.connect((options as AgentOptions).peerUrl);
  }

  /** Connections to the same URL are interchangeable. */
  override getName(options?: object): string {
    return (options as AgentOptions | undefined)?.peerUrl.text ?? "";
  }
}
