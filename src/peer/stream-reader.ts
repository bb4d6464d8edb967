import type { Socket } from "node:net";
import type { Timer } from "../base/clock.ts";
import { ProtobufError } from "../base/protobuf.ts";
import type { Url } from "../config/values/url.ts";
import { formatId } from "../membership/member.ts";
import type { Message } from "../proto/raftpb.ts";
import { MEMBER_REMOVED, type PeerContext } from "./context.ts";
import { type FrameDecoder, type MessageSink, StreamError } from "./frame-decoder.ts";
import { CLUSTER_ID_MISMATCH, hasStreams, INCOMPATIBLE_VERSION, localHeaders } from "./headers.ts";
import type { PeerStatus } from "./peer-status.ts";
import { ResponseError, type ResponseEvents, type ResponseHead, ResponseParser } from "./response-parser.ts";
import type { StreamKind } from "./stream-kind.ts";
import { remoteText } from "./stream-writer.ts";
import type { UrlPicker } from "./url-picker.ts";

/** Minimum interval between attempts to open a stream; etcd's rate. */
const DIAL_INTERVAL_MS = 100;
/** For a response that refuses the stream. */
const REFUSAL_BYTES_MAX = 4096;

/** Opens the stream of one kind at a peer, reopens it whenever it breaks, and delivers its messages. */
export class StreamReader {
  readonly kind: StreamKind;
  readonly peerId: bigint;
  readonly context: PeerContext;
  readonly status: PeerStatus;
  readonly picker: UrlPicker;
  #attempt: Attempt | null = null;
  #timer: Timer | null = null;
  #allowedAtMs = 0;

  constructor(kind: StreamKind, peerId: bigint, context: PeerContext, status: PeerStatus, picker: UrlPicker) {
    this.kind = kind;
    this.peerId = peerId;
    this.context = context;
    this.status = status;
    this.picker = picker;
    context.logger.info("started stream reader with remote peer", this.fields());
    this.#dial();
  }

  stop(): void {
    this.#timer?.cancel();
    this.#timer = null;
    const attempt = this.#attempt;
    this.#attempt = null;
    attempt?.destroy();
    this.context.logger.info("stopped stream reader with remote peer", this.fields());
  }

  /** Called once, by the current attempt. */
  ended(attempt: Attempt): void {
    if (attempt !== this.#attempt) return;
    this.#attempt = null;
    const nowMs = this.context.clock.nowMs();
    const waitMs = Math.max(0, this.#allowedAtMs - nowMs);
    this.#allowedAtMs = nowMs + waitMs + DIAL_INTERVAL_MS;
    this.#timer = this.context.clock.after(waitMs, () => {
      this.#timer = null;
      this.#dial();
    });
  }

  fields(): Record<string, string> {
    return {
      "stream-reader-type": this.kind.name,
      "local-member-id": formatId(this.context.local.id),
      "remote-peer-id": formatId(this.peerId),
    };
  }

  #dial(): void {
    this.#attempt = new Attempt(this, this.picker.pick());
  }
}

/** False for errors inside this member. */
const isPeersFault = (error: unknown): error is Error =>
  error instanceof StreamError || error instanceof ProtobufError || error instanceof ResponseError;

/** One connection, from dialling to its end. */
class Attempt implements ResponseEvents, MessageSink {
  readonly #reader: StreamReader;
  readonly #url: Url;
  readonly #socket: Socket;
  readonly #parser = new ResponseParser(this);
  readonly #decoder: FrameDecoder;
  readonly #peer: string;
  #head: ResponseHead | null = null;
  #refusal = "";
  #established = false;
  #error: Error | undefined;
  #ended = false;
  #heardAtMs: number;
  #timeout: Timer | null = null;

  constructor(reader: StreamReader, url: Url) {
    const { context, kind, peerId } = reader;
    this.#reader = reader;
    this.#url = url;
    this.#peer = formatId(peerId);
    this.#decoder = kind.decoder(this, context.local.id, peerId);
    this.#heardAtMs = context.clock.nowMs();
    this.#socket = context.dialer.connect(url);
    if (context.logger.debugEnabled) {
      const address = `${url.text}${kind.path}${formatId(context.local.id)}`;
      context.logger.debug("dial stream reader", { from: formatId(context.local.id), to: this.#peer, address });
    }
    this.#socket.on("error", (error) => {
      this.#error ??= error;
    });
    this.#socket.on("close", () => this.#closed());
    this.#socket.on("data", (piece: Buffer) => this.#data(piece));
    this.#socket.on("end", () => this.#data(null));
    this.#socket.once("connect", () => this.#watchSilence());
    this.#socket.write(this.#request());
  }

