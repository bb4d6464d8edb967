/**
 * One gRPC call, unary or streaming, on top of its HTTP/2 stream: assembles messages out of data frames, frames replies,
 * keeps deadline and cancellation. The same object is what a handler gets, as `UnaryCall` or `StreamCall`.
 * Source: gRPC over HTTP2 (PROTOCOL-HTTP2.md); texts and codes as grpc-go gives them.
 */
import { nameWork } from "../base/doing.ts";
import { Code } from "../base/grpc-codes.ts";
import { GZIP, gunzip, gzip } from "./compression.ts";
import type { Expiring } from "./deadlines.ts";
import { Earning } from "./guard.ts";
import { unimplementedMessage } from "./head.ts";
import { H2Error, STREAM_QUEUE_HIGH } from "./protocol.ts";
import type { RpcSocket, StreamCall, UnaryCall } from "./server.ts";
import { encodeStatusMessage } from "./status.ts";
import { Stream } from "./stream.ts";

const NO_MESSAGE: Uint8Array = Buffer.alloc(0);
/** Delivered entries at the front of the queue of waiting messages are dropped in lots of so many. */
const WAITING_COMPACT = 256;
/** A body is allocated as it arrives: a prefix alone must not make us hold what it announces. */
const BODY_BYTES_FIRST = 16 * 1024;

export class Call extends Stream implements UnaryCall, StreamCall, Expiring {
  deadlineMs = Infinity;
  cancelled = false;
  message: Uint8Array = NO_MESSAGE;
  onMessage: ((message: Uint8Array) => void) | null = null;
  onHalfClose: (() => void) | null = null;
  onCancel: (() => void) | null = null;
  onDrain: (() => void) | null = null;

  wheelSlot = -1;
  wheelNext: Expiring | null = null;
  wheelPrevious: Expiring | null = null;

  /** The call has ended for its handler: answered, failed or cancelled. */
  private ended = false;
  /** Unary: the message is here. */
  private complete = false;
  /** Unary: the handler has been called. */
  private started = false;
  private wantsDrain = false;
  private compressReplies = false;
  private halfCloseDelivered = false;
  /** Bytes that a begun answer still lacks. */
  private piecesLeft = 0;

  /** Bytes of the present message's prefix so far, and what they say. */
  private prefixBytes = 0;
  private messageFlag = 0;
  private messageLength = 0;
  /** A message that spans frames. */
  private body: Buffer | null = null;
  private bodyBytes = 0;
  /** Messages that arrived while reading was paused, which the stream's window bounds. */
  private waiting: Uint8Array[] | null = null;
  private waitingFrom = 0;
  private waitingBytes = 0;

  get path(): string {
    return this.head.path;
  }

  get remoteAddress(): string {
    return this.connection.remoteAddress;
  }

  get socket(): RpcSocket {
    return this.connection.socket;
  }

  get bufferedBytes(): number {
    return this.queueBytes;
  }

  header(name: string): string | undefined {
    return this.head.get(name);
  }

  // ---- what handlers call

  respond(message: Uint8Array): void {
    this.respondSlice(message, 0, message.length);
  }

  respondSlice(bytes: Uint8Array, start: number, end: number): void {
    if (this.ended) return this.late();
    const { sender, core } = this.connection;
    if (end - start > core.maxSendMessageBytes)
      return this.fail(Code.RESOURCE_EXHAUSTED, this.tooLargeToSend(end - start));
    const route = this.head.route!;
    route.messagesSent++;
    this.finish(Code.OK);
    if (!this.compressReplies && this.head.replyContentType === PLAIN_CONTENT_TYPE) {
      return sender.unaryReply(this, bytes, start, end);
    }
    this.sendHeadersBlock();
    this.sendMessage(bytes, start, end);
    sender.trailers(this, "ok");
  }

  respondOwned(bytes: Buffer, start: number, end: number): void {
    const isPlain = !this.compressReplies && this.head.replyContentType === PLAIN_CONTENT_TYPE;
    const { sender, core } = this.connection;
    if (this.ended || !isPlain || end - start > core.maxSendMessageBytes) return this.respondSlice(bytes, start, end);
    this.head.route!.messagesSent++;
    this.finish(Code.OK);
    sender.ownedReply(this, bytes, start, end);
  }

  get needsLength(): boolean {
    return true;
  }

  respondInPieces(bytes: number): boolean {
    if (this.ended) {
      this.late();
      return false;
    }
    if (bytes > this.connection.core.maxSendMessageBytes) {
      this.fail(Code.RESOURCE_EXHAUSTED, this.tooLargeToSend(bytes));
      return false;
    }
    this.beginPieces(bytes);
    return true;
  }

