import { TLSSocket } from "node:tls";
import { inBackground } from "../../base/background.ts";
import type { Clock } from "../../base/clock.ts";
import { beginWork } from "../../base/doing.ts";
import { isFatal } from "../../base/fatal.ts";
import type { Logger } from "../../base/log.ts";
import type { PlainRequest, RpcSocket } from "../../rpc/contract.ts";
import { RequestBody, SlowBodies } from "./body.ts";
import type { HttpHandler, HttpRequest, HttpResponse, HttpSink } from "./contract.ts";
import { cancel, Http1Side, httpRequest } from "./http1.ts";
import { parseTarget, redirectTo, type Target } from "./paths.ts";

export interface HttpSideOptions {
  readonly clock: Clock;
  readonly handlers: readonly HttpHandler[];
  readonly logger: Logger;
  /** `--cors`: origins that browsers may call from; "*" for all. */
  readonly cors: readonly string[];
  /** `--host-whitelist`: host names that an insecure listener answers to; "*" for all. */
  readonly hostWhitelist: readonly string[];
  /** An HTTP/1 connection has sent the head of a request. */
  readonly onRequest?: ((socket: RpcSocket) => void) | undefined;
}

/** Length of request names in the log. */
const NAME_LENGTH_MAX = 100;

const BAD_TARGET: HttpResponse = {
  status: 400,
  headers: { "content-type": "text/plain; charset=utf-8", connection: "close" },
  body: "400 Bad Request",
};

const INTERNAL_ERROR: HttpResponse = {
  status: 500,
  headers: { "content-type": "text/plain; charset=utf-8" },
  body: "internal error\n",
};

const NOT_FOUND: HttpResponse = {
  status: 404,
  headers: { "content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff" },
  body: "404 page not found\n",
};

/** HTTP/1, and HTTP/2 requests that are not gRPC, served by the same handlers. */
export class HttpSide {
  readonly #options: HttpSideOptions;
  readonly #slowBodies: SlowBodies;
  readonly #http1: Http1Side;

  constructor(options: HttpSideOptions) {
    this.#options = options;
    this.#slowBodies = new SlowBodies(options.clock);
    this.#http1 = new Http1Side({
      clock: options.clock,
      slowBodies: this.#slowBodies,
      answer: (request, host) => this.#answer(request, host),
      logger: options.logger,
      onRequest: options.onRequest,
    });
  }

  /** Closes idle HTTP/1 connections and returns them. */
  closeIdle(): RpcSocket[] {
    return this.#http1.closeIdle();
  }

  /** Takes over an HTTP/1 connection; `head` holds the bytes read so far. */
  handleConnection(socket: RpcSocket, head: Buffer): void {
    this.#http1.handleConnection(socket, head);
  }

  handleHttp2(plain: PlainRequest): void {
    const done = this.#serveHttp2(plain).catch((error: unknown) => {
      plain.abort();
      throw error;
    });
    inBackground(done, "serve an HTTP request", this.#options.logger);
  }

  /** Ends idle connections at once, the others when they are answered or after `graceMs`. */
  close(graceMs: number): Promise<void> {
    return this.#http1.close(graceMs);
  }

  async #serveHttp2(plain: PlainRequest): Promise<void> {
    const body: RequestBody = RequestBody.ofHttp2(plain, this.#slowBodies, () => {
      cancel(request);
      plain.abort();
    });
    const request = httpRequest(plain.method, parseTarget(plain.path), plain.headers, body, plain.socket);
    plain.onCancel = () => {
      body.stop();
      cancel(request);
    };
    const answer = await this.#answer(request, plain.authority);
    if (request.cancelled) return;
    if (typeof answer.body !== "function") {
      body.stop();
      return plain.respond(answer.status, answer.headers, answer.body);
    }
    plain.respondHead(answer.status, answer.headers);
    const sink: HttpSink = {
      write: (text) => plain.write(Buffer.from(text)),
      end: () => {
        body.stop();
        plain.end();
      },
      abort: () => {
        body.stop();
        plain.abort();
      },
      onDrain: null,
    };
    plain.onDrain = () => sink.onDrain?.();
    answer.body(sink);
  }

  async #answer(request: HttpRequest, host: string): Promise<HttpResponse> {
    // A foreign page cannot make a browser speak TLS to this server: the certificate would not match its host.
    if (!(request.socket instanceof TLSSocket) && !this.#hostAllowed(host)) {
      this.#options.logger.warn("rejecting HTTP request from untrusted host", { host });
      return { status: 421, headers: { "content-type": "text/plain" }, body: `${host} is not in --host-whitelist\n` };
    }
    beginWork(`${request.method} ${request.path}`.slice(0, NAME_LENGTH_MAX), this.#options.clock.nowMs());
    if (request.target === undefined) return BAD_TARGET;
    const cors = this.#corsHeaders(request);
    if (request.method === "OPTIONS") return { status: 200, headers: cors ?? {}, body: "" };
    const response = await this.#handle(request, request.target);
    return cors === undefined ? response : { ...response, headers: { ...response.headers, ...cors } };
  }

  async #handle(request: HttpRequest, target: Target): Promise<HttpResponse> {
    try {
      const redirect = redirectTo(target);
      if (redirect !== undefined) return redirection(request.method, redirect);
      for (const handler of this.#options.handlers) {
        const answer = handler(request);
        if (answer !== undefined) return await answer;
      }
      return NOT_FOUND;
    } catch (error) {
      if (isFatal(error)) throw error;
      this.#options.logger.error("failed to serve an HTTP request", {
        path: request.path.slice(0, NAME_LENGTH_MAX),
        error: error instanceof Error ? error : `${error}`,
      });
      return INTERNAL_ERROR;
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

/** As in Go's http.Redirect, with a page for human readers. */
function redirection(method: string, location: string): HttpResponse {
  const isLooking = method === "GET" || method === "HEAD";
  const link = location.replace(/[&<>"']/g, (character) => HTML[character]!);
  return {
    status: 307,
    headers: isLooking ? { location, "content-type": "text/html; charset=utf-8" } : { location },
    body: isLooking ? `<a href="${link}">Temporary Redirect</a>.\n\n` : "",
  };
}

const HTML: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;" };
