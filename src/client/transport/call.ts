/**
 * One gRPC call as its connection sees it: both windows, the data waiting to be sent, and the assembly of what arrives.
 * Its subclass gives it meaning. A call may be started again on another connection after it ended on one.
 */

import { Assembly, type MessageSink } from "../../rpc/assembly.ts";
import type { Expiring } from "../../rpc/deadlines.ts";
import { STREAM_WINDOW } from "../../rpc/protocol.ts";
import type { ClientConnection } from "./connection.ts";
import type { CallHead } from "./request-encoder.ts";

/** Whether the server may have carried out a call that failed. */
export type Reached =
  /** Certainly not: it was never sent, or the server refused it unseen. */
  | "no"
  /** It may have been. */
  | "maybe"
  /** The server itself answered. */
  | "yes";

const PREFIX_BYTES = 5;

export abstract class Call implements MessageSink, Expiring {
  abstract readonly head: CallHead;
  readonly messageBytesMax: number;
  readonly deadlineMs: number;
  wheelSlot = -1;
  wheelNext: Expiring | null = null;
  wheelPrevious: Expiring | null = null;

  /** Set while the call is on a connection. */
  connection: ClientConnection | null = null;
  /** 0 until the connection has sent its headers. */
  id = 0;
  sendWindow = 0;
  receiveWindow = STREAM_WINDOW;
  receiveCredit = 0;
  /** No credit is returned: the reader does not want more. */
  paused = false;
  /** Response headers have arrived. */
  headersSeen = false;
  /** Messages waiting for the window, with their prefixes. */
  queue: Buffer[] | null = null;
  queueOffset = 0;
  /** No message follows those of the queue. */
  halfClosed = false;
  endSent = false;
  /** Linked in the connection's list of calls with data to send. */
  ready = false;
  readyNext: Call | null = null;
  #assembly: Assembly | null = null;

  constructor(deadlineMs: number, messageBytesMax: number) {
    this.deadlineMs = deadlineMs;
    this.messageBytesMax = messageBytesMax;
  }

  /** A whole response message; the bytes are a view that stays valid. */
  abstract onMessage(bytes: Uint8Array): void;
  /** The call has ended on its connection. */
  abstract onEnd(code: number, details: string, reached: Reached): void;
  abstract onDeadline(): void;

  /** Forgets the former connection. */
  reset(): void {
    this.connection = null;
    this.id = 0;
    this.receiveWindow = STREAM_WINDOW;
    this.receiveCredit = 0;
    this.headersSeen = false;
    this.queue = null;
    this.queueOffset = 0;
    this.halfClosed = false;
    this.endSent = false;
    this.ready = false;
    this.readyNext = null;
    this.#assembly = null;
  }

  /** The payload of a data frame. */
  onData(buf: Buffer, start: number, end: number): void {
    const length = end - start - PREFIX_BYTES;
    if (this.#assembly === null && length >= 0 && buf[start] === 0 && buf.readUInt32BE(start + 1) === length) {
      if (length > this.messageBytesMax) this.onMessageTooLarge(length);
      else this.onMessage(buf.subarray(start + PREFIX_BYTES, end));
      return;
    }
    this.#assembly ??= new Assembly(this);
    this.#assembly.take(buf, start, end);
  }

  /** A message has begun and is incomplete. */
  get isInsideMessage(): boolean {
    return this.#assembly?.isInside ?? false;
  }

  get isOver(): boolean {
    return this.connection === null;
  }

  /** A response is bounded by `messageBytesMax`. */
  holdRequest(): boolean {
    return true;
  }

  releaseRequest(): void {}

  onMessageBytes(flag: number, bytes: Uint8Array): void {
    if (flag === 0) this.onMessage(bytes);
    else this.connection?.cancel(this, INTERNAL, "the server compressed a message, which this client did not offer");
  }

  onMessageTooLarge(bytes: number): void {
    const text = `grpc: received message larger than max (${bytes} vs. ${this.messageBytesMax})`;
    this.connection?.cancel(this, RESOURCE_EXHAUSTED, text);
  }
}

const RESOURCE_EXHAUSTED = 8;
const INTERNAL = 13;
