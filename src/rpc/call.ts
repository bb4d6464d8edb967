/**
 * One gRPC call, unary or streaming, on top of its HTTP/2 stream: finds messages in data frames, frames replies, tracks
 * deadline and cancellation. The handler gets the same object, as `UnaryCall` or `StreamCall`. An error thrown by a
 * handler fails only its call, unless it is fatal. Source: gRPC over HTTP2 (PROTOCOL-HTTP2.md); texts and codes as in
 * grpc-go.
 */
import { Code } from "../base/grpc-codes.ts";
import { GZIP } from "./compression.ts";
import type { RpcSocket, StreamCall, UnaryCall } from "./contract.ts";
import type { Expiring } from "./deadlines.ts";
import { unimplementedMessage } from "./head.ts";
import type { HeaderPair } from "./hpack/encoder.ts";
import { Packing } from "./packing.ts";
import { H2Error, STREAM_QUEUE_HIGH } from "./protocol.ts";
import { ReceivingStream } from "./receiving.ts";
import { encodeStatusMessage } from "./status.ts";
import type { Trailers } from "./stream.ts";

export class Call extends ReceivingStream implements UnaryCall, StreamCall, Expiring {
  deadlineMs = Infinity;
  cancelled = false;
  onCancel: (() => void) | null = null;
  onDrain: (() => void) | null = null;

  wheelSlot = -1;
  wheelNext: Expiring | null = null;
  wheelPrevious: Expiring | null = null;

  private wantsDrain = false;
  private compressReplies = false;
  /** Bytes missing from an answer in progress. */
  private piecesLeft = 0;
  /** The answer is sent in pieces: the queue may hold an incomplete message. */
  private inPieces = false;
  /** Messages to compress before sending. */
  private packing: Packing | null = null;

  get isLocal(): boolean {
    return false;
  }

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

