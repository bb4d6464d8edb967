/**
 * The sending half of a client's connection: writes frames to the output, keeps to the windows that the server grants,
 * and shares them among calls with waiting data, one frame each in turn. All frames of a turn leave with one write.
 */
import type { Socket } from "node:net";
import { frameHeader, messagePrefix, PREFIX_BYTES } from "../../rpc/frame-bytes.ts";
import { type ChunkPool, Output } from "../../rpc/output.ts";
import { Flag, FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FrameType, WINDOW_DEFAULT } from "../../rpc/protocol.ts";
import { ReadyList } from "../../rpc/ready-list.ts";
import type { Call } from "./call.ts";

/** From this size on, a separate buffer in the socket's list costs less than a copy. */
const APPEND_BYTES_MIN = 4096;
/** Below this a loop copies faster than a runtime call. */
const COPY_LOOP_MAX = 32;

export class ClientSender {
  /** Bytes of data that the server accepts on the whole connection. */
  window = WINDOW_DEFAULT;
  readonly #output: Output;
  readonly #ready = new ReadyList<Call>();
  #flushScheduled = false;
  #closed = false;

  constructor(socket: Socket, pool: ChunkPool) {
    this.#output = new Output(socket, pool, () => {
      this.pump();
      this.flush();
    });
  }

  /** The connection's first bytes. */
  raw(bytes: Buffer): void {
    const at = this.#output.reserve(bytes.length);
    bytes.copy(this.#output.buf, at);
  }

  close(): void {
    this.#closed = true;
    this.#output.close();
  }

  /** A message of an open call, or its last one. The bytes must not change afterwards. */
  message(call: Call, message: Uint8Array, last: boolean): void {
    const { length } = message;
    const total = PREFIX_BYTES + length;
    if (last) call.halfClosed = true;
    if (call.id === 0 || call.queue !== null || !this.#fitsNow(call, total)) return this.#enqueue(call, message);
    const at = this.#frame(FrameType.data, last ? Flag.endStream : 0, call.id, total);
    const { buf } = this.#output;
    messagePrefix(buf, at, false, length);
    if (length <= COPY_LOOP_MAX) for (let i = 0; i < length; i++) buf[at + PREFIX_BYTES + i] = message[i]!;
    else buf.set(message, at + PREFIX_BYTES);
    this.window -= total;
    call.sendWindow -= total;
    call.endSent = last;
  }

  #enqueue(call: Call, message: Uint8Array): void {
    const start = Buffer.allocUnsafe(PREFIX_BYTES);
    messagePrefix(start, 0, false, message.length);
    call.queue ??= [];
    call.queue.push(start);
    if (message.length > 0) call.queue.push(Buffer.from(message.buffer, message.byteOffset, message.length));
    this.makeReady(call);
    this.pump();
  }

  /** No message follows those of the queue. */
  halfClose(call: Call): void {
    call.halfClosed = true;
    if (call.queue !== null || call.id === 0 || call.endSent) return;
    this.#frame(FrameType.data, Flag.endStream, call.id, 0);
    call.endSent = true;
  }

  /** Queues a call that has data and window. */
  makeReady(call: Call): void {
    if (call.ready || call.queue === null || call.id === 0 || call.sendWindow <= 0) return;
    this.#ready.push(call);
  }

  /** Sends what windows and socket allow, one frame per call in turn. */
  pump(): void {
    while (!this.#ready.isEmpty && this.window > 0 && this.#output.hasRoom) {
      const call = this.#ready.shift();
      if (call.queue === null) continue;
      this.#sendQueued(call, call.queue);
      this.makeReady(call);
    }
  }

  headers(id: number, block: Buffer): void {
    for (let from = 0; from < block.length; from += FRAME_BYTES_MAX) {
      const part = block.subarray(from, from + FRAME_BYTES_MAX);
      const last = from + part.length === block.length;
      const at = this.#frame(
        from === 0 ? FrameType.headers : FrameType.continuation,
        last ? Flag.endHeaders : 0,
        id,
        part.length,
      );
      const { buf } = this.#output;
      if (part.length <= COPY_LOOP_MAX) for (let i = 0; i < part.length; i++) buf[at + i] = part[i]!;
      else part.copy(buf, at);
    }
  }

  settings(pairs: readonly (readonly [number, number])[]): void {
    let at = this.#frame(FrameType.settings, 0, 0, pairs.length * 6);
    for (const [name, value] of pairs) {
      this.#output.buf.writeUInt16BE(name, at);
      this.#output.buf.writeUInt32BE(value, at + 2);
      at += 6;
    }
  }

  settingsAck(): void {
    this.#frame(FrameType.settings, Flag.ack, 0, 0);
  }

  ping(ack: boolean, payload: Uint8Array): void {
    const at = this.#frame(FrameType.ping, ack ? Flag.ack : 0, 0, payload.length);
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

  goaway(code: number): void {
    const at = this.#frame(FrameType.goaway, 0, 0, 8);
    this.#output.buf.writeUInt32BE(0, at);
    this.#output.buf.writeUInt32BE(code, at + 4);
  }

  /** Everything that this turn's promises ask for goes out together: ticks run when no promise job is left. */
  touch(): void {
    if (this.#flushScheduled) return;
    this.#flushScheduled = true;
    process.nextTick(this.#flushNow);
  }

  flush(): void {
    if (this.#closed) return;
    this.#output.flush();
    if (this.#ready.isEmpty || !this.#output.hasRoom || this.window <= 0) return;
    this.pump();
    this.touch();
  }

  readonly #flushNow = (): void => {
    this.#flushScheduled = false;
    this.flush();
  };

  /** True when this many bytes of data can be sent at once, in one frame. */
  #fitsNow(call: Call, bytes: number): boolean {
    return bytes <= FRAME_BYTES_MAX && bytes <= this.window && bytes <= call.sendWindow && this.#output.hasRoom;
  }

  #sendQueued(call: Call, queue: Buffer[]): void {
    const first = queue[0]!;
    const offset = call.queueOffset;
    const bytes = Math.min(FRAME_BYTES_MAX, this.window, call.sendWindow, first.length - offset);
    const isLast = queue.length === 1 && offset + bytes === first.length;
    const flags = isLast && call.halfClosed ? Flag.endStream : 0;
    if (bytes >= APPEND_BYTES_MIN) {
      const at = this.#output.reserve(FRAME_HEADER_BYTES);
      frameHeader(this.#output.buf, at, bytes, FrameType.data, flags, call.id);
      this.#output.append(first.subarray(offset, offset + bytes));
    } else {
      const at = this.#frame(FrameType.data, flags, call.id, bytes);
      first.copy(this.#output.buf, at, offset, offset + bytes);
    }
    this.window -= bytes;
    call.sendWindow -= bytes;
    if (offset + bytes < first.length) {
      call.queueOffset = offset + bytes;
      return;
    }
    call.queueOffset = 0;
    queue.shift();
    if (queue.length > 0) return;
    call.queue = null;
    call.endSent = call.halfClosed;
  }

  /** Writes a frame header, reserves its payload and returns the payload's offset. */
  #frame(type: number, flags: number, id: number, length: number): number {
    const at = this.#output.reserve(FRAME_HEADER_BYTES + length);
    frameHeader(this.#output.buf, at, length, type, flags, id);
    return at + FRAME_HEADER_BYTES;
  }
}
