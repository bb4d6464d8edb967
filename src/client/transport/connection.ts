/**
 * One HTTP/2 connection (RFC 9113), client side, for gRPC: frames are parsed in place in the read buffer and message
 * bytes passed on as views of it. All that is asked for in one turn is sent with one write.
 *
 * Promises that every call ends exactly once, and says whether the server may have seen it. A server that breaks the
 * protocol ends the connection with the RFC's error.
 */
import type { Socket } from "node:net";
import type { Clock, Timer } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import { Code } from "../../base/grpc-codes.ts";
import { FrameReader, type FrameSink } from "../../rpc/frame-reader.ts";
import type { ChunkPool } from "../../rpc/output.ts";
import {
  CONNECTION_WINDOW,
  Flag,
  FrameType,
  H2Error,
  PREFACE,
  Setting,
  STREAM_CREDIT_STEP,
  STREAM_WINDOW,
  STREAMS_MAX,
  WINDOW_DEFAULT,
  WINDOW_MAX,
} from "../../rpc/protocol.ts";
import type { Call, Reached } from "./call.ts";
import { HTTP_CODES, RESET_CODES } from "./error-codes.ts";
import { RequestEncoder } from "./request-encoder.ts";
import { type ResponseHead, ResponseHeads } from "./response-heads.ts";
import { ClientSender } from "./sender.ts";

export interface ConnectionOptions {
  readonly scheme: "http" | "https";
  readonly authority: string;
  readonly userAgent: string;
  readonly clock: Clock;
  readonly chunks: ChunkPool;
  /** Milliseconds of silence, while calls are in progress, after which a ping is sent. */
  readonly keepAliveMs: number;
  /** Milliseconds to wait for its answer. */
  readonly keepAliveTimeoutMs: number;
  /** The server accepts no more calls; those in progress go on. Called once, at the latest when it closes. */
  readonly onUnusable: (reason: string) => void;
}

const CONNECTION_CREDIT_STEP = CONNECTION_WINDOW / 2;
const LAST_STREAM_ID = 2 ** 31 - 1;
const PING = Buffer.alloc(8);

export class ClientConnection implements FrameSink {
  /** Its peer has answered with SETTINGS. */
  isOpen = false;
  /** Takes new calls. */
  usable = true;

  readonly #socket: Socket;
  readonly #options: ConnectionOptions;
  readonly #sender: ClientSender;
  readonly #encoder: RequestEncoder;
  readonly #heads = new ResponseHeads();
  readonly #reader = new FrameReader(this);
  readonly #calls = new Map<number, Call>();
  /** Calls beyond what the server takes at once. */
  #waiting = new Set<Call>();
  #nextId = 1;
  #streamsMax = STREAMS_MAX;
  #peerInitialWindow = WINDOW_DEFAULT;
  #receiveCredit = 0;
  #closed = false;
  #keepAlive: Timer | undefined;
  #lastReadMs: number;
  #pingSentMs: number | undefined;

