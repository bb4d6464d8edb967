/**
 * One HTTP/2 stream, as the connection sees it: both windows, both ends' state, and what waits to be sent. What the stream
 * means (a gRPC call, a plain request) is its subclass's business. Fields are written by the connection and the subclass
 * only; one object serves a whole request, so that a call costs one allocation.
 */
import type { Connection } from "./connection.ts";
import type { Route } from "./contract.ts";
import type { RequestHead } from "./head.ts";
import type { HeaderPair } from "./hpack/encoder.ts";
import { STREAM_WINDOW } from "./protocol.ts";

/** Trailers of a successful call, which have their own ready-made block, or any others. */
export type Trailers = "ok" | readonly HeaderPair[];

export abstract class Stream {
  readonly connection: Connection;
  readonly id: number;
  readonly head: RequestHead<Route>;

  readonly openedAtMs: number;
  /** The client has sent its END_STREAM. */
  remoteClosed = false;
  /** We have sent, or queued, our END_STREAM; or the stream was reset. */
  localClosed = false;
  /** Reply headers are on their way. */
  headersSent = false;

  sendWindow: number;
  /** Bytes that the client may still send, and those that it will be given back in the next step. */
  receiveWindow = STREAM_WINDOW;
  receiveCredit = 0;
  /** Credit is withheld: the reader wants no more for now. */
  paused = false;
  /** Bytes of data received, to hold against content-length. */
  receivedBytes = 0;
  /** Bytes that are held of requests which are not complete or not yet delivered. */
  requestBytes = 0;

  /** Data that waits for window or socket; each entry is our own copy. */
  queue: Buffer[] | null = null;
  /** Bytes of the queue, and of what comes after it and is not ready to be sent. */
  queueBytes = 0;
  /** Entries of the size of a chunk go back to the pool when they have been sent. */
  recyclesPieces = false;
  /** Bytes of the first entry that have been sent. */
  queueOffset = 0;
  /** What follows the queue once `localClosed`: trailers, encoded when their turn has come, or none: an empty data frame. */
  trailers: Trailers | null = null;
  /** Linked in the connection's list of streams that could send. */
  ready = false;
  readyNext: Stream | null = null;

  constructor(connection: Connection, id: number, head: RequestHead<Route>) {
    this.connection = connection;
    this.id = id;
    this.head = head;
    this.openedAtMs = connection.nowMs;
    this.sendWindow = connection.peerInitialWindow;
  }

  /** The head is here; so is all there will be if `remoteClosed`. */
  abstract onOpen(): void;

  /**
   * The payload of a data frame. `last` when it ends the client's side. The bytes stay valid and unchanged. True when it
   * completed a message.
   */
  abstract onData(buf: Buffer, start: number, end: number, last: boolean): boolean;

  /** The stream is gone: reset by the client, or its connection ended. Nothing can be sent any more. */
  abstract onReset(): void;

  /** The queue has fallen below the level at which senders had to wait. */
  abstract onQueueDrained(): void;

  /** Too much is held for clients, and this stream has to let go of the answers that its client does not read. */
  abstract giveUpReplies(): void;

  /** Or of a request that its client does not finish. */
  abstract giveUpRequest(): void;
}
