/**
 * The sending half of a connection: writes frames to the output, tracks the windows granted by the client, and shares
 * them fairly among streams with waiting data, one frame each in turn.
 *
 * The usual reply (headers, one message, trailers, all windows open) is written in one piece without a queue. Small
 * messages that a stream sends one after the other share a data frame: that is less to read for every client, and some
 * (hyper's, so tonic's) end a connection on which thousands of small frames wait to be read.
 */
import type { Connection } from "./connection.ts";
import { frameHeader, frameLength, messagePrefix, PREFIX_BYTES } from "./frame-bytes.ts";
import { earnedByData } from "./guard.ts";
import { HpackEncoder } from "./hpack/encoder.ts";
import { CHUNK_BYTES, type ChunkPool, Output } from "./output.ts";
import { Flag, FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FrameType, STREAM_QUEUE_HIGH, WINDOW_DEFAULT } from "./protocol.ts";
import { ReadyList } from "./ready-list.ts";
import type { Stream, Trailers } from "./stream.ts";

/** From this size on, a separate buffer in the socket's list costs less than a copy. */
const APPEND_BYTES_MIN = 4096;
/** Below this a loop copies faster than a runtime call. */
const COPY_LOOP_MAX = 32;
const GOAWAY_TEXT_MAX = 256;
/** Writes to the socket in one turn, each of up to 256 KiB. */
const FLUSHES_MAX = 8;

export class Sender {
  readonly encoder = new HpackEncoder();
  /** Bytes of data that the client accepts on the whole connection. */
  window = WINDOW_DEFAULT;
  /** Streams with waiting data. */
  waitingStreams = 0;
  /** Headers and data frames, which excuse a client's pings. */
  framesSent = 0;

  readonly #connection: Connection;
  readonly #output: Output;
  readonly #ready = new ReadyList<Stream>();
  /** Bytes that the socket does not take, counted while it is blocked. */
  #backlogBytes = 0;
  #continues = false;
  /** The last data frame of whole messages: its stream, the bytes in it, and the output's position behind it. */
  #lastId = 0;
  #lastBytes = 0;
  #lastEnd = 0;

  constructor(connection: Connection, pool: ChunkPool) {
    this.#connection = connection;
    this.#output = new Output(connection.socket, pool, () => this.#onDrain());
  }

  /** The socket currently takes nothing. */
  get isBlocked(): boolean {
    return this.#output.blocked;
  }

