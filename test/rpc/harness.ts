/** An RpcServer on its own port, a gRPC client that sends plain bytes, and a client that sends frames of any kind. */
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { Client, type ClientDuplexStream, credentials, type Metadata, type ServiceError } from "@grpc/grpc-js";
import { type Clock, systemClock, type Timer } from "../../src/base/clock.ts";
import { nullLogger } from "../../src/base/log.ts";
import type { PlainRequest } from "../../src/rpc/contract.ts";
import { HpackDecoder } from "../../src/rpc/hpack/decoder.ts";
import type { HeaderField } from "../../src/rpc/hpack/fields.ts";
import { RPC_DEFAULTS, type RpcServerOptions } from "../../src/rpc/options.ts";
import { Flag, FrameType, PREFACE } from "../../src/rpc/protocol.ts";
import { RpcServer } from "../../src/rpc/server.ts";
import { patience } from "../harness/wait.ts";

/** Calls back with the complete body of a request. */
export function readAll(request: PlainRequest, done: (body: Buffer) => void): void {
  const pieces: Buffer[] = [];
  request.readBody(
    (piece) => pieces.push(Buffer.from(piece)),
    () => done(Buffer.concat(pieces)),
  );
}

export class TestServer {
  readonly rpc: RpcServer;
  readonly listener: Server;
  readonly clients: Client[] = [];
  readonly raw: RawClient[] = [];

  constructor(options: Partial<RpcServerOptions> = {}) {
    this.rpc = new RpcServer({ ...RPC_DEFAULTS, clock: systemClock, logger: nullLogger, ...options });
    this.listener = createServer((socket) => this.rpc.handleConnection(socket));
  }

  static async start(options: Partial<RpcServerOptions> = {}): Promise<TestServer> {
    const server = new TestServer(options);
    await new Promise<void>((resolve) => server.listener.listen(0, "127.0.0.1", resolve));
    return server;
  }

  get port(): number {
    return (this.listener.address() as AddressInfo).port;
  }

  client(): GrpcClient {
    const client = new GrpcClient(`127.0.0.1:${this.port}`);
    this.clients.push(client);
    return client;
  }

  /** A connection with the preface and empty settings sent. */
  async connect(settings: readonly (readonly [number, number])[] = []): Promise<RawClient> {
    const client = await this.connectSilently();
    client.write(PREFACE, settingsFrame(settings));
    return client;
  }

  async connectSilently(): Promise<RawClient> {
    const client = await RawClient.connect(this.port);
    this.raw.push(client);
    return client;
  }

  async stop(): Promise<void> {
    for (const client of this.clients) client.close();
    for (const client of this.raw) client.socket.destroy();
    this.listener.close();
    await this.rpc.close(0);
  }
}

const same = (bytes: Buffer): Buffer => bytes;

/** Messages are bytes, paths are plain strings. */
export class GrpcClient extends Client {
  constructor(address: string) {
    super(address, credentials.createInsecure(), {
      "grpc.max_receive_message_length": -1,
      "grpc.max_send_message_length": -1,
    });
  }

  call(path: string, message: Uint8Array, metadata?: Metadata, deadlineMs?: number): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const options = deadlineMs === undefined ? {} : { deadline: Date.now() + deadlineMs };
      const done = (error: ServiceError | null, reply?: Buffer): void => (error ? reject(error) : resolve(reply!));
      if (metadata === undefined) this.makeUnaryRequest(path, same, same, Buffer.from(message), options, done);
      else this.makeUnaryRequest(path, same, same, Buffer.from(message), metadata, options, done);
    });
  }

  stream(path: string): ClientDuplexStream<Buffer, Buffer> {
    return this.makeBidiStreamRequest(path, same, same);
  }
}

export interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly id: number;
  readonly payload: Buffer;
}

/** Reads frames as they arrive and writes what it is told, valid or not. */
export class RawClient {
  readonly socket: Socket;
  readonly frames: Frame[] = [];
  closed = false;
  #rest = Buffer.alloc(0);
  #waiters: (() => void)[] = [];
  #decoder = new HpackDecoder();

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on("data", (chunk) => this.#read(chunk));
    socket.on("error", () => {});
    socket.on("close", () => {
      this.closed = true;
      this.#wake();
    });
  }

  static connect(port: number): Promise<RawClient> {
    return new Promise((resolve, reject) => {
      const socket = connect(port, "127.0.0.1", () => resolve(new RawClient(socket)));
      socket.once("error", reject);
    });
  }

  write(...parts: Uint8Array[]): void {
    if (!this.socket.destroyed) this.socket.write(Buffer.concat(parts));
  }

