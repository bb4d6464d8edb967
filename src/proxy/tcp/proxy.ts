/**
 * Forwards TCP connections to the members of a cluster, bytes as they are: TLS goes through from end to end. A client
 * that reads or writes slowly slows its own connection only; nothing is buffered beyond the sockets.
 */
import { connect, createServer, type Server, type Socket } from "node:net";
import type { ConnectionLimit } from "../../api/listeners/connection-limit.ts";
import { invariant } from "../../base/fatal.ts";
import { hostPort } from "../../client/endpoint.ts";
import type { RunningProxy } from "../contract.ts";
import type { Remote, Remotes } from "./remotes.ts";

const DIAL_TIMEOUT_MS = 10_000;

export interface TcpProxyOptions {
  readonly remotes: Remotes;
  readonly limit: ConnectionLimit;
}

export class TcpProxy {
  readonly #remotes: Remotes;
  readonly #limit: ConnectionLimit;
  readonly #open = new Set<Socket>();

  constructor({ remotes, limit }: TcpProxyOptions) {
    this.#remotes = remotes;
    this.#limit = limit;
  }

  /** Rejects with the system's error when the address cannot be used. */
  async listen(host: string, port: number): Promise<RunningProxy> {
    const server = createServer({ pauseOnConnect: true, noDelay: true }, (socket) => this.#accept(socket));
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(host === "" ? { port } : { host, port }, resolve);
    });
    // Accepting failed: the descriptors are used up. Those that end make room.
    server.on("error", () => {});
    const bound = server.address();
    invariant(bound !== null && typeof bound === "object", "a TCP listener has a host and a port");
    return { address: hostPort({ host: bound.address, port: bound.port }), close: () => this.#close(server) };
  }

  async #close(server: Server): Promise<void> {
    this.#remotes.close();
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    for (const socket of this.#open) socket.destroy();
    await closed;
  }

  #accept(client: Socket): void {
    if (!this.#limit.admit(client)) return;
    this.#track(client);
    client.once("data", () => this.#limit.spoke(client));
    client.pause();
    this.#dial(client);
  }

  /** Tries one member after the other until one takes the connection. */
  #dial(client: Socket): void {
    const remote = this.#remotes.pick();
    if (remote === undefined || client.destroyed) return void client.destroy();
    // A member whose packets are dropped would hold its clients for minutes.
    const member = connect({ host: remote.host, port: remote.port, noDelay: true, timeout: DIAL_TIMEOUT_MS });
    member.once("timeout", () => member.destroy(new Error("i/o timeout")));
    const failed = (error: Error): void => this.#failed(client, remote, error);
    const gone = (): void => void member.destroy();
    this.#track(member);
    member.once("error", failed);
    client.once("close", gone);
    member.once("connect", () => {
      member.setTimeout(0);
      member.off("error", failed);
      client.off("close", gone);
      join(client, member);
    });
  }

  #failed(client: Socket, remote: Remote, error: Error): void {
    this.#remotes.deactivate(remote, error);
    this.#dial(client);
  }

  #track(socket: Socket): void {
    this.#open.add(socket);
    socket.once("close", () => this.#open.delete(socket));
    // What ends a connection ends the one at the other side.
    socket.on("error", () => {});
  }
}

function join(client: Socket, member: Socket): void {
  client.once("close", () => member.destroy());
  member.once("close", () => client.destroy());
  if (client.destroyed) return void member.destroy();
  client.pipe(member);
  member.pipe(client);
}
