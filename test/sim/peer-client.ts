/**
 * Requests between members: the production client and endpoints, with the simulated network instead of HTTP
 * connections.
 */
import { EventEmitter } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Logger } from "../../src/base/log.ts";
import { HttpPeerClient } from "../../src/peer/client.ts";
import type { PeerHttp, PeerRequest, PeerResponse } from "../../src/peer/http.ts";
import type { PeerClient } from "../../src/server/contract/network.ts";
import { requestTimeoutMs } from "../../src/server/contract/options.ts";
import type { MachineWorld } from "./machine.ts";
import type { SimProcess } from "./scheduler.ts";

export interface Asker {
  readonly machine: string;
  readonly process: SimProcess;
  readonly logger: Logger;
}

export function peerClientOf(world: MachineWorld, asker: Asker): PeerClient {
  const timeoutMs = requestTimeoutMs({ electionTicks: 10, tickMs: 100 });
  return new HttpPeerClient({ logger: asker.logger, timeoutMs, http: httpOf(world, asker) });
}

function httpOf(world: MachineWorld, asker: Asker): PeerHttp {
  const http = {
    request: (request: PeerRequest): Promise<PeerResponse> =>
      new Promise((resolve, reject) => {
        const timer = world.scheduler.after(request.timeoutMs, () =>
          asker.process.run(() => reject(new Error("context deadline exceeded"))),
        );
        const running = world.machineOf(`http://${request.url.host}`)?.running;
        const answer = (): Promise<PeerResponse> =>
          running === undefined
            ? Promise.reject(new Error("connection refused"))
            : answerOf(request, (incoming, outgoing) => running.endpoints.handle(incoming, outgoing, request.path));
        world.network.ask(asker, running?.parts.memberId ?? 0n, answer).then(
          (response) => {
            timer.cancel();
            resolve(response);
          },
          (error: unknown) => {
            timer.cancel();
            reject(error);
          },
        );
      }),
    close: () => {},
  };
  return http as unknown as PeerHttp;
}

/** The answer of an HTTP request handler, without a connection. */
function answerOf(
  request: PeerRequest,
  handle: (incoming: IncomingMessage, outgoing: ServerResponse) => boolean,
): Promise<PeerResponse> {
  return new Promise((resolve) => {
    const incoming = Object.assign(new EventEmitter(), { method: request.method, headers: request.headers ?? {} });
    const headers: Record<string, string> = {};
    const outgoing = {
      statusCode: 200,
      headersSent: false,
      setHeader(name: string, value: string | number): void {
        headers[name.toLowerCase()] = `${value}`;
      },
      end(body: string | Uint8Array = ""): void {
        this.headersSent = true;
        resolve({ status: this.statusCode, headers, body: Buffer.from(body as string) });
      },
    };
    const known = handle(incoming as unknown as IncomingMessage, outgoing as unknown as ServerResponse);
    if (!known) resolve({ status: 404, headers, body: Buffer.from("404 page not found\n") });
    if (request.body !== undefined) incoming.emit("data", Buffer.from(request.body));
    incoming.emit("end");
  });
}
