/**
 * Parses one HTTP/1.1 response from the pieces that a socket delivers. Passes the body on as it arrives, without copies
 * when a piece holds one chunk, which is the usual case for raft messages.
 */
import { KvorumError } from "../base/errors.ts";

/** The peer does not speak HTTP/1.1, or not the agreed form. */
export class ResponseError extends KvorumError {
  override readonly name = "ResponseError";
  readonly code = "ERR_PEER_RESPONSE";
}

export interface ResponseHead {
  readonly status: number;
  /** Names in lower case. */
  readonly headers: ReadonlyMap<string, string>;
}

export interface ResponseEvents {
  head(head: ResponseHead): void;
  /** `buf[start .. end)`; it is not written to again. */
  body(buf: Buffer, start: number, end: number): void;
  end(): void;
}

const HEAD_BYTES_MAX = 64 * 1024;
/** Longest chunk-size line, with extensions, and longest trailer line. */
const LINE_BYTES_MAX = 4096;

type State = "head" | "chunk size" | "chunk" | "chunk end" | "trailer" | "counted" | "until close" | "done";

export class ResponseParser {
  readonly #events: ResponseEvents;
  #state: State = "head";
  /** An incomplete head or line. */
  #rest: Buffer = NO_BYTES;
  /** Remaining bytes of the chunk or of the counted body. */
  #left = 0;

  constructor(events: ResponseEvents) {
    this.#events = events;
  }

  /**
   * Consumes a piece and may move bytes in it. Throws ResponseError and errors of the events; the parser is unusable
   * after that.
   */
  push(piece: Buffer): void {
    let buf = piece;
    if (this.#rest.length > 0) {
      buf = Buffer.concat([this.#rest, piece]);
      this.#rest = NO_BYTES;
    }
    let at = this.#state === "head" ? this.#head(buf) : 0;
    // Body bytes of this piece, moved together.
    let bodyStart = at;
    let bodyEnd = at;
    while (at < buf.length) {
      const state: State = this.#state;
      if (state === "done") throw new ResponseError("the peer sent bytes after the end of its answer");
      if (state === "chunk" || state === "counted" || state === "until close") {
        const count = state === "until close" ? buf.length - at : Math.min(this.#left, buf.length - at);
        if (bodyEnd === bodyStart) bodyStart = bodyEnd = at;
        if (bodyEnd !== at) buf.copyWithin(bodyEnd, at, at + count);
        bodyEnd += count;
        at += count;
        this.#left -= count;
        if (this.#left === 0 && state === "chunk") this.#state = "chunk end";
        if (this.#left === 0 && state === "counted") this.#state = "done";
        continue;
      }
      const newline = buf.indexOf(10, at);
      if (newline < 0) {
        if (buf.length - at > LINE_BYTES_MAX) throw new ResponseError("a line of the peer's answer is too long");
        this.#rest = Buffer.from(buf.subarray(at));
        break;
      }
      this.#line(buf, at, newline);
      at = newline + 1;
    }
    if (bodyEnd > bodyStart) this.#events.body(buf, bodyStart, bodyEnd);
    if (this.#state === "done") this.#events.end();
  }

  /** The connection was closed. Throws ResponseError when the response is incomplete. */
  close(): void {
    if (this.#state === "until close") {
      this.#state = "done";
      this.#events.end();
    }
    if (this.#state !== "done") throw new ResponseError("unexpected EOF");
  }

  /** Returns where the body begins, or the end of `buf` when the head is incomplete. */
  #head(buf: Buffer): number {
    const end = buf.indexOf("\r\n\r\n");
    if (end < 0) {
      if (buf.length > HEAD_BYTES_MAX) throw new ResponseError("the head of the peer's answer is too long");
      this.#rest = buf;
      return buf.length;
    }
    const [statusLine = "", ...lines] = buf.toString("latin1", 0, end).split("\r\n");
    const status = /^HTTP\/1\.[01] (\d{3})(?: |$)/.exec(statusLine)?.[1];
    if (status === undefined) {
      throw new ResponseError(`malformed HTTP response ${JSON.stringify(statusLine.slice(0, 80))}`);
    }
    const headers = new Map<string, string>();
    for (const line of lines) {
      const colon = line.indexOf(":");
      if (colon <= 0) throw new ResponseError(`malformed header line ${JSON.stringify(line.slice(0, 80))}`);
      headers.set(line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim());
    }
    this.#begin(Number(status), headers);
    this.#events.head({ status: Number(status), headers });
    return end + 4;
  }

  #begin(status: number, headers: ReadonlyMap<string, string>): void {
    const length = headers.get("content-length");
    if (headers.get("transfer-encoding")?.toLowerCase() === "chunked") this.#state = "chunk size";
    else if (status === 204 || status === 304 || length === "0") this.#state = "done";
    else if (length === undefined) this.#state = "until close";
    else if (!/^\d{1,15}$/.test(length)) throw new ResponseError(`malformed Content-Length ${JSON.stringify(length)}`);
    else {
      this.#state = "counted";
      this.#left = Number(length);
    }
  }

  #line(buf: Buffer, start: number, newline: number): void {
    const end = newline > start && buf[newline - 1] === 13 ? newline - 1 : newline;
    switch (this.#state) {
      case "chunk size":
        this.#left = chunkSize(buf, start, end);
        this.#state = this.#left === 0 ? "trailer" : "chunk";
        return;
      case "chunk end":
        if (end !== start) throw new ResponseError("a chunk of the peer's answer is longer than its size says");
        this.#state = "chunk size";
        return;
      default:
        if (end === start) this.#state = "done";
    }
  }
}

function chunkSize(buf: Buffer, start: number, end: number): number {
  let size = 0;
  let at = start;
  for (; at < end; at++) {
    const digit = hexDigit(buf[at]!);
    if (digit < 0) break;
    size = size * 16 + digit;
  }
  const extension = at < end && buf[at] !== SEMICOLON && buf[at] !== SPACE;
  if (at === start || at - start > 12 || extension) throw new ResponseError("malformed size of a chunk");
  return size;
}

const SEMICOLON = 0x3b;
const SPACE = 0x20;

function hexDigit(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  const lower = byte | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1;
}

const NO_BYTES: Buffer = Buffer.alloc(0);
