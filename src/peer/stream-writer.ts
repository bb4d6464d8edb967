import type { Socket } from "node:net";
import type { Timer } from "../base/clock.ts";
import { formatId } from "../membership/member.ts";
import type { Message } from "../proto/raftpb.ts";
import type { PeerContext } from "./context.ts";
import type { PeerStatus } from "./peer-status.ts";
import type { StreamEncoder, StreamKind } from "./stream-kind.ts";

/** Messages queued while the socket is full; as in etcd. */
const QUEUE_MAX = 4096;
/** Batches are cut here, so that progress of a slow peer can be observed. */
const BATCH_BYTES = 256 * 1024;
/** Bytes given to the socket that the kernel has not taken; beyond that, messages wait. */
const WRITE_AHEAD_BYTES_MAX = 1024 * 1024;
/** Approximate size of a message besides its entries' data. */
const MESSAGE_OVERHEAD_BYTES = 64;
const ENTRY_OVERHEAD_BYTES = 24;
/** Time a peer has to take the end of a stream. */
const END_MS_MAX = 1000;

const LAST_CHUNK = "0\r\n\r\n";

/**
 * Sends messages on a stream of one kind that the peer opened. There is one connection at a time; a newer one replaces
 * it. Messages pushed during one turn are sent in one write at `flush`.
 */
export class StreamWriter {
  readonly #kind: StreamKind;
  readonly #peerId: bigint;
  readonly #peer: string;
  readonly #context: PeerContext;
  readonly #status: PeerStatus;
  readonly #onDrain = (): void => this.flush();
  #connection: Connection | null = null;
  readonly #queue: Message[] = [];
  /** The first unsent message of the queue. */
  #head = 0;
  #heartbeats: Timer | null = null;

  constructor(kind: StreamKind, peerId: bigint, context: PeerContext, status: PeerStatus) {
    this.#kind = kind;
    this.#peerId = peerId;
    this.#peer = formatId(peerId);
    this.#context = context;
    this.#status = status;
    this.#context.logger.info("started stream writer with remote peer", this.#ids());
  }

  get isWorking(): boolean {
    return this.#connection !== null;
  }

  get name(): string {
    return this.#kind.name;
  }

