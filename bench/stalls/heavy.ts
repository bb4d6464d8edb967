/**
 * Clients with large requests: over Node's HTTP/2, which delivers answers in pieces, so that answers of hundreds of
 * megabytes are not assembled here, and a client can read slowly or not at all.
 */
import * as http from "node:http";
import * as http2 from "node:http2";
import type { MethodType } from "../../src/base/protobuf.ts";
import { framed } from "../load/h2-client.ts";

/** How an answer is read: at full speed, at about `bytesPerSecond`, or never. */
export type Reader = "fast" | "never" | { readonly bytesPerSecond: number };

export interface Answer {
  /** Data bytes of the answer that were read. */
  readonly bytes: number;
  /** grpc-status; -1 when it did not end in time or the connection broke. */
  readonly status: number;
  readonly message: string;
}

export interface AskOptions {
  readonly reader?: Reader;
  readonly headers?: Readonly<Record<string, string>>;
  /** The call is abandoned after this time. */
  readonly timeoutMs: number;
  /** Called with each piece on arrival. */
  readonly onData?: (piece: Buffer) => void;
}

const WINDOW = 64 * 1024 * 1024;
const SLOW_EVERY_MS = 50;

/** A connection with large windows. */
export class HeavyClient {
  readonly #session: http2.ClientHttp2Session;

  constructor(port: number, windowBytes = WINDOW) {
    this.#session = http2.connect(`http://127.0.0.1:${port}`, { settings: { initialWindowSize: windowBytes } });
    this.#session.on("error", () => {});
    this.#session.on("connect", () => this.#session.setLocalWindowSize(windowBytes));
  }

  ask<I, O>(method: MethodType<I, O>, request: Partial<I>, options: AskOptions): Promise<Answer> {
    return new Promise((resolve) => {
      let bytes = 0;
      let status = -1;
      let message = "";
      const stream = this.#session.request({
        ":method": "POST",
        ":path": method.path,
        "content-type": "application/grpc",
        te: "trailers",
        ...options.headers,
      });
      const timers: NodeJS.Timeout[] = [
        setTimeout(() => stream.close(http2.constants.NGHTTP2_CANCEL), options.timeoutMs),
      ];
      const look = (headers: http2.IncomingHttpHeaders): void => {
        if (headers["grpc-status"] !== undefined) status = Number(headers["grpc-status"]);
        if (headers["grpc-message"] !== undefined) message = String(headers["grpc-message"]);
      };
      stream.on("response", look);
      stream.on("trailers", look);
      stream.on("error", (error: Error) => (message = error.message));
      stream.on("close", () => {
        for (const timer of timers) clearTimeout(timer);
        resolve({ bytes, status, message });
      });
      const { reader = "fast" } = options;
      if (reader === "never") stream.pause();
      else {
        stream.on("data", (piece: Buffer) => {
          bytes += piece.length;
          options.onData?.(piece);
          if (reader !== "fast") stream.pause();
        });
      }
      if (typeof reader === "object") timers.push(setInterval(() => readSome(stream, reader), SLOW_EVERY_MS));
      stream.end(framed(method.request.encode(method.request.create(request))));
    });
  }

  close(): void {
    this.#session.destroy();
  }
}

/** A piece is about 16 KiB; the stream pauses after each. */
function readSome(stream: http2.ClientHttp2Stream, { bytesPerSecond }: { bytesPerSecond: number }): void {
  let left = Math.ceil((bytesPerSecond * SLOW_EVERY_MS) / 1000 / 16_384);
  const more = (): void => {
    if (left-- <= 0 || stream.destroyed) return;
    stream.resume();
    setImmediate(more);
  };
  more();
}

/** POSTs JSON to the gateway and counts the answer's bytes. */
export function post(port: number, path: string, body: string, timeoutMs: number): Promise<Answer> {
  return new Promise((resolve) => {
    const headers = { "content-type": "application/json", "content-length": Buffer.byteLength(body) };
    const request = http.request({ port, host: "127.0.0.1", path, method: "POST", headers, agent: false });
    const timer = setTimeout(() => request.destroy(), timeoutMs);
    let bytes = 0;
    let status = -1;
    let message = "";
    request.on("response", (response) => {
      response.on("data", (piece: Buffer) => {
        if (bytes < 200) message += piece.toString("latin1", 0, 200);
        bytes += piece.length;
      });
      response.on("end", () => {
        status = response.statusCode === 200 ? 0 : (response.statusCode ?? -1);
      });
      response.on("error", () => {});
    });
    request.on("error", (error) => (message = error.message));
    request.on("close", () => {
      clearTimeout(timer);
      resolve({ bytes, status, message });
    });
    request.end(body);
  });
}