  beginMessage(bytes: number): void {
    if (this.ended) return this.late();
    if (bytes > this.connection.core.maxSendMessageBytes) {
      return this.abort(Code.RESOURCE_EXHAUSTED, this.tooLargeToSend(bytes));
    }
    this.beginPieces(bytes);
  }

  writePiece(piece: Buffer): boolean {
    if (this.ended) {
      this.late();
      return false;
    }
    this.piecesLeft -= piece.length;
    if (this.piecesLeft < 0) throw new Error(`answer of ${this.path} is longer than was said`);
    const { sender } = this.connection;
    if (this.piecesLeft === 0 && this.head.route!.streamHandler === undefined) {
      this.finish(Code.OK);
      sender.data(this, piece);
      sender.trailers(this, "ok");
      return true;
    }
    sender.data(this, piece);
    this.wantsDrain = this.queueBytes > STREAM_QUEUE_HIGH;
    return !this.wantsDrain;
  }

  endPieces(): void {
    throw new Error(`the length of an answer of ${this.path} is known`);
  }

  send(message: Uint8Array): boolean {
    if (this.ended) {
      this.late();
      return false;
    }
    if (message.length > this.connection.core.maxSendMessageBytes) {
      this.abort(Code.RESOURCE_EXHAUSTED, this.tooLargeToSend(message.length));
      return false;
    }
    if (this.piecesLeft > 0) throw new Error(`a message of ${this.path} was sent inside of another`);
    if (!this.headersSent) this.sendHeadersBlock();
    this.head.route!.messagesSent++;
    this.sendMessage(message, 0, message.length);
    this.wantsDrain = this.queueBytes > STREAM_QUEUE_HIGH;
    return !this.wantsDrain;
  }

  sendHeaders(): void {
    if (!this.ended && !this.headersSent) this.sendHeadersBlock();
  }

  end(): void {
    if (this.ended) return this.late();
    this.finish(Code.OK);
    const { sender } = this.connection;
    if (!this.headersSent) this.sendHeadersBlock();
    sender.trailers(this, "ok");
  }

  fail(code: number, message: string): void {
    if (this.ended) return this.late();
    this.failWith(200, code, message);
  }

  terminate(code: number, message: string): void {
    if (!this.ended) this.abort(code, message);
  }

  pauseReading(): void {
    this.paused = true;
  }

  resumeReading(): void {
    if (!this.paused) return;
    this.paused = false;
    this.deliverWaiting();
  }

  // ---- what the connection calls

  onOpen(): void {
    const { head, connection } = this;
    const { core } = connection;
    const { route } = head;
    if (route !== undefined) {
      route.started++;
      core.onCallStart?.(this);
    }
    if (head.refusal !== undefined) {
      return this.failWith(head.refusal.httpStatus, head.refusal.code, head.refusal.message);
    }
    if (route === undefined) {
      return this.failWith(200, Code.UNIMPLEMENTED, unimplementedMessage(head.path, core.services));
    }
    if (head.encoding !== "") {
      if (head.encoding !== GZIP) {
        const message = `grpc: Decompressor is not installed for grpc-encoding "${head.encoding}"`;
        return this.failWith(200, Code.UNIMPLEMENTED, message);
      }
      this.compressReplies = true;
    }
    if (head.timeoutMs !== Infinity) {
      if (head.timeoutMs <= 0) return this.failWith(200, Code.DEADLINE_EXCEEDED, DEADLINE_TEXT);
      this.deadlineMs = connection.nowMs + head.timeoutMs;
      core.deadlines.add(this);
    }
    if (route.streamHandler !== undefined) route.streamHandler(this);
    if (this.remoteClosed) this.onRemoteEnd();
  }

  onData(buf: Buffer, start: number, end: number, last: boolean): boolean {
    // A unary call has one message: what follows is none.
    let completed = !this.complete;
    if (
      this.prefixBytes === 0 &&
      this.body === null &&
      end - start >= 5 &&
      buf[start] === 0 &&
      readLength(buf, start + 1) === end - start - 5 &&
      end - start - 5 <= this.connection.core.maxRecvMessageBytes
    ) {
      // One frame, one message: nearly every call.
      this.deliver(buf.subarray(start + 5, end));
    } else completed = this.assemble(buf, start, end);
    if (last && !this.ended) this.onRemoteEnd();
    return completed;
  }

  onReset(): void {
    this.dropBody();
    if (this.ended) return;
    this.finish(Code.CANCELED);
    this.cancel();
  }

  onDeadline(): void {
    if (!this.ended) this.abort(Code.DEADLINE_EXCEEDED, DEADLINE_TEXT);
  }

  onQueueDrained(): void {
    if (!this.wantsDrain || this.ended) return;
    this.wantsDrain = false;
    this.onDrain?.();
  }