  constructor(socket: Socket, options: ConnectionOptions) {
    this.#socket = socket;
    this.#options = options;
    this.#lastReadMs = options.clock.nowMs();
    this.#encoder = new RequestEncoder(options.scheme, options.authority, options.userAgent);
    this.#sender = new ClientSender(socket, options.chunks);
    socket.setNoDelay(true);
    socket.on("data", (chunk: Buffer) => this.#read(chunk));
    socket.on("error", (error) => this.#lose(`connection error: ${error.message}`));
    socket.on("end", () => this.#lose("the server closed the connection"));
    socket.on("close", () => this.#lose("the connection was closed"));
    this.#sender.raw(PREFACE);
    this.#sender.settings([
      [Setting.enablePush, 0],
      [Setting.initialWindowSize, STREAM_WINDOW],
    ]);
    this.#sender.windowUpdate(0, CONNECTION_WINDOW - WINDOW_DEFAULT);
    this.#sender.flush();
  }

  /** Calls in progress or waiting. */
  get load(): number {
    return this.#calls.size + this.#waiting.size;
  }

  /** Begins a call; send its messages next. */
  start(call: Call): void {
    call.connection = this;
    call.sendWindow = 0;
    if (this.#calls.size >= this.#streamsMax) this.#waiting.add(call);
    else this.#open(call);
  }

  /** Sends a message, or the call's last one. The bytes must not change afterwards. */
  send(call: Call, message: Uint8Array, last: boolean): void {
    this.#sender.message(call, message, last);
    this.#sender.touch();
  }

  /** No message follows. */
  halfClose(call: Call): void {
    if (call.halfClosed) return;
    this.#sender.halfClose(call);
    this.#sender.touch();
  }

  /** Ends a call from this side, with `onEnd`. */
  cancel(call: Call, code: number, details: string): void {
    if (call.connection !== this) return;
    const sent = call.id !== 0;
    this.#reset(call, H2Error.cancel);
    this.#end(call, code, details, sent ? "maybe" : "no");
  }

  /** Ends a call from this side without telling it. */
  drop(call: Call): void {
    if (call.connection !== this) return;
    this.#reset(call, H2Error.cancel);
    this.#remove(call);
  }

  /** The reader of a paused call wants more. */
  resume(call: Call): void {
    call.paused = false;
    if (call.connection === this) this.#returnCredit(call, 0);
  }

  /** Takes no more calls, and closes when those in progress have ended. */
  retire(reason: string): void {
    this.#becomeUnusable(reason);
    if (this.load === 0) this.close(reason);
  }

  /** Ends the connection; calls in progress fail. */
  close(reason: string): void {
    if (this.#closed) return;
    this.#farewell(H2Error.none);
    this.#lose(reason);
  }

  // ---- calls

  #open(call: Call): void {
    call.id = this.#nextId;
    this.#nextId += 2;
    if (this.#nextId > LAST_STREAM_ID - 2) this.#becomeUnusable("the connection has used up its streams");
    call.sendWindow = this.#peerInitialWindow;
    this.#calls.set(call.id, call);
    if (this.#calls.size === 1) this.#watchSilence();
    this.#sender.headers(call.id, this.#encoder.block(call.head));
    this.#sender.touch();
  }

  #openWaiting(): void {
    for (const call of this.#waiting) {
      if (this.#calls.size >= this.#streamsMax || this.#closed) break;
      this.#waiting.delete(call);
      this.#open(call);
      if (call.queue !== null) this.#sender.makeReady(call);
      else if (call.halfClosed) this.#sender.halfClose(call);
    }
    this.#sender.pump();
  }

  #reset(call: Call, code: number): void {
    if (call.id === 0 || this.#closed) return;
    this.#sender.reset(call.id, code);
    this.#sender.touch();
  }

  #remove(call: Call): void {
    call.connection = null;
    call.queue = null;
    if (call.id === 0) this.#waiting.delete(call);
    else this.#calls.delete(call.id);
    if (this.#waiting.size > 0) this.#openWaiting();
    if (this.#calls.size > 0) return;
    if (!this.usable && this.#waiting.size === 0) this.#lose("the connection is no longer needed");
  }

  #end(call: Call, code: number, details: string, reached: Reached): void {
    this.#remove(call);
    call.onEnd(code, details, reached);
  }

  #becomeUnusable(reason: string): void {
    if (!this.usable) return;
    this.usable = false;
    this.#options.onUnusable(reason);
  }

  #lose(reason: string): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#keepAlive?.cancel();
    this.#sender.close();
    this.#socket.destroy();
    this.#becomeUnusable(reason);
    const [waiting, calls] = [this.#waiting, [...this.#calls.values()]];
    this.#waiting = new Set();
    this.#calls.clear();
    for (const call of waiting) this.#fail(call, reason, "no");
    for (const call of calls) this.#fail(call, reason, "maybe");
  }

  #fail(call: Call, reason: string, reached: Reached): void {
    // An earlier one's end may have ended this one.
    if (call.connection !== this) return;
    call.connection = null;
    call.queue = null;
    call.onEnd(Code.UNAVAILABLE, reason, reached);
  }

  #farewell(code: number): void {
    this.#sender.goaway(code);
    this.#sender.flush();
  }

  #breach(code: number, reason: string): boolean {
    if (!this.#closed) this.#farewell(code);
    this.#lose(`the server broke the protocol: ${reason}`);
    return false;
  }

  // ---- silence

  #watchSilence(): void {
    const { clock, keepAliveMs, keepAliveTimeoutMs } = this.#options;
    this.#lastReadMs = clock.nowMs();
    this.#pingSentMs = undefined;
    if (this.#keepAlive !== undefined) return;
    // Kept for the life of the connection: one call after the other must not cost a timer each.
    this.#keepAlive = clock.every(Math.min(keepAliveMs, keepAliveTimeoutMs) / 2, () => {
      // Servers forbid pings without calls.
      if (this.#calls.size === 0) return;
      const nowMs = clock.nowMs();
      const silentMs = nowMs - this.#lastReadMs;
      if (this.#pingSentMs !== undefined) {
        if (nowMs - this.#pingSentMs >= keepAliveTimeoutMs) this.#lose("the server does not answer a ping");
      } else if (silentMs >= keepAliveMs) {
        this.#pingSentMs = nowMs;
        this.#sender.ping(false, PING);
        this.#sender.touch();
      }
    });
  }

  // ---- reading

  #read(chunk: Buffer): void {
    if (this.#closed) return;
    this.#lastReadMs = this.#options.clock.nowMs();
    this.#pingSentMs = undefined;
    try {
      this.#reader.read(chunk);
    } catch (error) {
      this.#breach(H2Error.compression, messageOf(error));
    }
  }

  onFrame(buf: Buffer, start: number, end: number, type: number, flags: number, id: number): boolean {
    const blockOf = this.#heads.streamId;
    if (blockOf !== 0 && (type !== FrameType.continuation || id !== blockOf)) {
      return this.#breach(H2Error.protocol, `frame of type ${type} inside a header block`);
    }
    switch (type) {
      case FrameType.data:
        this.#onData(buf, start, end, flags, id);
        break;
      case FrameType.headers:
        this.#onHeaders(buf, start, end, flags, id);
        break;
      case FrameType.continuation:
        this.#onContinuation(buf, start, end, flags, id);
        break;
      case FrameType.settings:
        this.#onSettings(buf, start, end, flags);
        break;
      case FrameType.windowUpdate:
        this.#onWindowUpdate(buf, start, end, id);
        break;
      case FrameType.ping:
        this.#onPing(buf, start, end, flags);
        break;
      case FrameType.rstStream:
        this.#onReset(buf, start, end, id);
        break;
      case FrameType.goaway:
        this.#onGoaway(buf, start, end);
        break;
      case FrameType.pushPromise:
        return this.#breach(H2Error.protocol, "PUSH_PROMISE, which is disabled");
    }
    return !this.#closed;
  }

  onFrameTooLarge(type: number, length: number): void {
    this.#breach(H2Error.frameSize, `frame of type ${type} and ${length} bytes`);
  }

  #onData(buf: Buffer, from: number, to: number, flags: number, id: number): void {
    const bytes = to - from;
    // What arrives is taken at once, or held by its own call's window: a slow reader must not stop the others.
    this.#receiveCredit += bytes;
    if (this.#receiveCredit >= CONNECTION_CREDIT_STEP) {
      this.#sender.windowUpdate(0, this.#receiveCredit);
      this.#receiveCredit = 0;
      this.#sender.touch();
    }
    const call = this.#calls.get(id);
    if (call === undefined) return;
    let [start, end] = [from, to];
    if ((flags & Flag.padded) !== 0) {
      end -= buf[start++] ?? 0;
      if (end < start) return void this.#breach(H2Error.protocol, "padding longer than its frame");
    }
    call.receiveWindow -= bytes;
    if (call.receiveWindow < 0) return void this.#breach(H2Error.flowControl, "more data than its window");
    if (!call.headersSeen) return this.#endMalformed(call, "data before headers");
    if (end > start) call.onData(buf, start, end);
    if (call.connection !== this) return;
    this.#returnCredit(call, bytes);
    if ((flags & Flag.endStream) !== 0) this.#endMalformed(call, "the server ended the stream without a status");
  }

  #returnCredit(call: Call, bytes: number): void {
    call.receiveCredit += bytes;
    if (call.paused || call.receiveCredit < STREAM_CREDIT_STEP) return;
    this.#sender.windowUpdate(call.id, call.receiveCredit);
    call.receiveWindow += call.receiveCredit;
    call.receiveCredit = 0;
    this.#sender.touch();
  }

  #onHeaders(buf: Buffer, from: number, to: number, flags: number, id: number): void {
    let [start, end] = [from, to];
    if ((flags & Flag.padded) !== 0) end -= buf[start++] ?? 0;
    if ((flags & Flag.priority) !== 0) start += 5;
    if (end < start) return void this.#breach(H2Error.protocol, "padding longer than its frame");
    const ends = (flags & Flag.endStream) !== 0;
    if ((flags & Flag.endHeaders) === 0) return this.#heads.begin(id, ends, buf.subarray(start, end));
    this.#onBlock(buf, start, end, ends, id);
  }

