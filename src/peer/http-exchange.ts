/**
 * One HTTP question to one peer URL and its whole answer, over connections that are kept.
 *
 * Everything is bounded: the time, the size of the answer, the connections to one peer, and the questions under way.
 * No redirect is followed. A question whose kept connection turns out to be closed is asked once more on another.
 */
import http from "node:http";
import https from "node:https";
import type { ConnectionOptions } from "node:tls";
import type { Clock } from "../base/clock.ts";
import { goDuration } from "../base/duration.ts";

export interface Question {
  readonly method: "GET" | "POST";
  /** As members are known by it: `http://host:port`, `https://…`, `unix://path`, `unixs://path`. */
  readonly peerUrl: string;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
  /** For the whole exchange. */
  readonly timeoutMs: number;
  /** A longer answer is an error. */
  readonly bytesMax: number;
}

export interface Answer {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: Buffer;
}

export interface PeerHttpOptions {
  readonly clock: Clock;
  /** What to show and whom to trust, for `https` and `unixs`; asked for each question, since certificates are replaced. */
  readonly tls: { connectOptions(host: string): ConnectionOptions } | undefined;
}

/** Connections to one peer. More questions wait for one of them. */
const CONNECTIONS_MAX = 16;
const QUESTIONS_MAX = 10_000;

export class PeerHttp {
  readonly #clock: Clock;
  readonly #tls: PeerHttpOptions["tls"];
  readonly #agents = {
    http: new http.Agent({ keepAlive: true, maxSockets: CONNECTIONS_MAX }),
    https: new https.Agent({ keepAlive: true, maxSockets: CONNECTIONS_MAX }),
  };
  #underWay = 0;
  #closed = false;

  constructor(options: PeerHttpOptions) {
    this.#clock = options.clock;
    this.#tls = options.tls;
  }

  /** Resolves to any complete answer, whatever its status. Rejects with an Error that names the URL. */
  async ask(question: Question): Promise<Answer> {
    const what = `${question.method} ${question.peerUrl}${question.path}`;
    if (this.#closed) throw new Error(`${what}: this member is stopping`);
    if (this.#underWay >= QUESTIONS_MAX) throw new Error(`${what}: too many questions to other members are under way`);
    this.#underWay++;
    try {
      return await this.#ask(question, true);
    } catch (error) {
      throw new Error(`${what}: ${(error as Error).message}`, { cause: error });
    } finally {
      this.#underWay--;
    }
  }

  /** Ends what is under way with an error. */
  close(): void {
    this.#closed = true;
    this.#agents.http.destroy();
    this.#agents.https.destroy();
  }

  #ask(question: Question, mayRepeat: boolean): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const request = this.#request(question);
      let answered = false;
      const fail = (error: Error): void => {
        if (answered) return;
        answered = true;
        timer.cancel();
        // The peer closed a connection that had been idle, just when it was used again.
        if (mayRepeat && request.reusedSocket && isReset(error)) resolve(this.#ask(question, false));
        else reject(error);
        request.destroy();
      };
      const timer = this.#clock.after(question.timeoutMs, () =>
        fail(new Error(`no answer within ${goDuration(question.timeoutMs)}`)),
      );
      request.on("error", fail);
      request.on("response", (response) => {
        const parts: Buffer[] = [];
        let bytes = 0;
        response.on("data", (part: Buffer) => {
          bytes += part.length;
          if (bytes <= question.bytesMax) parts.push(part);
          else fail(new Error(`response body exceeds ${question.bytesMax} bytes limit`));
        });
        response.on("error", fail);
        response.on("end", () => {
          answered = true;
          timer.cancel();
          resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(parts) });
        });
      });
      request.end(question.body);
    });
  }

  #request({ method, peerUrl, path, headers, body }: Question): http.ClientRequest {
    const [, scheme = "", rest = ""] = /^([a-z]+):\/\/(.*)$/.exec(peerUrl) ?? [];
    const secure = scheme === "https" || scheme === "unixs";
    if (!secure && scheme !== "http" && scheme !== "unix") {
      throw new Error("unsupported protocol scheme: peer URLs are http, https, unix or unixs");
    }
    const place = placeOf(scheme, rest, path);
    const common: http.RequestOptions = {
      method,
      headers: {
        ...headers,
        ...(method === "POST" || body !== undefined ? { "content-length": body?.length ?? 0 } : {}),
      },
      ...place.request,
    };
    if (!secure) return http.request({ ...common, agent: this.#agents.http });
    if (this.#tls === undefined) {
      throw new Error("the URL wants TLS, but this member has no certificate for its peers (--peer-cert-file)");
    }
    return https.request({ ...common, ...this.#tls.connectOptions(place.name), agent: this.#agents.https });
  }
}

/** Where to connect to, and the name that the certificate has to be for. */
function placeOf(scheme: string, rest: string, path: string): { request: http.RequestOptions; name: string } {
  if (scheme.startsWith("unix")) return { request: { socketPath: rest, path }, name: rest };
  const url = new URL(`${scheme}://${rest}${path}`);
  const name = url.hostname.replace(/^\[(.*)\]$/, "$1");
  // As in Go, `localhost` is the IPv4 loopback, whatever the machine's resolver prefers.
  const host = name === "localhost" ? "127.0.0.1" : name;
  const port = url.port === "" ? (scheme === "https" ? 443 : 80) : Number(url.port);
  return { request: { host, port, path: url.pathname }, name };
}

const isReset = (error: Error): boolean => (error as NodeJS.ErrnoException).code === "ECONNRESET";