  /** Takes over a socket on which the response head, for a chunked body, was sent. */
  attach(socket: Socket): void {
    const { clock, logger, readTimeoutMs, local } = this.#context;
    const replaced = this.#close();
    const connection: Connection = {
      socket,
      encoder: this.#kind.encoder(),
      givenBytes: 0,
      stallTimer: null,
      takenBytes: 0,
      onClose: () => this.#lost(connection, "write", connection.error ?? "the remote peer closed the connection"),
      onError: (error) => {
        connection.error = error.message;
      },
      error: undefined,
    };
    this.#connection = connection;
    socket.on("error", connection.onError);
    socket.on("close", connection.onClose);
    socket.on("drain", this.#onDrain);
    logger.info("set message encoder", {
      from: formatId(local.id),
      to: this.#peer,
      "stream-type": this.#kind.name,
    });
    this.#status.activate();
    if (replaced) logger.warn("closed TCP streaming connection with remote peer", this.#fields());
    logger.info("established TCP streaming connection with remote peer", this.#fields());
    this.#heartbeats = clock.every(readTimeoutMs / 3, () => this.#heartbeat());
    if (socket.destroyed) connection.onClose();
  }

  /** False when too many messages wait. */
  push(message: Message): boolean {
    if (this.#queue.length - this.#head >= QUEUE_MAX) return false;
    this.#queue.push(message);
    return true;
  }

  /** Sends the pushed messages, as far as the socket takes them. */
  flush(): void {
    const connection = this.#connection;
    if (connection === null) return;
    const queue = this.#queue;
    while (this.#head < queue.length && connection.socket.writableLength < WRITE_AHEAD_BYTES_MAX) {
      const start = this.#head;
      this.#head = batchEnd(queue, start);
      this.#write(connection, connection.encoder.encode(queue, start, this.#head));
    }
    if (this.#head === queue.length) {
      queue.length = 0;
      this.#head = 0;
    } else if (this.#head >= QUEUE_MAX) {
      queue.splice(0, this.#head);
      this.#head = 0;
    }
    this.#watchProgress(connection);
  }

  stop(): void {
    const { logger } = this.#context;
    const fields = { "stream-writer-type": this.#kind.name, "remote-peer-id": this.#peer };
    if (this.#close()) logger.warn("closed TCP streaming connection with remote peer", fields);
    logger.info("stopped TCP streaming connection with remote peer", fields);
  }

  #write(connection: Connection, pieces: readonly Uint8Array[]): void {
    const { socket } = connection;
    let bytes = 0;
    if (pieces.length > 1) socket.cork();
    for (let i = 0; i < pieces.length; i++) {
      bytes += pieces[i]!.length;
      socket.write(pieces[i]!);
    }
    if (pieces.length > 1) socket.uncork();
    connection.givenBytes += bytes;
    this.#context.metrics.sentBytes.add(this.#peer, bytes);
  }

  #heartbeat(): void {
    const connection = this.#connection;
    if (connection === null) return;
    // Bytes in flight also prove that this member is alive, and a peer that takes nothing gets no more.
    if (connection.socket.writableLength === 0) this.#write(connection, connection.encoder.heartbeat());
    this.#watchProgress(connection);
  }

  /** While bytes wait, the peer must take some within each write timeout. */
  #watchProgress(connection: Connection): void {
    const { writableLength } = connection.socket;
    if (writableLength === 0 || connection.stallTimer !== null) return;
    connection.takenBytes = connection.givenBytes - writableLength;
    connection.stallTimer = this.#context.clock.after(this.#context.writeTimeoutMs, () => {
      connection.stallTimer = null;
      const waiting = connection.socket.writableLength;
      if (waiting > 0 && connection.givenBytes - waiting <= connection.takenBytes) {
        this.#lost(connection, "write", `write tcp ${remoteText(connection.socket)}: i/o timeout`);
      } else this.#watchProgress(connection);
    });
  }

  #lost(connection: Connection, action: string, reason: string): void {
    if (connection !== this.#connection) return;
    this.#status.deactivate(this.#kind.name, action, reason);
    this.#context.metrics.sendFailures.add(this.#peer, 1);
    this.#close();
    this.#context.logger.warn("lost TCP streaming connection with remote peer", { ...this.#fields(), error: reason });
  }

  /** Whether there was a connection to close. */
  #close(): boolean {
    const connection = this.#connection;
    if (connection === null) return false;
    this.#connection = null;
    this.#heartbeats?.cancel();
    this.#heartbeats = null;
    connection.stallTimer?.cancel();
    const { socket } = connection;
    socket.off("drain", this.#onDrain);
    socket.off("close", connection.onClose);
    if (this.#head < this.#queue.length) this.#context.reportUnreachable(this.#peerId);
    this.#queue.length = 0;
    this.#head = 0;
    if (socket.destroyed) return true;
    const timer = this.#context.clock.after(END_MS_MAX, () => socket.destroy());
    socket.once("close", () => timer.cancel());
    if (socket.writableLength > 0) socket.destroy();
    else socket.end(LAST_CHUNK);
    return true;
  }

  #ids(): Record<string, string> {
    return { "local-member-id": formatId(this.#context.local.id), "remote-peer-id": this.#peer };
  }

  #fields(): Record<string, string> {
    return { "stream-writer-type": this.#kind.name, ...this.#ids() };
  }
}

interface Connection {
  readonly socket: Socket;
  readonly encoder: StreamEncoder;
  readonly onClose: () => void;
  readonly onError: (error: Error) => void;
  error: string | undefined;
  /** Bytes written to the socket, and those it had passed on when the stall timer started. */
  givenBytes: number;
  takenBytes: number;
  stallTimer: Timer | null;
}

/** End of the batch that begins at `start`: at least one message, at most about BATCH_BYTES. */
function batchEnd(queue: readonly Message[], start: number): number {
  let bytes = 0;
  let end = start;
  while (end < queue.length && bytes < BATCH_BYTES) {
    const { entries } = queue[end++]!;
    bytes += MESSAGE_OVERHEAD_BYTES;
    for (let i = 0; i < entries.length; i++) bytes += entries[i]!.data.length + ENTRY_OVERHEAD_BYTES;
  }
  return end;
}

export const remoteText = ({ remoteAddress, remotePort }: Socket): string =>
  remoteAddress === undefined
    ? "@"
    : `${remoteAddress.includes(":") ? `[${remoteAddress}]` : remoteAddress}:${remotePort}`;