  // ---- called by handlers

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
    this.sendTrailers("ok");
  }

  respondOwned(bytes: Buffer, start: number, end: number): void {
    const isPlain = !this.compressReplies && this.head.replyContentType === PLAIN_CONTENT_TYPE;
    const { sender, core } = this.connection;
    if (this.ended || !isPlain || end - start > core.maxSendMessageBytes) return this.respondSlice(bytes, start, end);
    this.head.route!.messagesSent++;
    this.finish(Code.OK);
    sender.ownedReply(this, bytes, start, end);
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
    if (bytes === 0) throw new Error(`an empty answer of ${this.path} has no pieces`);
    // Each piece belongs to this call alone, unlike those of a stream's messages.
    this.recyclesPieces = true;
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

  newPiece(): Buffer {
    return this.connection.core.chunks.take();
  }

  writePiece(piece: Buffer): boolean {
    if (this.ended) {
      this.late();
      return false;
    }
    this.piecesLeft -= piece.length;
    if (this.piecesLeft < 0 || piece.length === 0) throw new Error(`answer of ${this.path} is not as long as was said`);
    const { sender } = this.connection;
    if (this.piecesLeft === 0 && this.head.route!.streamHandler === undefined) {
      this.finish(Code.OK);
      sender.data(this, piece);
      this.sendTrailers("ok");
      return true;
    }
    sender.data(this, piece);
    this.wantsDrain = this.queueBytes > STREAM_QUEUE_HIGH;
    return !this.wantsDrain;
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
    if (this.piecesLeft > 0) return this.failWith(200, Code.INTERNAL, "ended inside of a message");
    this.finish(Code.OK);
    if (!this.headersSent) this.sendHeadersBlock();
    this.sendTrailers("ok");
  }

  fail(code: number, message: string): void {
    if (this.ended) return this.late();
    this.failWith(200, code, message);
  }

  terminate(code: number, message: string): void {
    if (!this.ended) this.abort(code, message);
  }

  crashed(error: unknown): void {
    this.connection.core.crashed(this.path, error);
    if (!this.ended) this.abort(Code.INTERNAL, CRASH_TEXT);
  }

  // ---- called by the connection

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
    if (route.streamHandler !== undefined) {
      try {
        route.streamHandler(this);
      } catch (error) {
        this.crashed(error);
      }
    }
    if (this.remoteClosed) this.onRemoteEnd();
  }

  onReset(): void {
    this.packing?.drop();
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
    try {
      this.onDrain?.();
    } catch (error) {
      this.crashed(error);
    }
  }

  giveUpReplies(): void {
    const { connection } = this;
    // No status can follow a partial message.
    const cut = this.inPieces || this.queueOffset > 0;
    this.packing?.drop();
    connection.sender.forget(this);
    const wasRunning = !this.ended;
    if (wasRunning) this.finish(Code.RESOURCE_EXHAUSTED);
    if (cut) connection.resetStream(this.id, H2Error.enhanceYourCalm);
    else connection.sender.trailers(this, statusOf(Code.RESOURCE_EXHAUSTED, UNREAD_TEXT));
    if (wasRunning) this.cancel();
  }

  giveUpRequest(): void {
    this.abort(Code.RESOURCE_EXHAUSTED, UNFINISHED_TEXT);
  }

  // ---- internal

  protected callUnaryHandler(): void {
    this.head.route!.unaryHandler!(this);
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
    if (!this.compressReplies || (end === start && this.packing?.isBusy !== true)) {
      return this.connection.sender.message(this, false, bytes, start, end);
    }
    this.packing ??= new Packing(this);
    this.packing.message(bytes.subarray(start, end));
  }

  private sendTrailers(trailers: Trailers): void {
    if (this.packing === null) this.connection.sender.trailers(this, trailers);
    else this.packing.trailers(trailers);
  }

  private beginPieces(bytes: number): void {
    this.head.route!.messagesSent++;
    // Compression needs the complete message before its length is known, so this one is not compressed.
    if (!this.headersSent) this.sendHeadersBlock();
    this.packing?.sendAll();
    const prefix = Buffer.alloc(5);
    prefix.writeUInt32BE(bytes, 1);
    this.connection.sender.data(this, prefix);
    this.piecesLeft = bytes;
    this.inPieces = true;
  }

  /** Fails the call and notifies its handler, if it is running. */
  protected abort(code: number, message: string): void {
    this.failWith(200, code, message);
    this.cancel();
  }

  private failWith(httpStatus: number, code: number, message: string): void {
    this.finish(code);
    const { connection } = this;
    const { sender } = connection;
    if (this.piecesLeft > 0) {
      // A partial message was sent, and no status can follow it: clients derive a code from a reset, but no text.
      if (code !== Code.DEADLINE_EXCEEDED) {
        const fields = { method: this.path, error: message };
        connection.core.complaints.warn("cut off an answer", fields, { "remote-addr": connection.remoteAddress });
      }
      return connection.resetStream(this.id, RESETS[code] ?? H2Error.internal);
    }
    const status = statusOf(code, message);
    if (this.headersSent) return this.sendTrailers(status);
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
    this.dropRequest();
    const { core } = this.connection;
    if (this.wheelSlot >= 0) core.deadlines.remove(this);
    const { route } = this.head;
    if (route === undefined) return;
    route.handled[code]!++;
    core.onCallEnd?.(this, code);
  }

  private cancel(): void {
    this.cancelled = true;
    try {
      this.onCancel?.();
    } catch (error) {
      this.connection.core.crashed(this.path, error);
    }
  }

  private tooLargeToSend(bytes: number): string {
    const limits = `(${bytes} vs. ${this.connection.core.maxSendMessageBytes})`;
    return `grpc: trying to send message larger than max ${limits}: ask for less with a limit, in pages, or with RangeStream`;
  }

  /** After a cancellation the handler may still answer, without effect; after its own answer it must not. */
  private late(): void {
    if (!this.cancelled) this.connection.core.crashed(this.path, new Error("the handler answered a call twice"));
  }
}

function statusOf(code: number, message: string): readonly HeaderPair[] {
  return [
    ["grpc-status", String(code)],
    ["grpc-message", encodeStatusMessage(message)],
  ];
}

/** Resets that clients map to a gRPC code; any other becomes INTERNAL. */
const RESETS: Readonly<Record<number, number>> = {
  [Code.CANCELED]: H2Error.cancel,
  [Code.DEADLINE_EXCEEDED]: H2Error.cancel,
  [Code.RESOURCE_EXHAUSTED]: H2Error.enhanceYourCalm,
  [Code.PERMISSION_DENIED]: H2Error.inadequateSecurity,
};

const CRASH_TEXT = "the server failed to serve this call; its log has the reason";
const UNREAD_TEXT =
  "the answers that clients do not read are too many: read faster, or ask for less with a limit, in pages, or with RangeStream";
const UNFINISHED_TEXT =
  "the requests that clients have begun and not finished are too many: send this one again, at once";

const PLAIN_CONTENT_TYPE = "application/grpc";
const DEADLINE_TEXT = "context deadline exceeded";
