/**
 * One HTTP/2 connection (RFC 9113), server side: reads frames from the socket, tracks the states and windows of its
 * streams, and sends the answers required by the protocol. Frames are parsed in place in the read buffer; message bytes
 * are passed on as views of it. All replies of one turn are sent in one socket write.
 *
 * A peer that breaks the protocol gets the RFC's error. A peer that floods gets GOAWAY with ENHANCE_YOUR_CALM and the
 * reason, and the log a warning.
 */
import type { Timer } from "../base/clock.ts";
import { beginWork } from "../base/doing.ts";
import { Call } from "./call.ts";
import type { Route, RpcSocket } from "./contract.ts";
import type { RpcCore } from "./core.ts";
import { EarlyClosed } from "./early-closed.ts";
import { FrameReader, type FrameSink } from "./frame-reader.ts";
import { giveUpReplies, giveUpRequests } from "./giving-up.ts";
import { ABUSES, type Abuse, Cost, Earning, FloodGuard, RAPID_RESET_MS } from "./guard.ts";
import type { RequestHead } from "./head.ts";
import { HeaderReader } from "./header-reader.ts";
import { HeldAccount } from "./held-bytes.ts";
import { HpackError } from "./hpack/decoder.ts";
import type { HeaderField } from "./hpack/fields.ts";
import { Intake } from "./intake.ts";
import { Keepalive } from "./keepalive.ts";
import { readSettings } from "./peer-settings.ts";
import { PlainStream } from "./plain.ts";
import {
  CONNECTION_CREDIT_STEP,
  CONNECTION_WINDOW,
  Flag,
  FRAME_BYTES_MAX,
  FrameType,
  H2Error,
  HEADER_BOMB_BYTES,
  HEADER_LIST_BYTES_MAX,
  Setting,
  STREAM_CREDIT_STEP,
  STREAM_WINDOW,
  WINDOW_DEFAULT,
  WINDOW_MAX,
} from "./protocol.ts";
import type { ReceivingStream } from "./receiving.ts";
import { Sender } from "./sender.ts";
import type { Stream } from "./stream.ts";

/** How long a connection ended by this side stays open for the peer to read what was sent last. */
const LINGER_MS = 10_000;
const LINGER_AFTER_ERROR_MS = 1000;
/**
 * When a client leaves this fraction of the limit on unread replies unread, on more than a few streams, its new calls
 * are refused.
 */
const REFUSE_SHARE = 4;
const UNREAD_STREAMS_MAX = 16;
/** Streams of a lost connection ended in one turn. */
const DROPS_PER_TURN = 500;
/** Smaller data frames that complete no message count as flooding. */
const TINY_DATA_BYTES = 64;

export class Connection implements FrameSink {
  readonly core: RpcCore;
  readonly socket: RpcSocket;
  readonly remoteAddress: string;
  readonly sender: Sender;
  readonly guard: FloodGuard;
  /** Arrival time of the bytes being processed. */
  nowMs: number;
  peerInitialWindow = WINDOW_DEFAULT;
  /** Bytes of incomplete or undelivered request messages. */
  readonly requests: HeldAccount;
  /** Reply bytes not yet given to the socket, or not taken by it. */
  readonly replies: HeldAccount;
  closed = false;
  /** In the server's list of connections to flush. */
  flushQueued = false;

  readonly #streams = new Map<number, Stream>();
  /** The stream of the last frame; the next frame usually belongs to it too. */
  #recent: Stream | undefined;
  #lastStreamId = 0;
  readonly #reader = new FrameReader(this);
  readonly #intake: Intake;
  readonly #headerReader: HeaderReader<Route>;
  readonly #keepalive: Keepalive;
  #receiveWindow = CONNECTION_WINDOW;
  #receiveCredit = 0;
  #settingsSeen = false;
  #settingsAcknowledged = false;
  readonly #earlyClosed = new EarlyClosed();

  #reading = false;
  #isReported = false;
  #draining = false;
  /** Our last byte is sent; further input is dropped. */
  #ended = false;
  #linger: Timer | undefined;
  /** Calls with a complete message whose END_STREAM came in no frame yet. */
  #eager: ReceivingStream[] = [];