  destroy(): void {
    this.#socket.destroy();
  }

  #request(): string {
    const { context, kind } = this.#reader;
    const headers = { Host: this.#url.host, ...localHeaders(context.local), "X-Raft-To": this.#peer };
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
    return `GET ${kind.path}${formatId(context.local.id)} HTTP/1.1\r\n${lines.join("")}\r\n`;
  }

  /** Ends a silent connection. Checks the time only occasionally, because there may be many reads. */
  #watchSilence(): void {
    const { clock, readTimeoutMs } = this.#reader.context;
    const silentMs = clock.nowMs() - this.#heardAtMs;
    if (silentMs >= readTimeoutMs) {
      this.#socket.destroy(new Error(`read tcp ${remoteText(this.#socket)}: i/o timeout`));
      return;
    }
    this.#timeout = clock.after(readTimeoutMs - silentMs, () => this.#watchSilence());
  }

  #data(piece: Buffer | null): void {
    if (this.#ended) return;
    this.#heardAtMs = this.#reader.context.clock.nowMs();
    try {
      if (piece === null) this.#parser.close();
      else this.#parser.push(piece);
    } catch (error) {
      if (!isPeersFault(error)) throw error;
      this.#socket.destroy(error);
    }
  }

  head(head: ResponseHead): void {
    this.#head = head;
    if (head.status !== 200) return;
    if (!hasStreams(head.headers.get("x-server-version"))) return this.destroy();
    this.#established = true;
    const { context, status } = this.#reader;
    status.activate();
    context.logger.info("established TCP streaming connection with remote peer", this.#reader.fields());
  }

  body(buf: Buffer, start: number, end: number): void {
    if (!this.#established) {
      if (this.#refusal.length < REFUSAL_BYTES_MAX) this.#refusal += buf.toString("utf8", start, end);
      return;
    }
    this.#reader.context.metrics.receivedBytes.add(this.#peer, end - start);
    this.#decoder.push(buf, start, end);
  }

  end(): void {
    this.#socket.destroy();
  }

  message(message: Message): void {
    const { context } = this.#reader;
    const problem = context.deliver(message);
    if (problem === undefined) return;
    context.metrics.receiveFailures.add(this.#peer, 1);
    context.logger.warn("failed to process Raft message", { "remote-peer-id": this.#peer, error: problem });
  }

  #closed(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#timeout?.cancel();
    const reader = this.#reader;
    const { status, kind, context } = reader;
    if (this.#established) {
      const error = this.#error?.message ?? "EOF";
      context.logger.warn("lost TCP streaming connection with remote peer", { ...reader.fields(), error });
      // A stream that the peer ended cleanly is reopened; only that shows whether the peer is there.
      if (this.#error !== undefined) status.deactivate(kind.name, "read", error);
    } else {
      reader.picker.unreachable(this.#url);
      const reason = this.#error?.message ?? this.#refused();
      if (reason !== undefined) status.deactivate(kind.name, "dial", reason);
    }
    reader.ended(this);
  }

  /** Why the response was not a stream; undefined for a peer without streams. */
  #refused(): string | undefined {
    const { context } = this.#reader;
    if (this.#head === null) return "EOF";
    const { status, headers } = this.#head;
    if (!hasStreams(headers.get("x-server-version"))) return undefined;
    switch (status) {
      case 410:
        context.reportRemoved();
        return MEMBER_REMOVED;
      case 404:
        return `peer ${this.#peer} failed to find local node ${formatId(context.local.id)}`;
      case 412:
        return this.#preconditionFailed(headers);
      default:
        return `unhandled http status ${status}`;
    }
  }

  #preconditionFailed(headers: ReadonlyMap<string, string>): string {
    const { logger, local } = this.#reader.context;
    const problem = this.#refusal.replace(/\n$/, "");
    const ids = { "remote-peer-id": this.#peer, "local-member-id": formatId(local.id) };
    if (problem === INCOMPATIBLE_VERSION) {
      const message = "request sent was ignored by remote peer due to server version incompatibility";
      logger.warn(message, { ...ids, error: problem });
    } else if (problem === CLUSTER_ID_MISMATCH) {
      logger.warn("request sent was ignored by remote peer due to cluster ID mismatch", {
        ...ids,
        "remote-peer-cluster-id": headers.get("x-etcd-cluster-id") ?? "",
        "local-member-cluster-id": formatId(local.clusterId),
        error: problem,
      });
    } else return `unhandled error ${JSON.stringify(this.#refusal)} when precondition failed`;
    return problem;
  }
}
