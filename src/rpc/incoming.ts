/**
 * The frames of a client, by what RFC 9113 allows of each: settings, windows and pings, header blocks that open streams,
 * and data, which goes to its stream in place. A frame that breaks the protocol ends its stream or the connection; one
 * that a flood is made of is charged.
 */
import { Call } from "./call.ts";
import type { Connection } from "./connection.ts";
import type { Route } from "./contract.ts";
import type { RpcCore } from "./core.ts";
import type { FrameSink } from "./frame-reader.ts";
import { type Abuse, Cost, Earning, type FloodGuard } from "./guard.ts";
import type { RequestHead } from "./head.ts";
import { HeaderReader } from "./header-reader.ts";
import { HpackError } from "./hpack/decoder.ts";
import type { HeaderField } from "./hpack/fields.ts";
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
  WINDOW_MAX,
} from "./protocol.ts";
import type { Sender } from "./sender.ts";
import type { StreamTable } from "./stream-table.ts";

/**
 * When a client leaves this fraction of the limit on unread replies unread, on more than a few streams, its new calls
 * are refused.
 */
const REFUSE_SHARE = 4;
const UNREAD_STREAMS_MAX = 16;
/**
 * Netty resets a stream that it has cancelled once more for each frame that still arrives. A small answer is three
 * frames and counts as one sent.
 */
const RESETS_PER_FRAME = 4;
/** Smaller data frames that complete no message count as flooding. */
const TINY_DATA_BYTES = 64;

export class Incoming implements FrameSink {
  readonly #connection: Connection;
  readonly #core: RpcCore;
  readonly #streams: StreamTable;
  readonly #sender: Sender;
  readonly #guard: FloodGuard;
  readonly #headerReader: HeaderReader<Route>;
  #receiveWindow = CONNECTION_WINDOW;
  #receiveCredit = 0;
  /** Resets of streams that are over. */
  #lateResets = 0;
  #settingsSeen = false;
  #settingsAcknowledged = false;

  constructor(connection: Connection, streams: StreamTable) {
    const { core, sender, guard } = connection;
    this.#connection = connection;
    this.#core = core;
    this.#streams = streams;
    this.#sender = sender;
    this.#guard = guard;
    this.#headerReader = new HeaderReader((path) => core.routes.get(path));
  }

  onFrame(buf: Buffer, start: number, end: number, type: number, flags: number, id: number): boolean {
    const insideBlock = this.#headerReader.streamId !== 0;
    if (type === FrameType.data && !insideBlock) this.#data(buf, start, end, flags, id);
    else if (type === FrameType.headers && !insideBlock) this.#headers(buf, start, end, flags, id);
    else this.#otherFrame(buf, start, end, type, flags, id);
    return this.#connection.goesOn();
  }

  onFrameTooLarge(type: number, length: number): void {
    this.#connection.fail(H2Error.frameSize, `frame of type ${type} and ${length} bytes, more than ${FRAME_BYTES_MAX}`);
  }