  readonly #onOver: () => void;

  /**
   * `head` holds the bytes read after the preface; `onOver` is called once, when the socket is closed and all calls
   * have ended.
   */
  constructor(core: RpcCore, socket: RpcSocket, head: Buffer, onOver: () => void) {
    this.core = core;
    this.#onOver = onOver;
    this.socket = socket;
    this.remoteAddress = socket.remoteAddress ?? "";
    this.nowMs = core.clock.nowMs();
    this.guard = new FloodGuard(this.nowMs);
    this.requests = new HeldAccount(core.heldRequests, (bytes) => giveUpRequests(this, this.#streams, bytes));
    this.replies = new HeldAccount(core.heldReplies, (bytes) => giveUpReplies(this, this.#streams, bytes));
    this.sender = new Sender(this, core.chunks);
    this.#keepalive = new Keepalive(this, core);
    this.#intake = new Intake(this);
    this.#headerReader = new HeaderReader((path) => core.routes.get(path));
    this.sender.settings([
      // Announced to every client: one that knows the limit waits instead of being refused.
      [Setting.maxConcurrentStreams, core.maxConcurrentStreams],
      [Setting.initialWindowSize, STREAM_WINDOW],
      [Setting.maxHeaderListSize, HEADER_LIST_BYTES_MAX],
    ]);
    this.sender.windowUpdate(0, CONNECTION_WINDOW - WINDOW_DEFAULT);
    socket.setNoDelay(true);
    socket.on("data", (chunk: Buffer) => this.#intake.onChunk(chunk));
    socket.on("end", () => {
      this.#end();
      this.#dropAll();
    });
    socket.on("close", () => this.#onClose());
    if (head.length > 0) this.#intake.onChunk(head);
    else this.sender.flush();
  }

  get streamCount(): number {
    return this.#streams.size;
  }

  /** Time of the last frame if there are no streams; otherwise never. */
  get idleSinceMs(): number {
    return this.#streams.size === 0 ? this.#keepalive.lastReadMs : Number.POSITIVE_INFINITY;
  }

  /** Schedules a flush, once per turn, for data written outside of reading. */
  touch(): void {
    if (!this.#reading) this.core.flushLater(this);
  }

  /** Writes the data of this turn. */
  flush(): void {
    try {
      this.sender.flush();
    } catch (error) {
      this.broken(error);
    }
  }

  /** The stream has ended on both sides, or counts as ended. A client that is still sending is told to stop. */
  finished(stream: Stream): void {
    this.#streams.delete(stream.id);
    if (this.#recent === stream) this.#recent = undefined;
    if (!stream.remoteClosed) {
      this.#earlyClosed.add(stream.id, stream.receiveWindow);
      this.sender.reset(stream.id, H2Error.none);
    }
    this.guard.earn(Earning.callDone);
    if (this.#draining && this.#streams.size === 0) this.#end();
  }

  /** Ends a stream with an HTTP/2 error. */
  resetStream(id: number, code: number): void {
    this.sender.reset(id, code);
    this.touch();
    const stream = this.#streams.get(id);
    if (stream === undefined) this.#earlyClosed.add(id, 0);
    else {
      this.#earlyClosed.add(id, stream.receiveWindow);
      this.#drop(stream);
    }
  }

  /** Bytes of a stream were consumed: the client may send as many again. */
  returnCredit(stream: Stream, bytes: number): void {
    stream.receiveCredit += bytes;
    if (stream.receiveCredit < STREAM_CREDIT_STEP || stream.remoteClosed || stream.localClosed) return;
    this.sender.windowUpdate(stream.id, stream.receiveCredit);
    stream.receiveWindow += stream.receiveCredit;
    stream.receiveCredit = 0;
    this.touch();
  }

  /** A paused reader resumes: returns all credit its window lacks. */
  returnWithheld(stream: Stream): void {
    stream.receiveCredit = STREAM_WINDOW - stream.receiveWindow;
    this.returnCredit(stream, 0);
  }

  /** A frame held this many messages; they take time as frames do. */
  tookMessages(messages: number): void {
    this.#intake.took(messages);
  }

  /** Remembers a call that can start without its END_STREAM: it starts after everything read was processed. */
  startAfterRead(call: ReceivingStream): void {
    if (this.#reading) this.#eager.push(call);
    else call.start();
  }

  /** Announces which streams will be finished, refuses new ones, and closes when they are done. */
  drain(): void {
    if (this.#draining || this.#ended || this.closed) return;
    this.#draining = true;
    this.sender.goaway(this.#lastStreamId, H2Error.none, "");
    this.sender.flush();
    if (this.#streams.size === 0) this.#end();
  }

  /** Closes an idle connection to make room: the client can reconnect. */
  closeIdle(): void {
    this.sender.goaway(this.#lastStreamId, H2Error.none, "too many connections: this one was idle");
    this.sender.flush();
    this.destroy();
  }

  /** A connection error: sends the reason, ends all calls and the connection. */
  fail(code: number, reason: string): void {
    if (this.#ended || this.closed) return;
    this.core.stats.connectionErrors++;
    this.core.logger.debug("closed an HTTP/2 connection after an error", {
      "remote-addr": this.remoteAddress,
      "http2-error-code": code,
      reason,
    });
    this.sender.goaway(this.#lastStreamId, code, reason);
    this.#end(LINGER_AFTER_ERROR_MS);
    this.#dropAll();
  }

  /** Disconnects a peer that floods; the GOAWAY and the log give the reason. */
  failAbuse(abuse: Abuse, text: string = ABUSES[abuse].text): void {
    if (this.#ended || this.closed) return;
    this.core.stats.abuses[abuse] = (this.core.stats.abuses[abuse] ?? 0) + 1;
    this.core.complaints.warn("closed the connection of a client that floods", {
      "remote-addr": this.remoteAddress,
      reason: ABUSES[abuse].text,
      advice: ABUSES[abuse].advice,
    });
    this.fail(H2Error.enhanceYourCalm, text);
  }

  /** The socket does not drain: reading stops until it does, which bounds the socket's buffer. */
  pauseReading(): void {
    this.socket.pause();
  }

  resumeReading(): void {
    if (this.closed) return;
    this.#intake.resume();
  }

  /** Charges bytes kept of a request. */
  holdRequest(stream: Stream, bytes: number): void {
    stream.requestBytes += bytes;
    this.requests.add(bytes);
  }

  releaseRequest(stream: Stream, bytes: number): void {
    stream.requestBytes -= bytes;
    this.requests.remove(bytes);
  }

  /** Closes the connection at once; calls are cancelled. */
  destroy(): void {
    this.socket.destroy();
    this.#onClose();
  }

  #end(lingerMs = LINGER_MS): void {
    if (this.closed || this.#ended) return;
    this.#ended = true;
    this.sender.flush();
    this.sender.close();
    this.#linger = this.core.clock.after(lingerMs, () => this.socket.destroy());
    this.socket.end();
    // Further input is read and dropped: closing with unread bytes would reset the connection before the peer reads our
    // last bytes.
    this.socket.resume();
  }

  #onClose(): void {
    if (this.closed) return;
    this.closed = true;
    this.#linger?.cancel();
    this.#keepalive.stop();
    this.sender.close();
    this.#dropAll();
  }

  /** Ends all calls, a limited number per turn. A connection is over when it has no calls. */
  #dropAll(): void {
    let dropped = 0;
    for (const stream of this.#streams.values()) {
      if (dropped++ === DROPS_PER_TURN) return this.core.clock.defer(() => this.#dropAll());
      this.#drop(stream);
    }
    if (!this.closed || this.#isReported) return;
    this.#isReported = true;
    this.#onOver();
  }

  #drop(stream: Stream): void {
    this.#streams.delete(stream.id);
    if (this.#recent === stream) this.#recent = undefined;
    stream.remoteClosed = true;
    stream.localClosed = true;
    this.sender.forget(stream);
    stream.onReset();
    if (this.#draining && this.#streams.size === 0) this.#end();
  }

  // ---- reading

  /** Input from the client is no longer read. */
  get isEnded(): boolean {
    return this.#ended || this.closed;
  }

  /** Reads the received bytes, as far as the intake allows. Returns how much it read. */
  read(chunk: Buffer): number {
    this.nowMs = this.core.clock.nowMs();
    beginWork("frames of a client", this.nowMs);
    this.#keepalive.lastReadMs = this.nowMs;
    this.#reading = true;
    let read = chunk.length;
    try {
      read = this.#reader.read(chunk);
      if (this.#eager.length > 0) this.#startEager();
    } catch (error) {
      this.broken(error);
    }
    this.#reading = false;
    this.sender.flush();
    return read;
  }

  /** The connection's own code threw, so its state is unknown: only this connection ends. */
  broken(error: unknown): void {
    this.core.crashed("an HTTP/2 connection", error);
    this.fail(H2Error.internal, "the server failed to serve this connection");
  }

  #startEager(): void {
    const calls = this.#eager;
    this.#eager = [];
    for (const call of calls) call.start();
  }

  onFrame(buf: Buffer, start: number, end: number, type: number, flags: number, id: number): boolean {
    const insideBlock = this.#headerReader.streamId !== 0;
    if (type === FrameType.data && !insideBlock) this.#data(buf, start, end, flags, id);
    else if (type === FrameType.headers && !insideBlock) this.#headers(buf, start, end, flags, id);
    else this.#otherFrame(buf, start, end, type, flags, id);
    return this.#intake.goesOn(this.#eager.length) && !this.#ended && !this.closed;
  }

  onFrameTooLarge(type: number, length: number): void {
    this.fail(H2Error.frameSize, `frame of type ${type} and ${length} bytes, more than ${FRAME_BYTES_MAX}`);
  }

  #otherFrame(buf: Buffer, start: number, end: number, type: number, flags: number, id: number): void {
    const blockOf = this.#headerReader.streamId;
    if (blockOf !== 0 && (type !== FrameType.continuation || id !== blockOf)) {
      return this.fail(H2Error.protocol, `frame of type ${type} inside a header block`);
    }
    if (!this.#settingsSeen && type !== FrameType.settings) {
      return this.fail(H2Error.protocol, "the first frame is not SETTINGS");
    }
    switch (type) {
      case FrameType.settings:
        return this.#settings(buf, start, end, flags, id);
      case FrameType.windowUpdate:
        return this.#windowUpdate(buf, start, end, id);
      case FrameType.ping:
        return this.#ping(buf, start, end, flags, id);
      case FrameType.rstStream:
        return this.#rstStream(start, end, id);
      case FrameType.priority:
        return this.#priority(buf, start, end, id);
      case FrameType.goaway:
        if (id !== 0) return this.fail(H2Error.protocol, "GOAWAY on a stream");
        if (end - start < 8) return this.fail(H2Error.frameSize, "GOAWAY below 8 bytes");
        this.#spend(Cost.idleFrame, "idle_frames");
        return;
      case FrameType.continuation:
        return this.#continuation(buf, start, end, flags, id);
      case FrameType.pushPromise:
        return this.fail(H2Error.protocol, "PUSH_PROMISE from a client");
      default:
        this.#spend(Cost.unknownFrame, "unknown_frames");
    }
  }

  #spend(cost: number, abuse: Abuse): boolean {
    if (this.guard.spend(cost, this.nowMs)) return true;
    this.failAbuse(abuse);
    return false;
  }

  // ---- data

  #data(buf: Buffer, from: number, to: number, flags: number, id: number): void {
    const bytes = to - from;
    this.#receiveWindow -= bytes;
    if (this.#receiveWindow < 0) return this.fail(H2Error.flowControl, "DATA beyond the window of the connection");
    this.#receiveCredit += bytes;
    if (this.#receiveCredit >= CONNECTION_CREDIT_STEP) {
      // Independent of the streams, so that a slow stream cannot stop the others.
      this.sender.windowUpdate(0, this.#receiveCredit);
      this.#receiveWindow += this.#receiveCredit;
      this.#receiveCredit = 0;
    }
    let stream = this.#recent;
    if (stream === undefined || stream.id !== id) {
      stream = this.#streams.get(id);
      if (stream === undefined) return this.#dataOnNoStream(id, bytes, (flags & Flag.endStream) !== 0);
      this.#recent = stream;
    }
    if (stream.remoteClosed) return this.#streamError(id, H2Error.streamClosed);
    let start = from;
    let end = to;
    if ((flags & Flag.padded) !== 0) {
      const padding = bytes > 0 ? buf[start++]! : 0;
      end -= padding;
      if (bytes === 0 || end < start) return this.fail(H2Error.protocol, "padding longer than its DATA frame");
    }
    stream.receiveWindow -= bytes;
    if (stream.receiveWindow < 0) return this.#streamError(id, H2Error.flowControl);
    stream.receivedBytes += end - start;
    const last = (flags & Flag.endStream) !== 0;
    if (last) {
      stream.remoteClosed = true;
      const { contentLength } = stream.head;
      if (contentLength >= 0 && contentLength !== stream.receivedBytes) return this.#streamError(id, H2Error.protocol);
    }
    const completesMessage = stream.onData(buf, start, end, last);
    if (!last && !completesMessage && bytes < TINY_DATA_BYTES && !this.#spend(Cost.tinyData, "tiny_data")) return;
    if (!last) this.returnCredit(stream, stream.paused ? 0 : bytes);
  }

  #dataOnNoStream(id: number, bytes: number, last: boolean): void {
    if (id === 0 || id > this.#lastStreamId || (id & 1) === 0) {
      return this.fail(H2Error.protocol, `DATA on stream ${id}, which is not open`);
    }
    if (!this.#earlyClosed.has(id)) return this.#streamError(id, H2Error.streamClosed);
    if (last) this.#earlyClosed.delete(id);
    else if (bytes < TINY_DATA_BYTES && !this.#earlyClosed.forgive()) this.#spend(Cost.tinyData, "tiny_data");
  }

  /** Resets a stream for a client error and charges its budget. */
  #streamError(id: number, code: number): void {
    if (this.#spend(Cost.reset, "stream_errors")) this.resetStream(id, code);
  }

  // ---- headers

  #headers(buf: Buffer, from: number, to: number, flags: number, id: number): void {
    if (!this.#settingsSeen) return this.fail(H2Error.protocol, "the first frame is not SETTINGS");
    if ((id & 1) === 0) return this.fail(H2Error.protocol, `HEADERS on stream ${id}`);
    let start = from;
    let end = to;
    if ((flags & Flag.padded) !== 0) {
      const padding = to > from ? buf[start++]! : 0;
      end -= padding;
    }
    let dependsOnItself = false;
    if ((flags & Flag.priority) !== 0) {
      dependsOnItself = end - start >= 5 && (buf.readUInt32BE(start) & 0x7fffffff) === id;
      start += 5;
    }
    if (end < start) return this.fail(H2Error.protocol, "padding or priority longer than its HEADERS frame");
    if (dependsOnItself) {
      return this.fail(H2Error.protocol, `stream ${id} depends on itself`);
    }
    const endsStream = (flags & Flag.endStream) !== 0;
    if ((flags & Flag.endHeaders) !== 0) return this.#headerBlock(buf, start, end, id, endsStream);
    this.#headerReader.begin(id, endsStream, buf.subarray(start, end));
  }

  #continuation(buf: Buffer, start: number, end: number, flags: number, id: number): void {
    const reader = this.#headerReader;
    if (reader.streamId === 0) return this.fail(H2Error.protocol, "CONTINUATION without a header block");
    if (!reader.append(buf.subarray(start, end))) return this.failAbuse("header_blocks");
    if (!this.#spend(Cost.continuation, "continuations")) return;
    if ((flags & Flag.endHeaders) === 0) return;
    const block = reader.join();
    this.#headerBlock(block, 0, block.length, id, reader.endsStream);
  }

  #headerBlock(buf: Buffer, start: number, end: number, id: number, endsStream: boolean): void {
    const reader = this.#headerReader;
    let head: RequestHead<Route>;
    try {
      if (id <= this.#lastStreamId) return this.#trailers(reader.fields(buf, start, end), id, endsStream);
      head = reader.request(buf, start, end);
    } catch (error) {
      if (!(error instanceof HpackError)) throw error;
      return this.fail(H2Error.compression, error.message);
    }
    this.#lastStreamId = id;
    if (reader.listBytes > HEADER_LIST_BYTES_MAX) {
      if (reader.listBytes > HEADER_BOMB_BYTES) {
        return this.failAbuse("header_bomb", `header list of ${reader.listBytes} bytes`);
      }
      if (!this.#spend(Cost.largeHeaders, "header_lists")) return;
      head.malformed = "";
      head.refusal = this.core.headersTooLarge;
    }
    this.#open(id, head, endsStream);
  }

  /** A second block on a stream: it must end the stream and hold no pseudo-header. */
  #trailers(fields: readonly HeaderField[], id: number, endsStream: boolean): void {
    const stream = this.#streams.get(id);
    if (stream === undefined) {
      if (this.#earlyClosed.delete(id)) return;
      return this.fail(H2Error.streamClosed, `HEADERS on stream ${id}, which is closed`);
    }
    if (stream.remoteClosed) return this.#streamError(id, H2Error.streamClosed);
    const valid = fields.every((field) => field.valid && field.name.charCodeAt(0) !== 0x3a);
    const { contentLength } = stream.head;
    if (!endsStream || !valid || (contentLength >= 0 && contentLength !== stream.receivedBytes)) {
      return this.#streamError(id, H2Error.protocol);
    }
    stream.remoteClosed = true;
    stream.onData(NO_BYTES, 0, 0, true);
  }

  #open(id: number, head: RequestHead<Route>, endsStream: boolean): void {
    const { core } = this;
    if (head.malformed !== "" || (endsStream && head.contentLength > 0)) {
      return this.#streamError(id, H2Error.protocol);
    }
    // Calls that were in flight when the client was told to leave are not its error.
    if (this.#draining) return this.resetStream(id, H2Error.refusedStream);
    if (
      this.#streams.size >= core.maxConcurrentStreams ||
      (this.sender.waitingStreams > UNREAD_STREAMS_MAX && this.replies.bytes > core.heldReplyBytesMax / REFUSE_SHARE)
    ) {
      return this.#streamError(id, H2Error.refusedStream);
    }
    core.stats.streams++;
    this.guard.earn(Earning.streamOpened);
    const stream = head.isGrpc ? new Call(this, id, head) : new PlainStream(this, id, head);
    stream.remoteClosed = endsStream;
    this.#streams.set(id, stream);
    this.#recent = stream;
    stream.onOpen();
  }

  // ---- other frames

  #rstStream(start: number, end: number, id: number): void {
    if (end - start !== 4) return this.fail(H2Error.frameSize, "RST_STREAM is not 4 bytes");
    if (id === 0 || id > this.#lastStreamId || (id & 1) === 0) {
      return this.fail(H2Error.protocol, `RST_STREAM on stream ${id}, which is idle`);
    }
    const stream = this.#streams.get(id);
    if (stream !== undefined) {
      const isRapid = !stream.headersSent && this.nowMs - stream.openedAtMs < RAPID_RESET_MS;
      if (!isRapid || this.#spend(Cost.reset, "resets")) this.#drop(stream);
    } else if (!this.#earlyClosed.delete(id)) this.#spend(Cost.lateReset, "resets");
  }

  #priority(buf: Buffer, start: number, end: number, id: number): void {
    if (id === 0) return this.fail(H2Error.protocol, "PRIORITY on stream 0");
    if (end - start !== 5) return this.#streamError(id, H2Error.frameSize);
    if ((buf.readUInt32BE(start) & 0x7fffffff) === id) return this.#streamError(id, H2Error.protocol);
    this.#spend(Cost.priority, "priorities");
  }

  #settings(buf: Buffer, start: number, end: number, flags: number, id: number): void {
    if (id !== 0) return this.fail(H2Error.protocol, "SETTINGS on a stream");
    if ((flags & Flag.ack) !== 0) {
      if (!this.#settingsSeen) return this.fail(H2Error.protocol, "the first frame is a SETTINGS acknowledgement");
      if (end > start) return this.fail(H2Error.frameSize, "SETTINGS acknowledgement with a payload");
      if (this.#settingsAcknowledged) this.#spend(Cost.idleFrame, "idle_frames");
      this.#settingsAcknowledged = true;
      return;
    }
    if ((end - start) % 6 !== 0) return this.fail(H2Error.frameSize, "SETTINGS is not a multiple of 6 bytes");
    if (!this.#settingsSeen) this.core.onHttp2?.(this.socket);
    this.#settingsSeen = true;
    // A window change touches every stream.
    if (!this.#spend(Cost.settings + (this.#streams.size >>> 8), "settings")) return;
    const settings = readSettings(buf, start, end);
    if (typeof settings === "number") return this.fail(settings, "SETTINGS value out of range");
    const { headerTableSizes, initialWindowSize } = settings;
    for (const size of headerTableSizes) this.sender.encoder.setPeerTableSize(size);
    if (initialWindowSize !== undefined && !this.#setInitialWindow(initialWindowSize)) {
      return this.fail(H2Error.flowControl, "SETTINGS makes a window larger than 2^31-1");
    }
    this.sender.settingsAck();
    this.sender.pump();
  }

  /** False when a window becomes too large. */
  #setInitialWindow(value: number): boolean {
    const delta = value - this.peerInitialWindow;
    this.peerInitialWindow = value;
    if (delta === 0) return true;
    for (const stream of this.#streams.values()) {
      stream.sendWindow += delta;
      if (stream.sendWindow > WINDOW_MAX) return false;
      if (delta > 0) this.sender.makeReady(stream);
    }
    return true;
  }

  #ping(buf: Buffer, start: number, end: number, flags: number, id: number): void {
    if (id !== 0) return this.fail(H2Error.protocol, "PING on a stream");
    if (end - start !== 8) return this.fail(H2Error.frameSize, "PING is not 8 bytes");
    if ((flags & Flag.ack) !== 0) return void this.#spend(Cost.idleFrame, "idle_frames");
    const isEarned = this.#keepalive.followsReply(this.nowMs);
    if (!isEarned && !this.#spend(Cost.ping, "pings")) return;
    this.sender.ping(true, buf.subarray(start, end));
    if (!isEarned && !this.#keepalive.allowsPing(this.nowMs)) this.failAbuse("too_many_pings");
  }

  #windowUpdate(buf: Buffer, start: number, end: number, id: number): void {
    if (end - start !== 4) return this.fail(H2Error.frameSize, "WINDOW_UPDATE is not 4 bytes");
    if (!this.#spend(Cost.windowUpdate, "window_updates")) return;
    const increment = buf.readUInt32BE(start) & 0x7fffffff;
    if (id === 0) {
      if (increment === 0) return this.fail(H2Error.protocol, "WINDOW_UPDATE of 0");
      this.sender.window += increment;
      if (this.sender.window > WINDOW_MAX) return this.fail(H2Error.flowControl, "window above 2^31-1");
      return this.sender.pump();
    }
    const stream = this.#streams.get(id);
    if (stream === undefined) {
      if (id > this.#lastStreamId) this.fail(H2Error.protocol, `WINDOW_UPDATE on stream ${id}, which is idle`);
      return;
    }
    if (increment === 0) return this.#streamError(id, H2Error.protocol);
    stream.sendWindow += increment;
    if (stream.sendWindow > WINDOW_MAX) return this.#streamError(id, H2Error.flowControl);
    this.sender.makeReady(stream);
    this.sender.pump();
  }
}

const NO_BYTES = Buffer.alloc(0);
