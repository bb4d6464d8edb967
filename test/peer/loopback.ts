/** Transports of a cluster in one process, each with a server on a port chosen by the system. */
import * as net from "node:net";
import { systemClock } from "../../src/base/clock.ts";
import { PeerDialer } from "../../src/peer/dialer.ts";
import { type PeerHandler, PeerServer } from "../../src/peer/server.ts";
import { PeerTransport } from "../../src/peer/transport.ts";
import { type Message, Message as MessageCodec, MessageType } from "../../src/proto/raftpb.ts";
import { TlsAcceptor } from "../../src/rpc/tls/acceptor.ts";
import { TlsClient, type TlsClientOptions } from "../../src/rpc/tls/client.ts";
import { NO_TLS, TlsContext } from "../../src/rpc/tls/context.ts";
import type { DatabaseImage, DatabaseSink, NetworkReceiver } from "../../src/server/contract/network.ts";
import { MemoryLogger } from "../harness/memory-logger.ts";

export const CLUSTER_ID = 0xc1n;

/** Neither a certificate nor a CA. */
export const NO_PEER_TLS: TlsClientOptions = {
  ...NO_TLS,
  flagPrefix: "peer-",
  serverName: "",
  insecureSkipVerify: false,
};

/** Records the network's callbacks to a server. */
export class RecordingReceiver implements NetworkReceiver {
  readonly messages: Message[] = [];
  readonly unreachable: bigint[] = [];
  readonly snapshots: { id: bigint; received: boolean }[] = [];
  readonly removedIds = new Set<bigint>();
  removedCount = 0;
  /** Replaced by tests of snapshots. */
  sink: (message: Message) => DatabaseSink = () => {
    throw new Error("no snapshot is expected");
  };

  receive(message: Message): void {
    this.messages.push(message);
  }
  beginSnapshot(message: Message): DatabaseSink {
    return this.sink(message);
  }
  isRemoved(id: bigint): boolean {
    return this.removedIds.has(id);
  }
  reportUnreachable(id: bigint): void {
    this.unreachable.push(id);
  }
  reportSnapshot(id: bigint, received: boolean): void {
    this.snapshots.push({ id, received });
  }
  removed(): void {
    this.removedCount++;
  }
}

export interface NodeOptions {
  readonly clusterId?: bigint;
  readonly readTimeoutMs?: number;
  readonly writeTimeoutMs?: number;
  readonly handlers?: readonly PeerHandler[];
  readonly postedBytesMax?: number;
  /** Receives the messages instead of a recording receiver. */
  readonly receiver?: NetworkReceiver;
  /** Its TLS, if any. */
  readonly tls?: TlsClientOptions;
  /** Its port; 0 for one chosen by the system. */
  readonly port?: number;
}

export interface Node {
  readonly id: bigint;
  readonly url: string;
  readonly port: number;
  readonly transport: PeerTransport;
  readonly receiver: RecordingReceiver;
  readonly logger: MemoryLogger;
  /** Sockets opened by others. */
  readonly sockets: Set<net.Socket>;
  close(): Promise<void>;
}

/** A member's side of the network. */
export async function startNode(id: bigint, options: NodeOptions = {}): Promise<Node> {
  const logger = new MemoryLogger();
  const listener = net.createServer({ noDelay: true });
  await new Promise<void>((resolve) => listener.listen(options.port ?? 0, "127.0.0.1", resolve));
  const { port } = listener.address() as net.AddressInfo;
  const { tls } = options;
  const url = `${tls === undefined ? "http" : "https"}://127.0.0.1:${port}`;
  const dialer = new PeerDialer({
    clock: systemClock,
    tls: new TlsClient(tls ?? NO_PEER_TLS, logger),
    dialTimeoutMs: 2000,
  });
  const transport = new PeerTransport({
    clock: systemClock,
    logger,
    dialer,
    readTimeoutMs: options.readTimeoutMs ?? 5000,
    writeTimeoutMs: options.writeTimeoutMs ?? 5000,
  });
  const receiver = new RecordingReceiver();
  transport.start(options.receiver ?? receiver, { id, clusterId: options.clusterId ?? CLUSTER_ID, urls: [url] });
  const server = new PeerServer(transport, options.handlers ?? [], options);
  const sockets = new Set<net.Socket>();
  const acceptor =
    tls &&
    new TlsAcceptor({
      context: new TlsContext(tls, systemClock, logger),
      protocols: ["http/1.1"],
      checkSan: true,
      refusal: "rejected connection on peer endpoint",
      clock: systemClock,
      logger,
      onSocket: (socket) => server.handleConnection(socket),
    });
  listener.on("connection", (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    if (acceptor === undefined) server.handleConnection(socket);
    else acceptor.accept(socket);
  });
  return {
    id,
    url,
    port,
    transport,
    receiver,
    logger,
    sockets,
    async close() {
      listener.close();
      acceptor?.close();
      await transport.stop();
      await server.close(0);
    },
  };
}

/** Nodes with ids 1, 2, …, each with the others as peers. */
export async function startNodes(count: number, options: NodeOptions = {}): Promise<Node[]> {
  const nodes: Node[] = [];
  for (let i = 1; i <= count; i++) nodes.push(await startNode(BigInt(i), options));
  for (const node of nodes) {
    for (const other of nodes) node.transport.addPeer({ id: other.id, urls: [other.url] });
  }
  return nodes;
}

export const closeAll = (nodes: readonly Node[]): Promise<unknown> => Promise.all(nodes.map((node) => node.close()));

/** A raft message with the fields set by its sender. */
export const message = (fields: Partial<Message>): Message => MessageCodec.create({ term: 1, ...fields });

/** A MsgApp with entries of these sizes after `index`. */
export function append(from: bigint, to: bigint, index: number, sizes: readonly number[], term = 1): Message {
  return message({
    type: MessageType.MsgApp,
    from,
    to,
    term,
    logTerm: term,
    index,
    commit: index,
    entries: sizes.map((size, i) => ({ type: 0, term, index: index + 1 + i, data: Buffer.alloc(size, index + i) })),
  });
}

/** A database of pieces generated on the fly. */
export function image(pieces: readonly Uint8Array[]): DatabaseImage & { closed: boolean } {
  return {
    closed: false,
    sizeBytes: pieces.reduce((sum, { length }) => sum + length, 0),
    async *chunks() {
      yield* pieces;
    },
    close() {
      this.closed = true;
    },
  };
}