  /** Calls the unary handler, once. */
  start(): void {
    if (this.started || this.ended) return;
    this.started = true;
    nameWork(this.head.path);
    this.head.route!.unaryHandler!(this);
  }

  // ---- inside

  private onRemoteEnd(): void {
    // A piece of a prefix counts for nothing, as with grpc-go.
    if (this.prefixBytes === 5) {
      const unary = this.head.route!.unaryHandler !== undefined;
      return this.abort(unary ? Code.UNKNOWN : Code.INTERNAL, "unexpected EOF");
    }
    if (this.head.route!.unaryHandler !== undefined) {
      if (!this.complete) return this.abort(Code.UNKNOWN, "EOF");
      return this.start();
    }
    if (this.waiting === null && !this.paused) this.deliverHalfClose();
  }

  private deliverHalfClose(): void {
    if (this.halfCloseDelivered || this.ended) return;
    this.halfCloseDelivered = true;
    this.onHalfClose?.();
  }

  /** Takes any cut of any number of messages; true when one is complete now. */
  private assemble(buf: Buffer, start: number, end: number): boolean {
    const { core } = this.connection;
    let pos = start;
    let completed = false;
    while (pos < end && !this.ended) {
      if (this.prefixBytes < 5) {
        const byte = buf[pos++]!;
        if (this.prefixBytes === 0) this.messageFlag = byte;
        else this.messageLength = this.messageLength * 256 + byte;
        if (++this.prefixBytes < 5) continue;
        if (this.messageLength > core.maxRecvMessageBytes) {
          const limits = `(${this.messageLength} vs. ${core.maxRecvMessageBytes})`;
          this.abort(Code.RESOURCE_EXHAUSTED, `grpc: received message larger than max ${limits}`);
          return completed;
        }
      }
      const length = this.messageLength;
      const take = Math.min(length - this.bodyBytes, end - pos);
      if (this.body === null && take === length) {
        const message = buf.subarray(pos, pos + length);
        pos += length;
        this.nextMessage();
        completed = true;
        this.unpack(message);
        continue;
      }
      if (take === 0 || !this.growBody(this.bodyBytes + take)) return completed;
      buf.copy(this.body!, this.bodyBytes, pos, pos + take);
      this.bodyBytes += take;
      pos += take;
      if (this.bodyBytes === length) {
        const message = this.body!.subarray(0, length);
        this.dropBody();
        this.nextMessage();
        completed = true;
        this.unpack(message);
      }
    }
    return completed;
  }

  private growBody(bytes: number): boolean {
    const have = this.body === null ? 0 : this.body.length;
    if (bytes <= have) return true;
    const size = Math.min(this.messageLength, Math.max(BODY_BYTES_FIRST, bytes, have * 2));
    if (!this.holdBytes(size - have)) return false;
    const grown = Buffer.allocUnsafeSlow(size);
    this.body?.copy(grown, 0, 0, this.bodyBytes);
    this.body = grown;
    return true;
  }

  /** Counts bytes that we keep for this call. False when that is too much for its connection, and the call has failed. */
  private holdBytes(bytes: number): boolean {
    const { connection } = this;
    const most = connection.core.receiveBufferBytesMax;
    if (connection.receiveBufferedBytes + bytes > most) {
      this.abort(Code.RESOURCE_EXHAUSTED, `too many unread messages on one connection (more than ${most} bytes)`);
      return false;
    }
    connection.receiveBufferedBytes += bytes;
    return true;
  }

  private nextWaiting(waiting: Uint8Array[]): Uint8Array {
    const message = waiting[this.waitingFrom++]!;
    this.waitingBytes -= message.length;
    this.connection.receiveBufferedBytes -= message.length;
    if (this.waitingFrom === waiting.length) this.waiting = null;
    else if (this.waitingFrom < WAITING_COMPACT) return message;
    else waiting.splice(0, this.waitingFrom);
    this.waitingFrom = 0;
    return message;
  }

  private dropWaiting(): void {
    this.connection.receiveBufferedBytes -= this.waitingBytes;
    this.waitingBytes = 0;
    this.waitingFrom = 0;
    this.waiting = null;
  }

  private dropBody(): void {
    if (this.body === null) return;
    this.connection.receiveBufferedBytes -= this.body.length;
    this.body = null;
  }

  private nextMessage(): void {
    this.prefixBytes = 0;
    this.messageLength = 0;
    this.bodyBytes = 0;
  }

