import * as http from "node:http";
import type * as net from "node:net";
import type { Clock } from "../base/clock.ts";
import type { Url } from "../config/values/url.ts";
import type { PeerDialer } from "./dialer.ts";

/** Members close connections on which nothing comes for five seconds; ours are closed before that. */
const IDLE_MS_MAX = 4000;
const IDLE_SOCKETS_MAX = 16;
/** To one URL; more requests wait for one of them. */
const SOCKETS_MAX = 64;
/** Of answers: what members say to a request is short, but a list of members and hashes may be longer. */
const BODY_BYTES_MAX = 16 * 1024 * 1024;

export interface PeerRequest {
  readonly method: "GET" | "POST";
  readonly url: Url;
  /** With a query, if there is one. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
  /** For all of it. */
  readonly timeoutMs: number;
  /** A longer answer is an error; 16 MiB when absent. */
  readonly bytesMax?: number;
}

export interface PeerResponse {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: Buffer;
}

/** Requests to peers with an end, over connections that are kept for the next; streams have their own. */
export class PeerHttp {
  readonly #clock: Clock;
  readonly #agent: PeerAgent;

  constructor(clock: Clock, dialer: PeerDialer) {
    this.#clock = clock;
    this.#agent = new PeerAgent(dialer);
  }

  /** Rejects with why there was no whole answer; every status is an answer. */
  async request(request: PeerRequest): Promise<PeerResponse> {
    try {
      return await this.#attempt(request);
    } catch (error) {
      // The peer closed the connection while the request was on its way: it was not served.
      if (error instanceof StaleConnectionError) return this.#attempt(request);
      throw error;
    }
  }

  /** Begins a request whose body the caller writes. */
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

/** Reads an answer to its end and calls one of the two, once or more: the first call counts. */
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

class StaleConnectionError extends Error {}

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

  /** Connections to the same URL are alike. */
  override getName(options?: object): string {
    return (options as AgentOptions | undefined)?.peerUrl.text ?? "";
  }
}
