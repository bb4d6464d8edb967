/**
 * The receiving half of a gRPC call: finds messages in data frames, decompresses them, and delivers them to the handler
 * in order, at its pace. Undelivered messages of a stream wait here; the stream's window bounds them.
 */
import { nameWork } from "../base/doing.ts";
import { Code } from "../base/grpc-codes.ts";
import { Assembly, type MessageSink } from "./assembly.ts";
import type { Unreadable } from "./compression.ts";
import { Earning } from "./guard.ts";
import { READ_SLICE_MS } from "./read-turns.ts";
import { Stream } from "./stream.ts";
import { WaitingMessages } from "./waiting-messages.ts";

const NO_MESSAGE: Uint8Array = Buffer.alloc(0);
/** Cost of a waiting message besides its bytes. */
const WAITING_COST = 64;
/** A view of socket input keeps up to 64 KiB alive; smaller messages are copied when they must wait. */
const VIEW_BYTES_MIN = 16 * 1024;

/** Messages between two reads of the clock. */
const MESSAGES_PER_LOOK = 16;

export abstract class ReceivingStream extends Stream implements MessageSink {
  message: Uint8Array = NO_MESSAGE;
  onMessage: ((message: Uint8Array) => void) | null = null;
  onHalfClose: (() => void) | null = null;

  /** The call has ended for its handler: answered, failed or cancelled. */
  protected ended = false;
  /** Unary: the message is complete. */
  private complete = false;
  /** Unary: the handler has been called. */
  private started = false;
  private halfCloseDelivered = false;
  /** Set once a message spans several frames. */
  private assembly: Assembly | null = null;
  /** The handler has paused. */
  private readerPaused = false;
  /** A message is being decompressed; later ones wait. */
  private inflating = false;
  private waiting: WaitingMessages | null = null;

  /** Fails the call and notifies its handler, if it is running. */
  protected abstract abort(code: number, message: string): void;

  protected abstract callUnaryHandler(): void;

  /** The handler threw. */
  abstract crashed(error: unknown): void;

  // ---- called by handlers

  pauseReading(): void {
    this.readerPaused = true;
    this.paused = true;
  }

  resumeReading(): void {
    if (!this.readerPaused) return;
    this.readerPaused = false;
    this.continueReading();
  }

  // ---- called by the connection

  onData(buf: Buffer, start: number, end: number, last: boolean): boolean {
    // A unary call has one message: further data is ignored.
    let completed = !this.complete;
    if (
      (this.assembly === null || !this.assembly.isInside) &&
      end - start >= 5 &&
      readLength(buf, start + 1) === end - start - 5 &&
      end - start - 5 <= this.connection.core.maxRecvMessageBytes
    ) {
      // One frame, one message: nearly every call.
      this.onMessageBytes(buf[start]!, buf.subarray(start + 5, end));
    } else {
      this.assembly ??= new Assembly(this);
      const messages = this.assembly.take(buf, start, end);
      completed = messages > 0;
      this.connection.tookMessages(messages);
    }
    if (last && !this.ended) this.onRemoteEnd();
    return completed;
  }

  /** Calls the unary handler, once. */
  start(): void {
    if (this.started || this.ended) return;
    this.started = true;
    nameWork(this.head.path);
    try {
      this.callUnaryHandler();
    } catch (error) {
      this.crashed(error);
    }
  }

  // ---- called by the assembly

  get isOver(): boolean {
    return this.ended;
  }

  get messageBytesMax(): number {
    return this.connection.core.maxRecvMessageBytes;
  }

  holdRequest(bytes: number): boolean {
    const { connection } = this;
    const most = connection.core.receiveBufferBytesMax;
    if (connection.requests.bytes + bytes > most) {
      this.abort(Code.RESOURCE_EXHAUSTED, `too many unread messages on one connection (more than ${most} bytes)`);
      return false;
    }
    connection.holdRequest(this, bytes);
    return true;
  }

  releaseRequest(bytes: number): void {
    this.connection.releaseRequest(this, bytes);
  }

  onMessageTooLarge(bytes: number): void {
    const limits = `(${bytes} vs. ${this.connection.core.maxRecvMessageBytes})`;
    this.abort(Code.RESOURCE_EXHAUSTED, `grpc: received message larger than max ${limits}`);
  }

  onMessageBytes(flag: number, bytes: Uint8Array): void {
    if (this.inflating || this.readerPaused || this.waiting !== null) this.keepWaiting(flag, bytes);
    else if (flag === 0) this.deliver(bytes);
    else this.unpack(flag, bytes);
  }

  // ---- internal

