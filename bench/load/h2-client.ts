/**
 * The client side of gRPC over HTTP/2 for load: one connection, many calls to one path, no promises.
 *
 * Promises a low cost per call, so that the server is measured and not the client: header blocks are six indexed bytes
 * after the first call, frames of one turn are sent in one write, response blocks are decoded once and then recognised.
 * Obeys flow control in both directions. Does not retry or hide anything: a call ends with the status it got.
 */
import { connect, type Socket } from "node:net";
import { HpackDecoder } from "../../src/rpc/hpack/decoder.ts";
import type { HeaderField } from "../../src/rpc/hpack/fields.ts";

export interface CallHandler {
  /** One message is `buffer[start .. end)`, valid during the call only. */
  message(call: Call, buffer: Buffer, start: number, end: number): void;
  /** `status` is grpc-status, or -1 when the call was reset or the connection lost. */
  ended(call: Call, status: number): void;
}

export interface Call {
  /** Free for the caller. */
  readonly tag: number;
  startedMs: number;
  stream: number;
  /** Bytes that the server still accepts on this stream. */
  window: number;
  status: number;
  partial: Buffer[];
  partialSize: number;
}

export interface ClientOptions {
  /** Additional header fields of every call; names in lower case. */
  readonly headers?: Readonly<Record<string, string>>;
  /** An open or opening connection, such as a TLS one; a new TCP connection when absent. */
  readonly socket?: Socket;
}

const FRAME_HEAD = 9;
const DATA = 0;
const HEADERS = 1;
const RST_STREAM = 3;
const SETTINGS = 4;
const PING = 6;
const GOAWAY = 7;
const WINDOW_UPDATE = 8;
const CONTINUATION = 9;
const END_STREAM = 1;
const ACK = 1;
const END_HEADERS = 4;
const PADDED = 8;
const PRIORITY = 32;

const RECEIVE_WINDOW = 2 ** 30;
const BUFFER_SIZE = 256 * 1024;
const KNOWN_BLOCKS_MAX = 64;

export class H2Client {
  readonly #socket: Socket;
  readonly #path: string;
  readonly #authority: string;
  readonly #handler: CallHandler;
  /** The additional fields of every call, never added to the table. */
  readonly #extraFields: Buffer;
  readonly #nextBlock: Buffer;
  readonly #calls = new Map<number, Call>();
  readonly #decoder = new HpackDecoder();
  readonly #knownBlocks = new Map<string, number>();
  #knownVersion = 0;
  #nextStream = 1;
  #out = Buffer.allocUnsafe(BUFFER_SIZE);
  #outLength = 0;
  #flushPlanned = false;
  #rest: Buffer | undefined;
  #headerBlock: Buffer[] = [];
  #sendWindow = 65_535;
  #streamWindow = 65_535;
  #frameSizeMax = 16_384;
  #consumed = 0;
  #blocked: { call: Call; body: Buffer; end: boolean }[] = [];
  #closed = false;

  constructor(port: number, path: string, handler: CallHandler, options: ClientOptions = {}) {
    this.#path = path;
    this.#authority = `127.0.0.1:${port}`;
    this.#handler = handler;
    this.#extraFields = literalFields(options.headers ?? {});
    this.#nextBlock = Buffer.concat([NEXT_BLOCK, this.#extraFields]);
    this.#socket = options.socket ?? connect({ port, host: "127.0.0.1", noDelay: true });
    this.#socket.on("data", (chunk) => this.#read(chunk));
    this.#socket.on("error", () => this.#lost());
    this.#socket.on("close", () => this.#lost());
    this.#append(Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
    const settings = Buffer.alloc(12);
    settings.writeUInt16BE(2, 0); // ENABLE_PUSH 0
    settings.writeUInt16BE(4, 6);
    settings.writeUInt32BE(RECEIVE_WINDOW, 8);
    this.#frame(SETTINGS, 0, 0, settings);
    this.#windowUpdate(0, RECEIVE_WINDOW);
  }

  /** Starts a call; nothing is sent until `send`. */
  open(tag: number): Call {
    const call: Call = {
      tag,
      startedMs: 0,
      stream: this.#nextStream,
      window: this.#streamWindow,
      status: -1,
      partial: [],
      partialSize: 0,
    };
    this.#restart(call);
    return call;
  }

  /** Starts the next call with the object of an ended one, so that a load allocates nothing per call. */
  reopen(call: Call): void {
    this.#restart(call);
  }

  /** Sends a message with its gRPC prefix; copies it, so the caller may reuse the buffer at once unless it exceeds 16 KiB. */
  send(call: Call, body: Buffer, end: boolean): void {
    if (this.#closed) {
      this.#handler.ended(call, -1);
      return;
    }
    if (this.#blocked.length > 0 || !this.#fits(call, body)) {
      this.#blocked.push({ call, body: Buffer.from(body), end });
      this.#pump();
    } else {
      this.#sendWindow -= body.length;
      call.window -= body.length;
      this.#frame(DATA, end ? END_STREAM : 0, call.stream, body);
    }
  }

  close(): void {
    this.#closed = true;
    this.#socket.destroy();
  }