  /** Waits until `test` returns something other than undefined for the received frames. */
  async until<T>(test: () => T | undefined | false, what: string): Promise<T> {
    const deadline = setTimeout(() => {
      this.socket.destroy();
      this.#wake();
    }, patience(10_000));
    try {
      for (;;) {
        const result = test();
        if (result !== undefined && result !== false) return result;
        if (this.closed) throw new Error(`connection closed before ${what}; got ${this.#summary()}`);
        await new Promise<void>((resolve) => this.#waiters.push(resolve));
      }
    } finally {
      clearTimeout(deadline);
    }
  }

  frame(type: number, id?: number): Promise<Frame> {
    return this.until(
      () => this.frames.find((frame) => frame.type === type && (id === undefined || frame.id === id)),
      `a frame of type ${type}`,
    );
  }

  /** The GOAWAY with its code and text. */
  async goaway(): Promise<{ lastStreamId: number; code: number; text: string }> {
    const { payload } = await this.frame(FrameType.goaway);
    return {
      lastStreamId: payload.readUInt32BE(0),
      code: payload.readUInt32BE(4),
      text: payload.subarray(8).toString("latin1"),
    };
  }

  async reset(id: number): Promise<number> {
    return (await this.frame(FrameType.rstStream, id)).payload.readUInt32BE(0);
  }

  async ended(): Promise<void> {
    await this.until(() => this.closed, "its end");
  }

  /** A ping that the server answers shows that everything before it was processed. */
  async settled(): Promise<void> {
    const mark = Buffer.from(String(Math.random()).slice(2, 10).padEnd(8, "0"));
    this.write(frame(FrameType.ping, 0, 0, mark));
    await this.until(
      () => this.frames.some((f) => f.type === FrameType.ping && f.payload.equals(mark)),
      "a ping's answer",
    );
  }

  /** Header blocks were decoded on arrival: the list carried by the n-th HEADERS frame of a stream. */
  headers(id: number, nth = 0): Record<string, string> | undefined {
    return this.#headers.get(id)?.[nth];
  }

  readonly #headers = new Map<number, Record<string, string>[]>();

  /** All data of a stream so far. */
  data(id: number): Buffer {
    return Buffer.concat(
      this.frames.filter((frame) => frame.type === FrameType.data && frame.id === id).map((frame) => frame.payload),
    );
  }

  async ofStream(
    id: number,
  ): Promise<{ headers: Record<string, string>; data: Buffer; trailers: Record<string, string> }> {
    await this.until(
      () => this.frames.some((frame) => frame.id === id && frame.type <= 1 && (frame.flags & Flag.endStream) !== 0),
      `the end of stream ${id}`,
    );
    return { headers: this.headers(id) ?? {}, data: this.data(id), trailers: this.headers(id, 1) ?? {} };
  }

  #read(chunk: Buffer): void {
    this.#rest = Buffer.concat([this.#rest, chunk]);
    while (this.#rest.length >= 9) {
      const length = this.#rest.readUIntBE(0, 3);
      if (this.#rest.length < 9 + length) break;
      const frame = {
        type: this.#rest[3]!,
        flags: this.#rest[4]!,
        id: this.#rest.readUInt32BE(5) & 0x7fffffff,
        payload: this.#rest.subarray(9, 9 + length),
      };
      this.#rest = this.#rest.subarray(9 + length);
      this.frames.push(frame);
      if (frame.type === FrameType.headers || frame.type === FrameType.continuation) this.#decode(frame);
    }
    this.#wake();
  }

  #block = Buffer.alloc(0);

  #decode(frame: Frame): void {
    this.#block = Buffer.concat([this.#block, frame.payload]);
    if ((frame.flags & Flag.endHeaders) === 0) return;
    const fields: HeaderField[] = [];
    this.#decoder.decode(this.#block, 0, this.#block.length, fields, 1 << 20);
    this.#block = Buffer.alloc(0);
    const lists = this.#headers.get(frame.id) ?? [];
    lists.push(Object.fromEntries(fields.map((field) => [field.name, field.value])));
    this.#headers.set(frame.id, lists);
  }

  #wake(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const wake of waiters) wake();
  }

  #summary(): string {
    return this.frames
      .map((f) => `${f.type}/${f.flags}@${f.id}:${f.payload.toString("hex").slice(0, 60)}`)
      .join(" ")
      .slice(-2000);
  }
}

export function frame(type: number, flags: number, id: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const out = Buffer.alloc(9 + payload.length);
  out.writeUIntBE(payload.length, 0, 3);
  out[3] = type;
  out[4] = flags;
  out.writeUInt32BE(id, 5);
  out.set(payload, 9);
  return out;
}

