/**
 * A member's side towards the other members: the peer listeners, the transport of raft's messages and the members'
 * requests to each other. The listeners are bound before anything else, and served when the server has started.
 */
import { HttpPeerClient } from "../../peer/client.ts";
import { PeerDialer } from "../../peer/dialer.ts";
import { PeerHttp } from "../../peer/http.ts";
import type { PeerMetrics } from "../../peer/metrics.ts";
import { type PeerHandler, PeerServer } from "../../peer/server.ts";
import { PeerTransport } from "../../peer/transport.ts";
import type { Network, PeerClient } from "../../server/contract/network.ts";
import { type BootstrapOptions, requestTimeoutMs } from "../../server/contract/options.ts";
import type { ConnectionLimit } from "./connection-limit.ts";
import { type ListenAddress, type Listener, Listeners } from "./listeners.ts";
import { openPeerTls, type PeerTls } from "./peer-tls.ts";

/** A member's side towards the others, over sockets or, in one process, without. */
export interface Peers {
  readonly transport: Network & { readonly metrics: PeerMetrics };
  readonly client: PeerClient;
  /** Bound addresses. */
  readonly addresses: readonly string[];
  /** Serves other members from now on. */
  serve(handlers: readonly PeerHandler[]): void;
  /** Called after the server has stopped, and the transport with it. */
  close(): Promise<void>;
}

export interface PeerSideOptions {
  readonly listenPeer: readonly ListenAddress[];
  /** For `https` or `unixs` peer URLs. */
  readonly peerTls?: PeerTls | undefined;
  readonly raftReadTimeoutMs: number;
  readonly raftWriteTimeoutMs: number;
  /** Local address for connections to other members; absent for the system's choice. */
  readonly localAddress?: string | undefined;
}

/** Time for other members' requests when the member stops. */
const CLOSE_GRACE_MS = 1000;
/** etcd's time limit for connecting to a peer: this plus an election timeout. */
const DIAL_TIMEOUT_MS = 1000;

export class PeerSide implements Peers {
  readonly transport: PeerTransport;
  readonly client: HttpPeerClient;
  readonly #listeners: Listeners;
  readonly #hosts: readonly Listener[];
  readonly #limit: ConnectionLimit;
  #server: PeerServer | undefined;

  private constructor(
    transport: PeerTransport,
    client: HttpPeerClient,
    listeners: Listeners,
    hosts: readonly Listener[],
    limit: ConnectionLimit,
  ) {
    this.transport = transport;
    this.client = client;
    this.#listeners = listeners;
    this.#hosts = hosts;
    this.#limit = limit;
  }

  /** Binds the listeners. Rejects when an address cannot be bound or a certificate is unusable. */
  static async open(options: PeerSideOptions, server: BootstrapOptions, limit: ConnectionLimit): Promise<PeerSide> {
    const { clock, logger, electionTicks, tickMs } = server;
    const { listenPeer, raftReadTimeoutMs, raftWriteTimeoutMs, localAddress } = options;
    const tls = await openPeerTls(options.peerTls, listenPeer, server);
    const listeners = new Listeners({ clock, logger, tls: tls.server, limit });
    try {
      const hosts = await listeners.bindAll(listenPeer, "peer");
      const dialTimeoutMs = DIAL_TIMEOUT_MS + electionTicks * tickMs;
      const dialer = new PeerDialer({ clock, tls: tls.client, dialTimeoutMs, localAddress });
      const transport = new PeerTransport({
        clock,
        logger,
        dialer,
        readTimeoutMs: raftReadTimeoutMs,
        writeTimeoutMs: raftWriteTimeoutMs,
      });
      const timeoutMs = requestTimeoutMs(server);
      const client = new HttpPeerClient({ logger, timeoutMs, http: new PeerHttp(clock, dialer) });
      return new PeerSide(transport, client, listeners, hosts, limit);
    } catch (error) {
      listeners.close();
      throw error;
    }
  }

  /** Bound addresses; for port 0, the port that the system chose. */
  get addresses(): string[] {
    return this.#hosts.flatMap((host) => host.urls);
  }

  /** Serves other members from now on. The transport must be started. */
  serve(handlers: readonly PeerHandler[]): void {
    const server = new PeerServer(this.transport, handlers, { onRequest: (socket) => this.#limit.spoke(socket) });
    this.#limit.whenFull(() => server.closeIdle());
    this.#server = server;
    for (const host of this.#hosts) host.serve((socket) => server.handleConnection(socket));
  }

  /** Call it after the server has stopped, and the transport with it. */
  async close(): Promise<void> {
    this.#listeners.close();
    await this.transport.stop();
    await this.#server?.close(CLOSE_GRACE_MS);
    this.client.close();
  }
}