  /** The client has sent everything. */
  protected onRemoteEnd(): void {
    // A partial prefix counts for nothing, as in grpc-go.
    if (this.assembly?.isInsideBody === true) {
      const unary = this.head.route!.unaryHandler !== undefined;
      return this.abort(unary ? Code.UNKNOWN : Code.INTERNAL, "unexpected EOF");
    }
    if (this.inflating) return;
    if (this.head.route!.unaryHandler !== undefined) {
      if (!this.complete) return this.abort(Code.UNKNOWN, "EOF");
      return this.start();
    }
    if (this.waiting === null && !this.readerPaused) this.deliverHalfClose();
  }

  private deliverHalfClose(): void {
    if (this.halfCloseDelivered || this.ended) return;
    this.halfCloseDelivered = true;
    try {
      this.onHalfClose?.();
    } catch (error) {
      this.crashed(error);
    }
  }

  private unpack(flag: number, bytes: Uint8Array): void {
    if (flag !== 1) {
      return this.abort(Code.INTERNAL, `grpc: received unexpected payload format ${flag}`);
    }
    if (this.head.encoding === "") {
      return this.abort(Code.INTERNAL, "grpc: compressed flag set with identity or empty encoding");
    }
    const { connection } = this;
    const { compression, maxRecvMessageBytes } = connection.core;
    const message = compression.decompressNow(bytes, maxRecvMessageBytes);
    if (message instanceof Uint8Array) return this.deliver(message);
    if (message !== undefined) return this.abort(message.code, message.message);
    if (!this.holdRequest(bytes.length)) return;
    const wanted = (): boolean => !this.ended;
    const done = (unpacked: Buffer | Unreadable): void => {
      if (this.ended) return;
      this.releaseRequest(bytes.length);
      this.inflating = false;
      if (!(unpacked instanceof Uint8Array)) return this.abort(unpacked.code, unpacked.message);
      if (!this.readerPaused) this.deliver(unpacked);
      else if (this.holdRequest(unpacked.length + WAITING_COST)) {
        this.waiting ??= new WaitingMessages();
        this.waiting.unshift(0, unpacked);
      }
      this.continueReading();
      if (this.remoteClosed && !this.inflating && !this.ended) this.onRemoteEnd();
    };
    this.inflating = true;
    this.paused = true;
    if (compression.decompress(connection, bytes, maxRecvMessageBytes, wanted, done)) return;
    this.abort(Code.RESOURCE_EXHAUSTED, "too many compressed requests wait: send them again later, or uncompressed");
  }

  private deliver(message: Uint8Array): void {
    if (this.ended) return;
    if (!this.complete) this.connection.guard.earn(Earning.message);
    const route = this.head.route!;
    route.messagesReceived++;
    if (route.unaryHandler !== undefined) {
      // As in grpc-go, the first message is the request and starts the call, even if the client sends nothing more.
      if (this.complete) return;
      this.complete = true;
      this.message = message;
      if (!this.remoteClosed) this.connection.startAfterRead(this);
      return;
    }
    nameWork(this.head.path);
    try {
      this.onMessage?.(message);
    } catch (error) {
      this.crashed(error);
    }
  }

  private keepWaiting(flag: number, message: Uint8Array): void {
    if (!this.holdRequest(message.length + WAITING_COST)) return;
    this.waiting ??= new WaitingMessages();
    this.waiting.push(flag, message.length < VIEW_BYTES_MIN ? new Uint8Array(message) : message);
  }

  /** A handler may pause and resume from inside, so no queue state is kept across its calls. */
  private continueReading(): void {
    const { clock } = this.connection.core;
    const startMs = clock.nowMs();
    let taken = 0;
    while (this.waiting !== null && !this.readerPaused && !this.inflating && !this.ended) {
      if (++taken % MESSAGES_PER_LOOK === 0 && clock.nowMs() - startMs > READ_SLICE_MS) {
        return clock.defer(() => this.continueReading());
      }
      const { flag, message } = this.waiting.shift();
      if (this.waiting.isEmpty) this.waiting = null;
      this.releaseRequest(message.length + WAITING_COST);
      if (flag !== 0) this.unpack(flag, message);
      else this.deliver(message);
    }
    if (this.readerPaused || this.inflating || this.ended) return;
    this.paused = false;
    // The withheld credit is all that the window lacks.
    this.connection.returnWithheld(this);
    if (this.remoteClosed && this.head.route!.streamHandler !== undefined) this.deliverHalfClose();
  }

  /** Drops input that was not delivered. */
  protected dropRequest(): void {
    this.waiting = null;
    this.assembly?.drop();
    if (this.requestBytes > 0) this.releaseRequest(this.requestBytes);
  }
}

function readLength(buf: Buffer, at: number): number {
  return buf[at]! * 16777216 + ((buf[at + 1]! << 16) | (buf[at + 2]! << 8) | buf[at + 3]!);
}