  #otherFrame(buf: Buffer, start: number, end: number, type: number, flags: number, id: number): void {
    const blockOf = this.#headerReader.streamId;
    if (blockOf !== 0 && (type !== FrameType.continuation || id !== blockOf)) {
      return this.#connection.fail(H2Error.protocol, `frame of type ${type} inside a header block`);
    }
    if (!this.#settingsSeen && type !== FrameType.settings) {
      return this.#connection.fail(H2Error.protocol, "the first frame is not SETTINGS");
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
        if (id !== 0) return this.#connection.fail(H2Error.protocol, "GOAWAY on a stream");
        if (end - start < 8) return this.#connection.fail(H2Error.frameSize, "GOAWAY below 8 bytes");
        this.#spend(Cost.idleFrame, "idle_frames");
        return;
      case FrameType.continuation:
        return this.#continuation(buf, start, end, flags, id);
      case FrameType.pushPromise:
        return this.#connection.fail(H2Error.protocol, "PUSH_PROMISE from a client");
      default:
        this.#spend(Cost.unknownFrame, "unknown_frames");
    }
  }

  #spend(cost: number, abuse: Abuse): boolean {
    if (this.#guard.spend(cost, this.#connection.nowMs)) return true;
    this.#connection.failAbuse(abuse);
    return false;
  }

  // ---- data

  #data(buf: Buffer, from: number, to: number, flags: number, id: number): void {
    const bytes = to - from;
    this.#receiveWindow -= bytes;
    if (this.#receiveWindow < 0)
      return this.#connection.fail(H2Error.flowControl, "DATA beyond the window of the connection");
    this.#receiveCredit += bytes;
    if (this.#receiveCredit >= CONNECTION_CREDIT_STEP) {
      // Independent of the streams, so that a slow stream cannot stop the others.
      this.#sender.windowUpdate(0, this.#receiveCredit);
      this.#receiveWindow += this.#receiveCredit;
      this.#receiveCredit = 0;
    }
    const stream = this.#streams.get(id);
    if (stream === undefined) return this.#dataOnNoStream(id, bytes, (flags & Flag.endStream) !== 0);
    if (stream.remoteClosed) return this.#streamError(id, H2Error.streamClosed);
    let start = from;
    let end = to;
    if ((flags & Flag.padded) !== 0) {
      const padding = bytes > 0 ? buf[start++]! : 0;
      end -= padding;
      if (bytes === 0 || end < start)
        return this.#connection.fail(H2Error.protocol, "padding longer than its DATA frame");
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
    if (!last) this.#connection.returnCredit(stream, stream.paused ? 0 : bytes);
  }

  #dataOnNoStream(id: number, bytes: number, last: boolean): void {
    if (this.#streams.isIdle(id)) {
      return this.#connection.fail(H2Error.protocol, `DATA on stream ${id}, which is not open`);
    }
    if (!this.#streams.earlyClosed.has(id)) return this.#streamError(id, H2Error.streamClosed);
    if (last) this.#streams.earlyClosed.delete(id);
    else if (bytes < TINY_DATA_BYTES && !this.#streams.earlyClosed.forgive()) this.#spend(Cost.tinyData, "tiny_data");
  }

  /** Resets a stream for a client error and charges its budget. */
  #streamError(id: number, code: number): void {
    if (this.#spend(Cost.streamError, "stream_errors")) this.#connection.resetStream(id, code);
  }

  // ---- headers

  #headers(buf: Buffer, from: number, to: number, flags: number, id: number): void {
    if (!this.#settingsSeen) return this.#connection.fail(H2Error.protocol, "the first frame is not SETTINGS");
    if ((id & 1) === 0) return this.#connection.fail(H2Error.protocol, `HEADERS on stream ${id}`);
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
    if (end < start)
      return this.#connection.fail(H2Error.protocol, "padding or priority longer than its HEADERS frame");
    if (dependsOnItself) {
      return this.#connection.fail(H2Error.protocol, `stream ${id} depends on itself`);
    }
    const endsStream = (flags & Flag.endStream) !== 0;
    if ((flags & Flag.endHeaders) !== 0) return this.#headerBlock(buf, start, end, id, endsStream);
    this.#headerReader.begin(id, endsStream, buf.subarray(start, end));
  }

  #continuation(buf: Buffer, start: number, end: number, flags: number, id: number): void {
    const reader = this.#headerReader;
    if (reader.streamId === 0) return this.#connection.fail(H2Error.protocol, "CONTINUATION without a header block");
    if (!reader.append(buf.subarray(start, end))) return this.#connection.failAbuse("header_blocks");
    if (!this.#spend(Cost.continuation, "continuations")) return;
    if ((flags & Flag.endHeaders) === 0) return;
    const block = reader.join();
    this.#headerBlock(block, 0, block.length, id, reader.endsStream);
  }

  #headerBlock(buf: Buffer, start: number, end: number, id: number, endsStream: boolean): void {
    const reader = this.#headerReader;
    let head: RequestHead<Route>;
    try {
      if (id <= this.#streams.lastId) return this.#trailers(reader.fields(buf, start, end), id, endsStream);
      head = reader.request(buf, start, end);
    } catch (error) {
      if (!(error instanceof HpackError)) throw error;
      return this.#connection.fail(H2Error.compression, error.message);
    }
    this.#streams.lastId = id;
    if (reader.listBytes > HEADER_LIST_BYTES_MAX) {
      if (reader.listBytes > HEADER_BOMB_BYTES) {
        return this.#connection.failAbuse("header_bomb", `header list of ${reader.listBytes} bytes`);
      }
      if (!this.#spend(Cost.largeHeaders, "header_lists")) return;
      head.malformed = "";
      head.refusal = this.#core.headersTooLarge;
    }
    this.#open(id, head, endsStream);
  }

  /** A second block on a stream: it must end the stream and hold no pseudo-header. */
  #trailers(fields: readonly HeaderField[], id: number, endsStream: boolean): void {
    const stream = this.#streams.get(id);
    if (stream === undefined) {
      if (this.#streams.earlyClosed.delete(id)) return;
      return this.#connection.fail(H2Error.streamClosed, `HEADERS on stream ${id}, which is closed`);
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
    const connection = this.#connection;
    const core = this.#core;
    if (head.malformed !== "" || (endsStream && head.contentLength > 0)) {
      return this.#streamError(id, H2Error.protocol);
    }
    // Refusals are no error of the client's, and so are not charged: it may have opened thousands of streams before it
    // read the limit, or that it is to leave.
    if (
      connection.isDraining ||
      this.#streams.size >= core.maxConcurrentStreams ||
      (this.#sender.waitingStreams > UNREAD_STREAMS_MAX &&
        connection.replies.bytes > core.heldReplyBytesMax / REFUSE_SHARE)
    ) {
      return connection.resetStream(id, H2Error.refusedStream);
    }
    core.stats.streams++;
    this.#guard.earn(Earning.streamOpened);
    const stream = head.isGrpc ? new Call(connection, id, head) : new PlainStream(connection, id, head);
    stream.remoteClosed = endsStream;
    this.#streams.add(stream);
    stream.onOpen();
  }

  // ---- other frames

  #rstStream(start: number, end: number, id: number): void {
    if (end - start !== 4) return this.#connection.fail(H2Error.frameSize, "RST_STREAM is not 4 bytes");
    if (this.#streams.isIdle(id)) {
      return this.#connection.fail(H2Error.protocol, `RST_STREAM on stream ${id}, which is idle`);
    }
    const stream = this.#streams.get(id);
    if (stream !== undefined) this.#connection.drop(stream);
    else if (!this.#streams.earlyClosed.delete(id) && ++this.#lateResets > RESETS_PER_FRAME * this.#sender.framesSent) {
      this.#spend(Cost.lateReset, "resets");
    }
  }

  #priority(buf: Buffer, start: number, end: number, id: number): void {
    if (id === 0) return this.#connection.fail(H2Error.protocol, "PRIORITY on stream 0");
    if (end - start !== 5) return this.#streamError(id, H2Error.frameSize);
    if ((buf.readUInt32BE(start) & 0x7fffffff) === id) return this.#streamError(id, H2Error.protocol);
    this.#spend(Cost.priority, "priorities");
  }

  #settings(buf: Buffer, start: number, end: number, flags: number, id: number): void {
    if (id !== 0) return this.#connection.fail(H2Error.protocol, "SETTINGS on a stream");
    if ((flags & Flag.ack) !== 0) {
      if (!this.#settingsSeen)
        return this.#connection.fail(H2Error.protocol, "the first frame is a SETTINGS acknowledgement");
      if (end > start) return this.#connection.fail(H2Error.frameSize, "SETTINGS acknowledgement with a payload");
      if (this.#settingsAcknowledged) this.#spend(Cost.idleFrame, "idle_frames");
      this.#settingsAcknowledged = true;
      return;
    }
    if ((end - start) % 6 !== 0)
      return this.#connection.fail(H2Error.frameSize, "SETTINGS is not a multiple of 6 bytes");
    if (!this.#settingsSeen) this.#core.onHttp2?.(this.#connection.socket);
    this.#settingsSeen = true;
    // A window change touches every stream.
    if (!this.#spend(Cost.settings + (this.#streams.size >>> 8), "settings")) return;
    const settings = readSettings(buf, start, end);
    if (typeof settings === "number") return this.#connection.fail(settings, "SETTINGS value out of range");
    const { headerTableSizes, initialWindowSize } = settings;
    for (const size of headerTableSizes) this.#sender.encoder.setPeerTableSize(size);
    if (initialWindowSize !== undefined && !this.#setInitialWindow(initialWindowSize)) {
      return this.#connection.fail(H2Error.flowControl, "SETTINGS makes a window larger than 2^31-1");
    }
    this.#sender.settingsAck();
    this.#sender.pump();
  }

  /** False when a window becomes too large. */
  #setInitialWindow(value: number): boolean {
    const delta = value - this.#connection.peerInitialWindow;
    this.#connection.peerInitialWindow = value;
    if (delta === 0) return true;
    for (const stream of this.#streams.open.values()) {
      stream.sendWindow += delta;
      if (stream.sendWindow > WINDOW_MAX) return false;
      if (delta > 0) this.#sender.makeReady(stream);
    }
    return true;
  }

  #ping(buf: Buffer, start: number, end: number, flags: number, id: number): void {
    if (id !== 0) return this.#connection.fail(H2Error.protocol, "PING on a stream");
    if (end - start !== 8) return this.#connection.fail(H2Error.frameSize, "PING is not 8 bytes");
    if ((flags & Flag.ack) !== 0) return void this.#spend(Cost.idleFrame, "idle_frames");
    const isEarned = this.#connection.keepalive.followsReply(this.#connection.nowMs);
    if (!isEarned && !this.#spend(Cost.ping, "pings")) return;
    this.#sender.ping(true, buf.subarray(start, end));
    if (!isEarned && !this.#connection.keepalive.allowsPing(this.#connection.nowMs))
      this.#connection.failAbuse("too_many_pings");
  }

  #windowUpdate(buf: Buffer, start: number, end: number, id: number): void {
    if (end - start !== 4) return this.#connection.fail(H2Error.frameSize, "WINDOW_UPDATE is not 4 bytes");
    if (!this.#spend(Cost.windowUpdate, "window_updates")) return;
    const increment = buf.readUInt32BE(start) & 0x7fffffff;
    if (id === 0) {
      if (increment === 0) return this.#connection.fail(H2Error.protocol, "WINDOW_UPDATE of 0");
      this.#sender.window += increment;
      if (this.#sender.window > WINDOW_MAX) return this.#connection.fail(H2Error.flowControl, "window above 2^31-1");
      return this.#sender.pump();
    }
    const stream = this.#streams.get(id);
    if (stream === undefined) {
      if (id > this.#streams.lastId)
        this.#connection.fail(H2Error.protocol, `WINDOW_UPDATE on stream ${id}, which is idle`);
      return;
    }
    if (increment === 0) return this.#streamError(id, H2Error.protocol);
    stream.sendWindow += increment;
    if (stream.sendWindow > WINDOW_MAX) return this.#streamError(id, H2Error.flowControl);
    this.#sender.makeReady(stream);
    this.#sender.pump();
  }
}

const NO_BYTES = Buffer.alloc(0);
