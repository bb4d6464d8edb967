/**
 * One HTTP/2 stream, as the connection sees it: both windows, the state of both ends, and the data waiting to be sent.
 * Its subclass gives it meaning (a gRPC call, a plain request). Only the connection and the subclass write its fields;
 * one object serves a whole request, so that a call costs one allocation.
 */
import type { Connection } from "./connection.ts";
import type { Route } from "./contract.ts";
import type { RequestHead } from "./head.ts";
import type { HeaderPair } from "./hpack/encoder.ts";
import { STREAM_WINDOW } from "./protocol.ts";

/** Trailers of a successful call, which have a cached block, or any others. */
export type Trailers = "ok" | readonly HeaderPair[];

export abstract class Stream {
  readonly connection: Connection;
  readonly id: number;
  readonly head: RequestHead<Route>;

  /** The client has sent its END_STREAM. */
  remoteClosed = false;
  /** We have sent or queued END_STREAM, or the stream was reset. */
  localClosed = false;
  /** Reply headers are sent or queued. */
  headersSent = false;

  sendWindow: number;
  /** Bytes that the client may still send, and those to be returned in the next step. */
  receiveWindow = STREAM_WINDOW;
  receiveCredit = 0;
  /** Credit is withheld: the reader is paused. */
  paused = false;
  /** Bytes of data received, to compare with content-length. */
  receivedBytes = 0;
  /** Bytes held of requests that are incomplete or undelivered. */
  requestBytes = 0;

  /** Data waiting for window or socket; each entry is our own copy. */
  queue: Buffer[] | null = null;
  /** Bytes of the queue, and of later data that is not ready yet. */
  queueBytes = 0;
  /** Chunk-sized entries return to the pool when they have been sent. */
  recyclesPieces = false;
  /** Bytes of the first entry already sent. */
  queueOffset = 0;
  /**
   * What follows the queue once `localClosed`: trailers, encoded when their turn comes, or, if null, an empty data
   * frame.
   */
  trailers: Trailers | null = null;
  /** Linked in the connection's list of ready streams. */
  ready = false;
  readyNext: Stream | null = null;

  constructor(connection: Connection, id: number, head: RequestHead<Route>) {
    this.connection = connection;
    this.id = id;
    this.head = head;
    this.sendWindow = connection.peerInitialWindow;
  }

  /** The head has arrived, and nothing more follows if `remoteClosed`. */
  abstract onOpen(): void;

  /**
   * The payload of a data frame. `last`: it ends the client's side. The bytes stay valid and unchanged. True when it
   * completed a message.
   */
  abstract onData(buf: Buffer, start: number, end: number, last: boolean): boolean;

  /** The stream is gone: the client reset it, or its connection ended. No more can be sent. */
  abstract onReset(): void;

  /** The queue has fallen below the level at which senders must wait. */
  abstract onQueueDrained(): void;

  /** Too much is held for clients: this stream must drop answers that its client does not read. */
  abstract giveUpReplies(): void;

  /** The same for a request that its client does not complete. */
  abstract giveUpRequest(): void;
}
