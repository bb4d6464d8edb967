/**
 * An HTTP/2 request that is not gRPC, for the server's `http2Request`, which serves the same as for HTTP/1 (health,
 * metrics, the JSON gateway). Its body is delivered as it arrives.
 */
import { Code } from "../base/grpc-codes.ts";
import type { Connection } from "./connection.ts";
import type { PlainRequest, Route, RpcSocket } from "./contract.ts";
import type { RequestHead } from "./head.ts";
import type { HeaderPair } from "./hpack/encoder.ts";
import { H2Error, STREAM_QUEUE_HIGH } from "./protocol.ts";
import { encodeStatusMessage, quote } from "./status.ts";
import { Stream } from "./stream.ts";

export class PlainStream extends Stream implements PlainRequest {
  onCancel: (() => void) | null = null;
  onDrain: (() => void) | null = null;
  cancelled = false;

  #onPiece: ((piece: Buffer) => void) | null = null;
  #onEnd: (() => void) | null = null;
  /** Body received before `readBody`, bounded by the stream's window. */
  #parts: Buffer[] = [];
  #wantsDrain = false;

  constructor(connection: Connection, id: number, head: RequestHead<Route>) {
    super(connection, id, head);
    this.paused = true;
  }

  get method(): string {
    return this.head.method;
  }

  get path(): string {
    return this.head.path;
  }

  get authority(): string {
    return this.head.authority;
  }

  get scheme(): string {
    return this.head.scheme;
  }

  get remoteAddress(): string {
    return this.connection.remoteAddress;
  }

  get socket(): RpcSocket {
    return this.connection.socket;
  }

  get headers(): Record<string, string> {
    const out: Record<string, string> = Object.create(null);
    for (const { name, value } of this.head.fields) {
      if (name.charCodeAt(0) === 0x3a) continue;
      const before = out[name];
      out[name] = before === undefined ? value : `${before}${name === "cookie" ? "; " : ", "}${value}`;
    }
    return out;
  }

  respond(status: number, headers: Readonly<Record<string, string>>, body: string | Uint8Array): void {
    const bytes = typeof body === "string" ? Buffer.from(body, "utf8") : body;
    this.respondHead(status, { ...headers, "content-length": String(bytes.length) });
    if (this.head.method !== "HEAD") this.write(bytes);
    this.end();
  }

  respondHead(status: number, headers: Readonly<Record<string, string>>): void {
    if (this.cancelled) return;
    if (this.headersSent) throw new Error(`handler of ${this.path} answered a request twice`);
    const fields: HeaderPair[] = [[":status", String(status)]];
    for (const [name, value] of Object.entries(headers)) fields.push([name.toLowerCase(), value]);
    const { sender } = this.connection;
    sender.headers(this, sender.encoder.block(fields), false);
  }

  write(bytes: Uint8Array): boolean {
    if (this.cancelled) return false;
    if (this.localClosed) throw new Error(`handler of ${this.path} wrote after the end of its answer`);
    this.connection.sender.data(this, Buffer.from(bytes));
    this.#wantsDrain = this.queueBytes > STREAM_QUEUE_HIGH;
    return !this.#wantsDrain;
  }

  end(): void {
    if (!this.cancelled && !this.localClosed) this.connection.sender.endData(this);
  }

  abort(): void {
    if (!this.cancelled) this.connection.resetStream(this.id, H2Error.internal);
  }

  onOpen(): void {
    const { head, connection } = this;
    if (head.refusal !== undefined) return this.respond(head.refusal.httpStatus, {}, head.refusal.message);
    if (connection.core.http2Request === undefined || head.method === "CONNECT") {
      const connect = head.method === "CONNECT";
      const message = connect
        ? "CONNECT is not served"
        : `invalid gRPC request content-type ${quote(head.contentType)}`;
      const status = { "grpc-status": String(Code.INVALID_ARGUMENT), "grpc-message": encodeStatusMessage(message) };
      return this.respond(connect ? 405 : 415, { "content-type": "application/grpc", ...status }, "");
    }
    try {
      connection.core.http2Request(this);
    } catch (error) {
      this.#crashed(error);
    }
  }

  get bodyComplete(): boolean {
    return this.remoteClosed && this.#parts.length === 0;
  }

  readBody(onPiece: (piece: Buffer) => void, onEnd: () => void): void {
    this.#onPiece = onPiece;
    this.#onEnd = onEnd;
    this.resumeBody();
  }

  pauseBody(): void {
    this.paused = true;
  }

  resumeBody(): void {
    if (!this.paused || this.#onPiece === null) return;
    this.paused = false;
    while (!this.paused && this.#parts.length > 0) {
      const part = this.#parts.shift()!;
      this.connection.releaseRequest(this, part.length);
      this.#handOn(part);
    }
    if (this.paused || this.localClosed) return;
    if (this.remoteClosed) this.#ended();
    else this.connection.returnWithheld(this);
  }

  onData(buf: Buffer, start: number, end: number, last: boolean): boolean {
    if (this.localClosed) return false;
    if (end > start) {
      if (this.paused) this.#keep(buf.subarray(start, end));
      else this.#handOn(buf.subarray(start, end));
    }
    if (last && !this.paused) this.#ended();
    return false;
  }

  #keep(bytes: Buffer): void {
    const { connection } = this;
    connection.holdRequest(this, bytes.length);
    this.#parts.push(Buffer.from(bytes));
    const most = connection.core.receiveBufferBytesMax;
    if (connection.requests.bytes <= most) return;
    this.#dropParts();
    this.respond(413, {}, `too much unread on one connection (more than ${most} bytes)`);
  }

  #handOn(piece: Buffer): void {
    try {
      this.#onPiece!(piece);
    } catch (error) {
      this.#crashed(error);
    }
  }

  #ended(): void {
    const onEnd = this.#onEnd;
    this.#onEnd = null;
    try {
      onEnd?.();
    } catch (error) {
      this.#crashed(error);
    }
  }

  onReset(): void {
    this.#dropParts();
    if (this.cancelled) return;
    this.cancelled = true;
    try {
      this.onCancel?.();
    } catch (error) {
      this.connection.core.crashed(this.path, error);
    }
  }

  onQueueDrained(): void {
    if (!this.#wantsDrain || this.localClosed) return;
    this.#wantsDrain = false;
    try {
      this.onDrain?.();
    } catch (error) {
      this.#crashed(error);
    }
  }

  giveUpReplies(): void {
    this.connection.resetStream(this.id, H2Error.enhanceYourCalm);
  }

  giveUpRequest(): void {
    this.#dropParts();
    this.respond(503, {}, "too many requests are unfinished: send this one again, at once");
  }

  #crashed(error: unknown): void {
    this.connection.core.crashed(this.path, error);
    if (this.cancelled || this.localClosed) return;
    if (this.headersSent) this.connection.resetStream(this.id, H2Error.internal);
    else this.respond(500, {}, "the server failed to serve this request; its log has the reason");
  }

  #dropParts(): void {
    this.connection.releaseRequest(this, this.requestBytes);
    this.#parts = [];
  }
}