  private unpack(bytes: Uint8Array): void {
    if (this.messageFlag === 0) return this.deliver(bytes);
    if (this.messageFlag !== 1) {
      return this.abort(Code.INTERNAL, `grpc: received unexpected payload format ${this.messageFlag}`);
    }
    if (this.head.encoding === "") {
      return this.abort(Code.INTERNAL, "grpc: compressed flag set with identity or empty encoding");
    }
    const message = gunzip(bytes, this.connection.core.maxRecvMessageBytes);
    if (message instanceof Uint8Array) this.deliver(message);
    else this.abort(message.code, message.message);
  }

  private deliver(message: Uint8Array): void {
    if (this.ended) return;
    if (!this.complete) this.connection.guard.earn(Earning.message);
    const route = this.head.route!;
    route.messagesReceived++;
    if (route.unaryHandler !== undefined) {
      // As grpc-go does, the first message is the request and starts the call, even when the client says nothing more.
      if (this.complete) return;
      this.complete = true;
      this.message = message;
      if (!this.remoteClosed) this.connection.startAfterRead(this);
      return;
    }
    if (this.paused || this.waiting !== null) {
      if (!this.holdBytes(message.length)) return;
      this.waiting ??= [];
      this.waiting.push(message);
      this.waitingBytes += message.length;
      return;
    }
    nameWork(this.head.path);
    this.onMessage?.(message);
  }

  /** A handler may pause and resume from inside, so nothing about the queue is kept across its calls. */
  private deliverWaiting(): void {
    while (this.waiting !== null && !this.paused && !this.ended) this.onMessage?.(this.nextWaiting(this.waiting));
    if (this.paused || this.ended) return;
    // What was withheld is all that the window lacks.
    this.connection.returnWithheld(this);
    if (this.remoteClosed) this.deliverHalfClose();
  }

  private sendHeadersBlock(): void {
    const { sender } = this.connection;
    const special = this.compressReplies || this.head.replyContentType !== PLAIN_CONTENT_TYPE;
    const block = special
      ? sender.encoder.grpcHeadersSpecial(this.head.replyContentType, this.compressReplies)
      : sender.encoder.grpcHeaders();
    sender.headers(this, block, false);
  }

  private sendMessage(bytes: Uint8Array, start: number, end: number): void {
    const { sender } = this.connection;
    if (!this.compressReplies || end === start) return sender.message(this, false, bytes, start, end);
    const packed = gzip(bytes.subarray(start, end));
    sender.message(this, true, packed, 0, packed.length);
  }

  private beginPieces(bytes: number): void {
    this.head.route!.messagesSent++;
    // A compressed message would have to be complete before its length is known, so this one is not compressed.
    if (!this.headersSent) this.sendHeadersBlock();
    const prefix = Buffer.alloc(5);
    prefix.writeUInt32BE(bytes, 1);
    this.connection.sender.data(this, prefix);
    this.piecesLeft = bytes;
  }

  /** Fails the call and tells its handler, if that runs. */
  private abort(code: number, message: string): void {
    this.failWith(200, code, message);
    this.cancel();
  }

  private failWith(httpStatus: number, code: number, message: string): void {
    this.finish(code);
    const { sender } = this.connection;
    // Half a message is out, which no status can follow.
    if (this.piecesLeft > 0) return this.connection.resetStream(this.id, H2Error.internal);
    const status = [
      ["grpc-status", String(code)],
      ["grpc-message", encodeStatusMessage(message)],
    ] as const;
    if (this.headersSent) return sender.trailers(this, status);
    const block = sender.encoder.block([
      [":status", String(httpStatus)],
      ["content-type", this.head.replyContentType],
      ["grpc-accept-encoding", GZIP],
      ...status,
    ]);
    sender.headers(this, block, true);
  }

  private finish(code: number): void {
    this.ended = true;
    if (this.waiting !== null) this.dropWaiting();
    if (this.body !== null) this.dropBody();
    const { core } = this.connection;
    if (this.wheelSlot >= 0) core.deadlines.remove(this);
    const { route } = this.head;
    if (route === undefined) return;
    route.handled[code]!++;
    core.onCallEnd?.(this, code);
  }

  private cancel(): void {
    this.cancelled = true;
    this.onCancel?.();
  }

  private tooLargeToSend(bytes: number): string {
    return `grpc: trying to send message larger than max (${bytes} vs. ${this.connection.core.maxSendMessageBytes})`;
  }

  /** After a cancellation the handler may still answer, to nobody; after its own answer it may not. */
  private late(): void {
    if (!this.cancelled) throw new Error(`handler of ${this.path} answered a call twice`);
  }
}

const PLAIN_CONTENT_TYPE = "application/grpc";
const DEADLINE_TEXT = "context deadline exceeded";

function readLength(buf: Buffer, at: number): number {
  return buf[at]! * 16777216 + ((buf[at + 1]! << 16) | (buf[at + 2]! << 8) | buf[at + 3]!);
}
