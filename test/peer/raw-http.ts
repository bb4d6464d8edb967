/** A hand-made peer: HTTP/1.1 over a socket, for requests that no correct member sends. */
import * as net from "node:net";
import { ETCD_VERSION } from "../../src/base/versions.ts";
import { CLUSTER_ID } from "./loopback.ts";

/** Headers of a member with id 2 that talks to member 1. */
export const headers = (changes: Readonly<Record<string, string | undefined>> = {}): Record<string, string> => {
  const all: Record<string, string | undefined> = {
    Host: "127.0.0.1",
    "X-Server-From": "2",
    "X-Server-Version": ETCD_VERSION,
    "X-Min-Cluster-Version": "3.0.0",
    "X-Etcd-Cluster-ID": CLUSTER_ID.toString(16),
    "X-Raft-To": "1",
    ...changes,
  };
  return Object.fromEntries(Object.entries(all).filter((pair): pair is [string, string] => pair[1] !== undefined));
};

export interface RawAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: string;
}

/** Requests with fetch; nothing is cached or followed. */
export async function ask(
  url: string,
  path: string,
  options: { method?: string; headers?: Record<string, string>; body?: Uint8Array } = {},
): Promise<RawAnswer> {
  const { Host: _, ...sent } = options.headers ?? headers();
  const response = await fetch(`${url}${path}`, {
    method: options.method ?? "GET",
    headers: sent,
    ...(options.body === undefined ? {} : { body: Buffer.from(options.body) }),
    redirect: "manual",
    signal: AbortSignal.timeout(5000),
  });
  return { status: response.status, headers: response.headers, body: await response.text() };
}

/** A connection whose reads and writes are done by the test. */
export interface RawConnection {
  readonly socket: net.Socket;
  /** Everything received. */
  received(): string;
  closed: boolean;
}

export async function open(port: number, first: string): Promise<RawConnection> {
  const socket = net.connect({ host: "127.0.0.1", port });
  let received = "";
  const connection: RawConnection = { socket, received: () => received, closed: false };
  socket.on("data", (piece) => (received += piece.toString("latin1")));
  socket.on("error", () => {});
  socket.on("close", () => {
    connection.closed = true;
  });
  await new Promise<void>((resolve, reject) => {
    socket.once("connect", () => resolve());
    socket.once("error", reject);
  });
  socket.write(first);
  return connection;
}

export const streamRequest = (kind: "msgapp" | "message", from = "2"): string =>
  `GET /raft/stream/${kind}/${from} HTTP/1.1\r\n${Object.entries(headers())
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join("")}\r\n`;

/** A member that accepts connections, answers each request with `respond`, and is closed by the test. */
export async function startFake(
  respond: (socket: net.Socket, request: string) => void,
): Promise<{ url: string; sockets: net.Socket[]; close(): void }> {
  const sockets: net.Socket[] = [];
  const server = net.createServer((socket) => {
    sockets.push(socket);
    socket.on("error", () => {});
    let request = "";
    const read = (piece: Buffer): void => {
      request += piece.toString("latin1");
      if (!request.includes("\r\n\r\n")) return;
      socket.off("data", read);
      socket.pause();
      respond(socket, request);
    };
    socket.on("data", read);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as net.AddressInfo).port}`,
    sockets,
    close() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}