  #onContinuation(buf: Buffer, start: number, end: number, flags: number, id: number): void {
    if (this.#heads.streamId === 0) return void this.#breach(H2Error.protocol, "CONTINUATION without HEADERS");
    if (!this.#heads.append(buf.subarray(start, end))) {
      return void this.#breach(H2Error.enhanceYourCalm, "a header block without end");
    }
    if ((flags & Flag.endHeaders) === 0) return;
    const { endsStream } = this.#heads;
    const block = this.#heads.join();
    this.#onBlock(block, 0, block.length, endsStream, id);
  }

  #onBlock(buf: Buffer, start: number, end: number, ends: boolean, id: number): void {
    const head = this.#heads.decode(buf, start, end);
    const call = this.#calls.get(id);
    if (call === undefined) return;
    if (!call.headersSeen && !ends) this.#onResponseHead(call, head);
    else if (ends) this.#onTrailers(call, head);
    else this.#endMalformed(call, "headers in the middle of a response");
  }

  #onResponseHead(call: Call, head: ResponseHead): void {
    if (head.status >= 100 && head.status < 200) return;
    if (head.status !== 200 || !head.contentType.startsWith("application/grpc")) return this.#endHttp(call, head);
    call.headersSeen = true;
  }

  #onTrailers(call: Call, head: ResponseHead): void {
    if (head.grpcStatus < 0) {
      if (!call.headersSeen && head.status !== 0) return this.#endHttp(call, head);
      return this.#endMalformed(call, "the server ended the stream without a status");
    }
    if (call.isInsideMessage && head.grpcStatus === Code.OK) {
      return this.#endMalformed(call, "the server ended the stream inside a message");
    }
    // The server needs no more of what is still to be sent.
    if (!call.endSent) this.#reset(call, H2Error.cancel);
    this.#end(call, head.grpcStatus, head.grpcMessage, "yes");
  }

  #endHttp(call: Call, head: ResponseHead): void {
    this.#reset(call, H2Error.cancel);
    const text =
      head.status === 200
        ? `the answer has content type ${JSON.stringify(head.contentType)}, not application/grpc`
        : `unexpected HTTP status code received from server: ${head.status}`;
    // What answered may be a proxy that had passed the call on.
    this.#end(call, HTTP_CODES[head.status] ?? Code.UNKNOWN, text, "maybe");
  }

  #endMalformed(call: Call, text: string): void {
    this.#reset(call, H2Error.protocol);
    this.#end(call, Code.INTERNAL, text, "maybe");
  }

  #onSettings(buf: Buffer, start: number, end: number, flags: number): void {
    if ((flags & Flag.ack) !== 0) return;
    if ((end - start) % 6 !== 0) return void this.#breach(H2Error.frameSize, "SETTINGS of a wrong length");
    for (let pos = start; pos < end; pos += 6) {
      const value = buf.readUInt32BE(pos + 2);
      const name = buf.readUInt16BE(pos);
      if (name === Setting.headerTableSize) this.#encoder.setPeerTableSize(value);
      else if (name === Setting.maxConcurrentStreams) this.#streamsMax = value;
      else if (name === Setting.initialWindowSize) {
        if (value > WINDOW_MAX) return void this.#breach(H2Error.flowControl, "a window above 2^31");
        const change = value - this.#peerInitialWindow;
        this.#peerInitialWindow = value;
        for (const call of this.#calls.values()) {
          call.sendWindow += change;
          this.#sender.makeReady(call);
        }
      }
    }
    this.isOpen = true;
    this.#sender.settingsAck();
    this.#openWaiting();
    this.#sender.touch();
    this.onOpen?.();
  }

  /** Called with the server's SETTINGS. */
  onOpen: (() => void) | undefined;

  #onWindowUpdate(buf: Buffer, start: number, end: number, id: number): void {
    if (end - start !== 4) return void this.#breach(H2Error.frameSize, "WINDOW_UPDATE of a wrong length");
    const increment = buf.readUInt32BE(start) & 0x7fffffff;
    if (id === 0) {
      this.#sender.window += increment;
      if (this.#sender.window > WINDOW_MAX) return void this.#breach(H2Error.flowControl, "a window above 2^31");
    } else {
      const call = this.#calls.get(id);
      if (call === undefined) return;
      call.sendWindow += increment;
      this.#sender.makeReady(call);
    }
    this.#sender.pump();
    this.#sender.touch();
  }

  #onPing(buf: Buffer, start: number, end: number, flags: number): void {
    if (end - start !== PING.length) return void this.#breach(H2Error.frameSize, "PING of a wrong length");
    if ((flags & Flag.ack) !== 0) return;
    this.#sender.ping(true, buf.subarray(start, end));
    this.#sender.touch();
  }

  #onReset(buf: Buffer, start: number, end: number, id: number): void {
    if (end - start !== 4) return void this.#breach(H2Error.frameSize, "RST_STREAM of a wrong length");
    const call = this.#calls.get(id);
    if (call === undefined) return;
    const h2 = buf.readUInt32BE(start);
    const [code, text] = RESET_CODES[h2] ?? [Code.INTERNAL, "the server reset the stream"];
    this.#end(call, code, `${text} (HTTP/2 error ${h2})`, h2 === H2Error.refusedStream ? "no" : "maybe");
  }

  #onGoaway(buf: Buffer, start: number, end: number): void {
    if (end - start < 8) return void this.#breach(H2Error.frameSize, "GOAWAY below 8 bytes");
    const last = buf.readUInt32BE(start) & 0x7fffffff;
    const code = buf.readUInt32BE(start + 4);
    const debug = buf.toString("latin1", start + 8, end);
    const reason = `the server is going away${debug === "" ? "" : `: ${debug}`}${code === 0 ? "" : ` (HTTP/2 error ${code})`}`;
    this.#becomeUnusable(reason);
    const waiting = this.#waiting;
    this.#waiting = new Set();
    for (const call of waiting) this.#fail(call, reason, "no");
    for (const call of [...this.#calls.values()]) {
      if (call.id > last) this.#end(call, Code.UNAVAILABLE, reason, "no");
    }
    if (this.#calls.size === 0) this.#lose(reason);
  }
}