  flush(): void {
    const output = this.#output;
    for (let i = 0; output.unflushed > 0; i++) {
      // A fast reader must not take the whole turn.
      if (i === FLUSHES_MAX) return this.#continueLater();
      const before = output.bytesWritten;
      output.flush();
      this.#connection.core.stats.bytesSent += output.bytesWritten - before;
      if (output.bytesWritten === before) return;
      if (output.blocked) return this.#block();
      if (!this.#ready.isEmpty) this.pump();
    }
  }

  close(): void {
    this.#unblock();
    this.#output.close();
  }

  #continueLater(): void {
    if (this.#continues) return;
    this.#continues = true;
    this.#connection.core.clock.defer(() => {
      this.#continues = false;
      this.flush();
    });
  }

  #block(): void {
    if (this.#backlogBytes === 0) {
      this.#backlogBytes = this.#output.backlogBytes;
      this.#connection.replies.add(this.#backlogBytes);
    }
    this.#connection.pauseReading();
  }

  #unblock(): void {
    this.#connection.replies.remove(this.#backlogBytes);
    this.#backlogBytes = 0;
  }

  #onDrain(): void {
    this.#unblock();
    try {
      this.pump();
    } catch (error) {
      this.#connection.broken(error);
    }
    this.flush();
    if (!this.#output.blocked) this.#connection.resumeReading();
  }

  // ---- streams

  /** Reply headers. */
  headers(stream: Stream, block: Buffer, endStream: boolean): void {
    stream.headersSent = true;
    if (endStream) stream.localClosed = true;
    this.#headerFrames(stream.id, block, endStream);
    this.#connection.touch();
    if (endStream) this.#connection.finished(stream);
  }

  /** Sends or queues a message with its prefix; `bytes[start .. end)` may be reused at once. */
  message(stream: Stream, compressed: boolean, bytes: Uint8Array, start: number, end: number): void {
    const length = end - start;
    const total = PREFIX_BYTES + length;
    if (this.#fitsNow(stream, total)) {
      const output = this.#output;
      const joins = this.#joinsLast(stream, total);
      const at = output.reserve(joins ? total : FRAME_HEADER_BYTES + total);
      const { buf } = output;
      if (joins) {
        frameLength(buf, at - this.#lastBytes - FRAME_HEADER_BYTES, this.#lastBytes + total);
        this.#lastBytes += total;
        messageBytes(buf, at, compressed, bytes, start, end);
      } else {
        this.#messageFrame(at, stream.id, compressed, bytes, start, end);
        this.#lastId = stream.id;
        this.#lastBytes = total;
      }
      this.#lastEnd = output.position;
      this.#spendWindow(stream, total);
    } else {
      const copy = Buffer.allocUnsafe(total);
      copy[0] = compressed ? 1 : 0;
      copy.writeUInt32BE(length, 1);
      copy.set(bytes.subarray(start, end), PREFIX_BYTES);
      this.#enqueue(stream, copy);
    }
    this.#connection.touch();
  }

  /**
   * A complete uncompressed unary reply with status OK. Takes ownership of the bytes, including those before `start`
   * for the prefix.
   */
  ownedReply(stream: Stream, bytes: Buffer, start: number, end: number): void {
    const from = start - PREFIX_BYTES;
    bytes[from] = 0;
    bytes.writeUInt32BE(end - start, from + 1);
    this.headers(stream, this.encoder.grpcHeaders(), false);
    this.#enqueue(stream, bytes.subarray(from, end));
    this.trailers(stream, "ok");
  }

  /** A complete uncompressed unary reply with status OK. */
  unaryReply(stream: Stream, bytes: Uint8Array, start: number, end: number): void {
    const headers = this.encoder.grpcHeaders();
    const total = PREFIX_BYTES + end - start;
    if (!this.#fitsNow(stream, total)) {
      this.headers(stream, headers, false);
      this.message(stream, false, bytes, start, end);
      return this.trailers(stream, "ok");
    }
    const trailers = this.encoder.grpcTrailersOk();
    const headersBytes = FRAME_HEADER_BYTES + headers.length;
    const dataBytes = FRAME_HEADER_BYTES + total;
    const size = headersBytes + dataBytes + FRAME_HEADER_BYTES + trailers.length;
    const at = this.#output.reserve(size);
    this.#headerFrame(at, stream.id, Flag.endHeaders, headers);
    this.#messageFrame(at + headersBytes, stream.id, false, bytes, start, end);
    this.#headerFrame(at + headersBytes + dataBytes, stream.id, Flag.endHeaders | Flag.endStream, trailers);
    this.#spendWindow(stream, total);
    stream.headersSent = true;
    stream.localClosed = true;
    this.#connection.finished(stream);
    this.#connection.touch();
  }

  /** Sends or queues bytes of a plain body; takes ownership of them. */
  data(stream: Stream, bytes: Buffer): void {
    if (bytes.length === 0) return;
    this.#enqueue(stream, bytes);
    this.#connection.touch();
  }

  /** Ends the stream with trailers, after the waiting data. */
  trailers(stream: Stream, trailers: Trailers): void {
    stream.localClosed = true;
    stream.trailers = trailers;
    if (stream.queue === null) this.#finishQueue(stream);
    this.#connection.touch();
  }

  /** Ends the stream without trailers, after the waiting data. */
  endData(stream: Stream): void {
    stream.localClosed = true;
    if (stream.queue === null) this.#finishQueue(stream);
    this.#connection.touch();
  }

  /** Counts bytes that a stream will send once they are ready. */
  hold(stream: Stream, bytes: number): void {
    stream.queueBytes += bytes;
    this.#connection.replies.add(bytes);
  }

  /** They are ready, or dropped. */
  release(stream: Stream, bytes: number): void {
    stream.queueBytes -= bytes;
    this.#connection.replies.remove(bytes);
  }

  /** Drops the waiting data of a removed stream. Its place in the ready list is removed when its turn comes. */
  forget(stream: Stream): void {
    this.release(stream, stream.queueBytes);
    if (stream.queue !== null) this.waitingStreams--;
    stream.queue = null;
    stream.queueOffset = 0;
    stream.trailers = null;
  }

  /** Queues a stream that has data and window. */
  makeReady(stream: Stream): void {
    if (stream.ready || stream.queue === null || stream.sendWindow <= 0) return;
    this.#ready.push(stream);
  }

  /** Sends what windows and socket allow, one frame per stream in turn. */
  pump(): void {
    while (!this.#ready.isEmpty && this.window > 0 && this.#output.hasRoom) {
      const stream = this.#ready.shift();
      if (stream.queue === null) continue;
      this.#sendQueued(stream);
      this.makeReady(stream);
    }
  }

  // ---- connection frames

  settings(pairs: readonly (readonly [number, number])[]): void {
    let at = this.#frame(FrameType.settings, 0, 0, pairs.length * 6);
    const { buf } = this.#output;
    for (const [name, value] of pairs) {
      buf.writeUInt16BE(name, at);
      buf.writeUInt32BE(value, at + 2);
      at += 6;
    }
  }

  settingsAck(): void {
    this.#frame(FrameType.settings, Flag.ack, 0, 0);
  }

  ping(ack: boolean, payload: Uint8Array): void {
    const at = this.#frame(FrameType.ping, ack ? Flag.ack : 0, 0, 8);
    this.#output.buf.set(payload, at);
  }

  windowUpdate(id: number, increment: number): void {
    const at = this.#frame(FrameType.windowUpdate, 0, id, 4);
    this.#output.buf.writeUInt32BE(increment, at);
  }

  reset(id: number, code: number): void {
    const at = this.#frame(FrameType.rstStream, 0, id, 4);
    this.#output.buf.writeUInt32BE(code, at);
  }

  goaway(lastStreamId: number, code: number, text: string): void {
    const debug = Buffer.from(text.slice(0, GOAWAY_TEXT_MAX), "latin1");
    const at = this.#frame(FrameType.goaway, 0, 0, 8 + debug.length);
    this.#output.buf.writeUInt32BE(lastStreamId, at);
    this.#output.buf.writeUInt32BE(code, at + 4);
    this.#output.buf.set(debug, at + 8);
  }

  // ---- internal

  /** True when this many bytes of data can be sent at once, in one frame, ahead of no other data. */
  #fitsNow(stream: Stream, bytes: number): boolean {
    return (
      bytes <= FRAME_BYTES_MAX &&
      bytes <= this.window &&
      bytes <= stream.sendWindow &&
      stream.queue === null &&
      this.#output.hasRoom
    );
  }

  /** Whether the last frame is this stream's, not sent yet, with room, and nothing was written behind it. */
  #joinsLast(stream: Stream, bytes: number): boolean {
    return (
      this.#lastId === stream.id &&
      this.#lastBytes + bytes <= FRAME_BYTES_MAX &&
      this.#lastEnd === this.#output.position &&
      this.#output.continues(this.#lastBytes + FRAME_HEADER_BYTES, bytes)
    );
  }

  #spendWindow(stream: Stream, bytes: number): void {
    this.window -= bytes;
    stream.sendWindow -= bytes;
    this.framesSent++;
    this.#connection.guard.earn(earnedByData(bytes));
  }

  #enqueue(stream: Stream, bytes: Buffer): void {
    if (stream.queue === null) {
      stream.queue = [bytes];
      this.waitingStreams++;
    } else stream.queue.push(bytes);
    this.hold(stream, bytes.length);
    this.makeReady(stream);
    this.pump();
  }

  #sendQueued(stream: Stream): void {
    const queue = stream.queue!;
    const first = queue[0]!;
    const offset = stream.queueOffset;
    const room = Math.min(FRAME_BYTES_MAX, this.window, stream.sendWindow);
    let bytes = Math.min(room, first.length - offset);
    const isRecycled = stream.recyclesPieces && first.buffer.byteLength === CHUNK_BYTES;
    let behind = 0;
    if (bytes >= APPEND_BYTES_MIN && !isRecycled) {
      const at = this.#output.reserve(FRAME_HEADER_BYTES);
      frameHeader(this.#output.buf, at, bytes, FrameType.data, 0, stream.id);
      this.#output.append(first.subarray(offset, offset + bytes));
    } else {
      if (!stream.recyclesPieces) behind = smallBehind(queue, room - (first.length - offset));
      for (let i = 1; i <= behind; i++) bytes += queue[i]!.length;
      let at = this.#frame(FrameType.data, 0, stream.id, bytes);
      const { buf } = this.#output;
      at += first.copy(buf, at, offset, offset + bytes);
      for (let i = 1; i <= behind; i++) at += queue[i]!.copy(buf, at);
    }
    this.#spendWindow(stream, bytes);
    const before = stream.queueBytes;
    this.release(stream, bytes);
    if (offset + bytes < first.length) stream.queueOffset = offset + bytes;
    else {
      stream.queueOffset = 0;
      if (behind > 0) queue.splice(0, 1 + behind);
      else queue.shift();
      if (isRecycled) this.#connection.core.chunks.give(Buffer.from(first.buffer as ArrayBuffer));
      if (queue.length === 0) {
        stream.queue = null;
        this.waitingStreams--;
        if (stream.localClosed) return this.#finishQueue(stream);
      }
    }
    if (before > STREAM_QUEUE_HIGH / 2 && stream.queueBytes <= STREAM_QUEUE_HIGH / 2) stream.onQueueDrained();
  }

  #finishQueue(stream: Stream): void {
    const { trailers } = stream;
    if (trailers === "ok") this.#headerFrames(stream.id, this.encoder.grpcTrailersOk(), true);
    else if (trailers !== null) this.#headerFrames(stream.id, this.encoder.block(trailers), true);
    else this.#frame(FrameType.data, Flag.endStream, stream.id, 0);
    stream.trailers = null;
    this.#connection.finished(stream);
  }

  /** A header block, split into CONTINUATION frames when it is too long for one. */
  #headerFrames(id: number, block: Buffer, endStream: boolean): void {
    const streamFlag = endStream ? Flag.endStream : 0;
    this.framesSent++;
    if (block.length <= FRAME_BYTES_MAX) {
      const at = this.#output.reserve(FRAME_HEADER_BYTES + block.length);
      return this.#headerFrame(at, id, Flag.endHeaders | streamFlag, block);
    }
    for (let from = 0; from < block.length; from += FRAME_BYTES_MAX) {
      const part = block.subarray(from, from + FRAME_BYTES_MAX);
      const last = from + part.length === block.length;
      const type = from === 0 ? FrameType.headers : FrameType.continuation;
      const flags = (from === 0 ? streamFlag : 0) | (last ? Flag.endHeaders : 0);
      const at = this.#frame(type, flags, id, part.length);
      part.copy(this.#output.buf, at);
    }
  }

  #headerFrame(at: number, id: number, flags: number, block: Buffer): void {
    const { length } = block;
    const { buf } = this.#output;
    frameHeader(buf, at, length, FrameType.headers, flags, id);
    at += FRAME_HEADER_BYTES;
    if (length <= COPY_LOOP_MAX) for (let i = 0; i < length; i++) buf[at + i] = block[i]!;
    else buf.set(block, at);
  }

  #messageFrame(at: number, id: number, compressed: boolean, bytes: Uint8Array, start: number, end: number): void {
    const { buf } = this.#output;
    frameHeader(buf, at, PREFIX_BYTES + end - start, FrameType.data, 0, id);
    messageBytes(buf, at + FRAME_HEADER_BYTES, compressed, bytes, start, end);
  }

  /** Writes a frame header, reserves its payload and returns the payload's offset. */
  #frame(type: number, flags: number, id: number, length: number): number {
    const at = this.#output.reserve(FRAME_HEADER_BYTES + length);
    frameHeader(this.#output.buf, at, length, type, flags, id);
    return at + FRAME_HEADER_BYTES;
  }
}

/** A message with its prefix. */
function messageBytes(
  buf: Buffer,
  at: number,
  compressed: boolean,
  bytes: Uint8Array,
  start: number,
  end: number,
): void {
  const length = end - start;
  messagePrefix(buf, at, compressed, length);
  at += PREFIX_BYTES;
  if (length <= COPY_LOOP_MAX) for (let i = 0; i < length; i++) buf[at + i] = bytes[start + i]!;
  else buf.set(start === 0 && end === bytes.length ? bytes : bytes.subarray(start, end), at);
}

/** How many small entries behind the first fit into this many bytes of the same frame. */
function smallBehind(queue: readonly Buffer[], room: number): number {
  let behind = 0;
  for (let left = room; behind + 1 < queue.length; behind++) {
    const { length } = queue[behind + 1]!;
    if (length > left || length >= APPEND_BYTES_MIN) break;
    left -= length;
  }
  return behind;
}
