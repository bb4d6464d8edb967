import * as http from "node:http";
import type { Logger } from "../base/log.ts";
import type { PlainRequest, RpcSocket } from "../rpc/server.ts";

/** A request of the plain side (health, metrics, version, gateway), whichever protocol brought it. */
export interface HttpRequest {
  readonly method: string;
  /** Without the query. */
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Buffer;
}

export interface HttpResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | Uint8Array;
}

/** Answers a request, or undefined when it is not one of its paths. */
export type HttpHandler = (request: HttpRequest) => Promise<HttpResponse> | undefined;

export interface HttpSideOptions {
  readonly handlers: readonly HttpHandler[];
  readonly logger: Logger;
  /** `--cors`: origins that browsers may call from; "*" is all. */
  readonly cors: readonly string[];
  /** `--host-whitelist`: host names that an insecure listener answers to; "*" is all. */
  readonly hostWhitelist: readonly string[];
  readonly maxBodyBytes: number;
}

const NOT_FOUND: HttpResponse = {
  status: 404,
  headers: { "content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff" },
  body: "404 page not found\n",
};

/** HTTP/1 on node:http and the HTTP/2 requests that are not gRPC, both answered by the same handlers. */
export class HttpSide {
  readonly #options: HttpSideOptions;
  readonly #server: http.Server;

  constructor(options: HttpSideOptions) {
    this.#options = options;
    this.#server = http.createServer({ keepAliveTimeout: 5 * 60_000, requestTimeout: 60_000 });
    this.#server.on("request", (request, response) => void this.#serveHttp1(request, response));
    this.#server.on("clientError", (_error, socket) => {
      if (socket.writable)
        socket.end(
          "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n400 Bad Request",
        );
    });
  }

  /** Takes over a connection that speaks HTTP/1; `head` is what was read of it. */
  handleConnection(socket: RpcSocket, head: Buffer): void {
    if (head.length > 0) socket.unshift(head);
    this.#server.emit("connection", socket);
  }

  handleHttp2(request: PlainRequest): void {
    const [path, query] = splitTarget(request.path);
    void this.#answer(
      { method: request.method, path, query, headers: request.headers, body: request.body },
      request.authority,
    ).then((response) => {
      if (!request.cancelled) request.respond(response.status, response.headers, response.body);
    });
  }

  close(): void {
    this.#server.closeAllConnections();
  }

  async #serveHttp1(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const body = await readBody(request, this.#options.maxBodyBytes);
    if (body === undefined) {
      response.writeHead(413, { connection: "close" }).end("request body too large\n");
      return;
    }
    const [path, query] = splitTarget(request.url ?? "/");
    const answer = await this.#answer(
      { method: request.method ?? "GET", path, query, headers: request.headers, body },
      request.headers.host ?? "",
    );
    const bytes = typeof answer.body === "string" ? Buffer.from(answer.body) : answer.body;
    response.writeHead(answer.status, { ...answer.headers, "content-length": bytes.length });
    response.end(request.method === "HEAD" ? undefined : bytes);
  }

  async #answer(request: HttpRequest, host: string): Promise<HttpResponse> {
    if (!this.#hostAllowed(host)) {
      this.#options.logger.warn("rejecting HTTP request from untrusted host", { host });
      return { status: 421, headers: { "content-type": "text/plain" }, body: `${host} is not in --host-whitelist\n` };
    }
    const cors = this.#corsHeaders(request);
    if (request.method === "OPTIONS" && cors !== undefined) return { status: 200, headers: cors, body: "" };
    try {
      for (const handler of this.#options.handlers) {
        const answer = handler(request);
        if (answer === undefined) continue;
        const response = await answer;
        return cors === undefined ? response : { ...response, headers: { ...response.headers, ...cors } };
      }
      return NOT_FOUND;
    } catch (error) {
      this.#options.logger.warn("failed to serve an HTTP request", { path: request.path, error: `${error}` });
      return { status: 500, headers: { "content-type": "text/plain; charset=utf-8" }, body: "internal error\n" };
    }
  }

  #hostAllowed(host: string): boolean {
    const { hostWhitelist } = this.#options;
    if (hostWhitelist.length === 0 || hostWhitelist.includes("*")) return true;
    return hostWhitelist.includes(host.replace(/:\d+$/, "").replace(/^\[(.*)\]$/, "$1"));
  }

  #corsHeaders(request: HttpRequest): Record<string, string> | undefined {
    const { cors } = this.#options;
    if (cors.length === 0) return undefined;
    const { origin } = request.headers;
    const allowed = cors.includes("*") ? "*" : typeof origin === "string" && cors.includes(origin) ? origin : undefined;
    if (allowed === undefined) return undefined;
    return {
      "access-control-allow-methods": "POST, GET, OPTIONS, PUT, DELETE",
      "access-control-allow-origin": allowed,
      "access-control-allow-headers": "accept, content-type, authorization",
    };
  }
}

function splitTarget(target: string): [path: string, query: URLSearchParams] {
  const mark = target.indexOf("?");
  if (mark < 0) return [target, new URLSearchParams()];
  return [target.slice(0, mark), new URLSearchParams(target.slice(mark + 1))];
}

/** The body; undefined when it is larger than allowed. */
async function readBody(request: http.IncomingMessage, bytesMax: number): Promise<Buffer | undefined> {
  const parts: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const part of request) {
      bytes += (part as Buffer).length;
      if (bytes > bytesMax) return undefined;
      parts.push(part as Buffer);
    }
  } catch {
    // The client went away in the middle: there is nobody to answer, and an empty body does no harm.
    return Buffer.alloc(0);
  }
  return Buffer.concat(parts);
}