export function settingsFrame(pairs: readonly (readonly [number, number])[]): Buffer {
  const payload = Buffer.alloc(pairs.length * 6);
  pairs.forEach(([name, value], i) => {
    payload.writeUInt16BE(name, i * 6);
    payload.writeUInt32BE(value, i * 6 + 2);
  });
  return frame(FrameType.settings, 0, 0, payload);
}

export function uint32(value: number): Buffer {
  const out = Buffer.alloc(4);
  out.writeUInt32BE(value);
  return out;
}

/** HPACK literals without indexing; lengths up to 2^21. */
export function block(fields: readonly (readonly [string, string])[]): Buffer {
  const out: number[] = [];
  const string = (text: string): void => {
    let { length } = text;
    if (length < 127) out.push(length);
    else {
      out.push(127);
      for (length -= 127; length >= 128; length >>>= 7) out.push((length & 127) | 128);
      out.push(length);
    }
    for (const char of Buffer.from(text, "latin1")) out.push(char);
  };
  for (const [name, value] of fields) {
    out.push(0);
    string(name);
    string(value);
  }
  return Buffer.from(out);
}

export function grpcHead(path: string, more: readonly (readonly [string, string])[] = []): Buffer {
  return block([
    [":method", "POST"],
    [":scheme", "http"],
    [":path", path],
    [":authority", "test"],
    ["content-type", "application/grpc"],
    ["te", "trailers"],
    ...more,
  ]);
}

/** A gRPC message with its prefix. */
export function message(bytes: Uint8Array | string, flag = 0): Buffer {
  const body = Buffer.from(bytes as Uint8Array);
  const out = Buffer.alloc(5 + body.length);
  out[0] = flag;
  out.writeUInt32BE(body.length, 1);
  out.set(body, 5);
  return out;
}

/** Bytes as data frames of valid size, the last with END_STREAM. */
export function dataFrames(id: number, bytes: Uint8Array): Buffer {
  const out: Buffer[] = [];
  for (let at = 0; at === 0 || at < bytes.length; at += 16384) {
    const flags = at + 16384 >= bytes.length ? Flag.endStream : 0;
    out.push(frame(FrameType.data, flags, id, bytes.subarray(at, at + 16384)));
  }
  return Buffer.concat(out);
}

/** A whole unary call as frames. */
export function unaryCall(id: number, path: string, body: Uint8Array | string): Buffer {
  return Buffer.concat([frame(FrameType.headers, Flag.endHeaders, id, grpcHead(path)), dataFrames(id, message(body))]);
}

/** Waits for a condition in the test's own process. */
export async function eventually(test: () => boolean, what: string): Promise<void> {
  const deadline = Date.now() + patience(10_000);
  while (!test()) {
    if (Date.now() > deadline) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/**
 * Makes a call that is to pass its deadline in its handler, with longer deadlines until it gets there: a busy machine may
 * not bring it so far within a short one. `outcome` is how that call fails.
 */
export async function reachedCall<E>(
  call: (deadlineMs: number) => Promise<E>,
  isReached: () => boolean,
): Promise<{ readonly outcome: Promise<E> }> {
  for (let deadlineMs = 100; ; deadlineMs *= 2) {
    let isOver = false;
    const outcome = call(deadlineMs);
    void outcome.then(() => (isOver = true));
    await eventually(() => isReached() || isOver, "the call");
    if (isReached()) return { outcome };
  }
}

/** Time that the test advances. */
export class ManualClock implements Clock {
  #nowMs = 1000;
  #timers: { atMs: number; callback: () => void; periodMs: number | undefined }[] = [];

  nowMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return this.#nowMs;
  }

  after(delayMs: number, callback: () => void): Timer {
    return this.#add({ atMs: this.#nowMs + delayMs, callback, periodMs: undefined });
  }

  every(periodMs: number, callback: () => void): Timer {
    return this.#add({ atMs: this.#nowMs + periodMs, callback, periodMs });
  }

  defer(callback: () => void): void {
    setImmediate(callback);
  }

  get timers(): number {
    return this.#timers.length;
  }

  advance(ms: number): void {
    const end = this.#nowMs + ms;
    for (;;) {
      const next = this.#timers.filter((timer) => timer.atMs <= end).sort((a, b) => a.atMs - b.atMs)[0];
      if (next === undefined) break;
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      if (next.periodMs === undefined) this.#timers = this.#timers.filter((timer) => timer !== next);
      else next.atMs += next.periodMs;
      next.callback();
    }
    this.#nowMs = end;
  }

  #add(timer: { atMs: number; callback: () => void; periodMs: number | undefined }): Timer {
    this.#timers.push(timer);
    return {
      cancel: () => {
        this.#timers = this.#timers.filter((each) => each !== timer);
      },
    };
  }
}