  #restart(call: Call): void {
    call.stream = this.#nextStream;
    call.status = -1;
    call.window = this.#streamWindow;
    call.partial.length = 0;
    call.partialSize = 0;
    this.#nextStream += 2;
    this.#calls.set(call.stream, call);
    // The four fields added to the table by the first block, starting at index 65.
    const block = call.stream === 1 ? this.#firstBlock() : this.#nextBlock;
    this.#frame(HEADERS, END_HEADERS, call.stream, block);
  }

  #firstBlock(): Buffer {
    const text = (value: string) => [value.length, ...Buffer.from(value)];
    return Buffer.from([
      ...[0x83, 0x86],
      ...[0x44, ...text(this.#path)],
      ...[0x41, ...text(this.#authority)],
      ...[0x5f, ...text("application/grpc")],
      ...[0x40, ...text("te"), ...text("trailers")],
      ...this.#extraFields,
    ]);
  }

  #fits(call: Call, body: Buffer): boolean {
    return body.length <= this.#sendWindow && body.length <= call.window && body.length <= this.#frameSizeMax;
  }

  /** Sends data that waits for windows, in order. */
  #pump(): void {
    while (this.#blocked.length > 0) {
      const first = this.#blocked[0]!;
      const size = Math.min(first.body.length, this.#sendWindow, first.call.window, this.#frameSizeMax);
      if (size <= 0) return;
      this.#sendWindow -= size;
      first.call.window -= size;
      const last = size === first.body.length;
      this.#frame(DATA, last && first.end ? END_STREAM : 0, first.call.stream, first.body.subarray(0, size));
      if (last) this.#blocked.shift();
      else first.body = first.body.subarray(size);
    }
  }

  #frame(type: number, flags: number, stream: number, payload: Buffer): void {
    this.#reserve(FRAME_HEAD + payload.length);
    const out = this.#out;
    let at = this.#outLength;
    out[at++] = payload.length >>> 16;
    out[at++] = payload.length >>> 8;
    out[at++] = payload.length;
    out[at++] = type;
    out[at++] = flags;
    out[at++] = stream >>> 24;
    out[at++] = stream >>> 16;
    out[at++] = stream >>> 8;
    out[at++] = stream;
    payload.copy(out, at);
    this.#outLength = at + payload.length;
    this.#planFlush();
  }

  #append(bytes: Buffer): void {
    this.#reserve(bytes.length);
    bytes.copy(this.#out, this.#outLength);
    this.#outLength += bytes.length;
    this.#planFlush();
  }

  #reserve(size: number): void {
    if (this.#outLength + size > this.#out.length) this.#flush(size);
  }

  #planFlush(): void {
    if (this.#flushPlanned) return;
    this.#flushPlanned = true;
    setImmediate(() => {
      this.#flushPlanned = false;
      this.#flush(0);
    });
  }

  #flush(sizeNext: number): void {
    if (this.#outLength > 0 && !this.#closed) this.#socket.write(this.#out.subarray(0, this.#outLength));
    // Written data stays unchanged until the kernel has taken it, so continue after it or in a new buffer.
    this.#out = this.#out.subarray(this.#outLength);
    if (this.#out.length < Math.max(sizeNext, 16 * 1024))
      this.#out = Buffer.allocUnsafe(Math.max(BUFFER_SIZE, sizeNext));
    this.#outLength = 0;
  }

  #windowUpdate(stream: number, increment: number): void {
    const payload = Buffer.alloc(4);
    payload.writeUInt32BE(increment, 0);
    this.#frame(WINDOW_UPDATE, 0, stream, payload);
  }

  #read(chunk: Buffer): void {
    let buffer = chunk;
    if (this.#rest !== undefined) {
      buffer = Buffer.concat([this.#rest, chunk]);
      this.#rest = undefined;
    }
    let at = 0;
    while (at + FRAME_HEAD <= buffer.length) {
      const length = buffer.readUIntBE(at, 3);
      const end = at + FRAME_HEAD + length;
      if (end > buffer.length) break;
      this.#receive(buffer[at + 3]!, buffer[at + 4]!, buffer.readUInt32BE(at + 5), buffer, at + FRAME_HEAD, end);
      at = end;
    }
    if (at < buffer.length) this.#rest = buffer.subarray(at);
  }

  #receive(type: number, flags: number, stream: number, buffer: Buffer, start: number, end: number): void {
    switch (type) {
      case DATA:
        this.#data(flags, stream, buffer, start, end);
        break;
      case HEADERS:
      case CONTINUATION:
        this.#headers(type, flags, stream, buffer, start, end);
        break;
      case RST_STREAM:
        this.#end(stream, -1);
        break;
      case SETTINGS:
        if ((flags & ACK) === 0) this.#settings(buffer, start, end);
        break;
      case PING:
        if ((flags & ACK) === 0) this.#frame(PING, ACK, 0, buffer.subarray(start, end));
        break;
      case GOAWAY:
        this.#lost();
        break;
      case WINDOW_UPDATE: {
        const increment = buffer.readUInt32BE(start);
        if (stream === 0) this.#sendWindow += increment;
        else {
          const call = this.#calls.get(stream);
          if (call) call.window += increment;
        }
        this.#pump();
        break;
      }
    }
  }

  #settings(buffer: Buffer, start: number, end: number): void {
    for (let at = start; at + 6 <= end; at += 6) {
      const value = buffer.readUInt32BE(at + 2);
      const id = buffer.readUInt16BE(at);
      if (id === 4) {
        for (const call of this.#calls.values()) call.window += value - this.#streamWindow;
        this.#streamWindow = value;
      } else if (id === 5) this.#frameSizeMax = value;
    }
    this.#frame(SETTINGS, ACK, 0, Buffer.alloc(0));
    this.#pump();
  }

  #data(flags: number, stream: number, buffer: Buffer, start: number, end: number): void {
    const padding = flags & PADDED ? buffer[start]! + 1 : 0;
    this.#consumed += end - start;
    if (this.#consumed > RECEIVE_WINDOW / 4) {
      this.#windowUpdate(0, this.#consumed);
      this.#consumed = 0;
    }
    const call = this.#calls.get(stream);
    if (call === undefined) return;
    this.#messages(call, buffer, start + (padding > 0 ? 1 : 0), end - Math.max(0, padding - 1));
    if (flags & END_STREAM) this.#end(stream, call.status);
  }

  #messages(call: Call, buffer: Buffer, start: number, end: number): void {
    let from = buffer;
    let at = start;
    let stop = end;
    if (call.partialSize > 0) {
      call.partial.push(Buffer.from(buffer.subarray(start, end)));
      call.partialSize += end - start;
      const head = call.partial[0]!;
      if (head.length >= 5 && call.partialSize < head.readUInt32BE(1) + 5) return;
      from = Buffer.concat(call.partial);
      call.partial.length = 0;
      call.partialSize = 0;
      at = 0;
      stop = from.length;
    }
    while (at + 5 <= stop) {
      const next = at + 5 + from.readUInt32BE(at + 1);
      if (next > stop) break;
      this.#handler.message(call, from, at + 5, next);
      at = next;
    }
    if (at < stop) {
      call.partial.push(Buffer.from(from.subarray(at, stop)));
      call.partialSize = stop - at;
    }
  }

  #headers(type: number, flags: number, stream: number, buffer: Buffer, start: number, end: number): void {
    let from = start;
    let to = end;
    if (type === HEADERS) {
      if (flags & PADDED) to -= buffer[from++]!;
      if (flags & PRIORITY) from += 5;
    }
    const part = buffer.subarray(from, to);
    const whole = this.#headerBlock.length > 0 ? Buffer.concat([...this.#headerBlock, part]) : part;
    if ((flags & END_HEADERS) === 0) {
      this.#headerBlock = [Buffer.from(whole)];
      return;
    }
    this.#headerBlock = [];
    const status = this.#statusOf(whole);
    const call = this.#calls.get(stream);
    if (call && status >= 0) call.status = status;
    if (flags & END_STREAM) this.#end(stream, status);
  }

  /** grpc-status of a header block; -1 without one. */
  #statusOf(block: Buffer): number {
    const key = block.toString("latin1");
    if (this.#decoder.version === this.#knownVersion) {
      const known = this.#knownBlocks.get(key);
      if (known !== undefined) return known;
    }
    const fields: HeaderField[] = [];
    const before = this.#decoder.version;
    this.#decoder.decode(block, 0, block.length, fields, 65_536);
    let status = -1;
    for (const { name, value } of fields) if (name === "grpc-status") status = Number(value);
    if (this.#decoder.version !== this.#knownVersion || this.#knownBlocks.size >= KNOWN_BLOCKS_MAX) {
      this.#knownBlocks.clear();
      this.#knownVersion = this.#decoder.version;
    }
    if (this.#decoder.version === before) this.#knownBlocks.set(key, status);
    return status;
  }

  #end(stream: number, status: number): void {
    const call = this.#calls.get(stream);
    if (call === undefined) return;
    this.#calls.delete(stream);
    this.#handler.ended(call, status);
  }

  #lost(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const call of this.#calls.values()) this.#handler.ended(call, -1);
    this.#calls.clear();
    this.#socket.destroy();
  }
}

/** Short header fields, literal and without Huffman coding. */
function literalFields(headers: Readonly<Record<string, string>>): Buffer {
  const text = (value: string) => {
    if (value.length > 126) throw new Error(`a header field of ${value.length} bytes`);
    return [value.length, ...Buffer.from(value)];
  };
  return Buffer.from(Object.entries(headers).flatMap(([name, value]) => [0x10, ...text(name), ...text(value)]));
}

const NEXT_BLOCK = Buffer.from([0x83, 0x86, 0xc1, 0xc0, 0xbf, 0xbe]);

/** A message with gRPC's five-byte prefix. */
export function framed(message: Uint8Array): Buffer {
  const out = Buffer.allocUnsafe(5 + message.length);
  out[0] = 0;
  out.writeUInt32BE(message.length, 1);
  out.set(message, 5);
  return out;
}
