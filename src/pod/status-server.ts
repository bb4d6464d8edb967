/**
 * The pod's status port: `/livez` and `/readyz` for Kubernetes, `/state` for the other pods. With TLS between members it is served
 * with TLS, and `/state` only to those who show a certificate of the members' authority; probes have none.
 */
import { readFileSync } from "node:fs";
import { createServer as createHttp, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createHttps } from "node:https";
import { TLSSocket } from "node:tls";
import type { Clock } from "../base/clock.ts";
import { systemText } from "../base/system-error.ts";
import { DeployError } from "../deploy/common/context.ts";
import type { PodState } from "./neighbours.ts";
import type { PodSettings } from "./settings.ts";

export interface Probe {
  readonly isOk: boolean;
  readonly text: string;
}

export interface PodProbes {
  livez(): Promise<Probe>;
  readyz(): Promise<Probe>;
  state(): PodState;
}

const RENEWAL_MS = 60_000;
const CONNECTIONS_MAX = 256;

export class StatusServer {
  readonly #server: Server;
  readonly #close: () => void;

  private constructor(server: Server, close: () => void) {
    this.#server = server;
    this.#close = close;
  }

  /** Rejects with DeployError when the port cannot be had. */
  static async listen(settings: PodSettings, probes: PodProbes, clock: Clock): Promise<StatusServer> {
    const { peerTls, listen, statusPort } = settings;
    const answer = (request: IncomingMessage, response: ServerResponse) =>
      void serve(probes, peerTls !== undefined, request, response);
    let server: Server;
    let close = () => {};
    if (peerTls === undefined) server = createHttp(answer);
    else {
      const secure = createHttps({ ...files(peerTls), requestCert: true, rejectUnauthorized: false }, answer);
      const timer = clock.every(RENEWAL_MS, () => {
        try {
          secure.setSecureContext(files(peerTls));
        } catch {
          // Half-written files: the next time they are whole.
        }
      });
      close = () => timer.cancel();
      server = secure;
    }
    server.maxConnections = CONNECTIONS_MAX;
    await new Promise<void>((resolve, reject) => {
      server.once("error", (error) => reject(new DeployError(`--status-port=${statusPort}: ${systemText(error)}`)));
      server.listen(statusPort, listen, resolve);
    });
    return new StatusServer(server, close);
  }

  close(): void {
    this.#close();
    this.#server.close();
    this.#server.closeAllConnections();
  }
}

async function serve(
  probes: PodProbes,
  isSecure: boolean,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const end = (status: number, text: string) =>
    void response.writeHead(status, { connection: "close" }).end(`${text}\n`);
  const { pathname } = new URL(request.url ?? "/", "http://pod");
  if (request.method !== "GET") return end(405, "only GET");
  if (pathname === "/livez" || pathname === "/readyz") {
    const { isOk, text } = await (pathname === "/livez" ? probes.livez() : probes.readyz());
    return end(isOk ? 200 : 503, text);
  }
  if (pathname !== "/state") return end(404, "there are /livez, /readyz and /state");
  const { socket } = request;
  if (isSecure && !(socket instanceof TLSSocket && socket.authorized))
    return end(401, "show a certificate of a member");
  end(200, JSON.stringify(probes.state()));
}

function files({ certFile, keyFile, caFile }: NonNullable<PodSettings["peerTls"]>) {
  const ca = caFile === undefined ? {} : { ca: readFileSync(caFile) };
  return { cert: readFileSync(certFile), key: readFileSync(keyFile), ...ca };
}
