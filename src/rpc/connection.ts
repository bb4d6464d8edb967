/**
 * One HTTP/2 connection (RFC 9113), server side, from the preface to the last call's end: what its streams may ask of it,
 * and how it ends. What a frame means is in incoming.ts. Frames are parsed in place in the read buffer; message bytes are
 * passed on as views of it. All replies of one turn are sent in one socket write.
 *
 * A peer that breaks the protocol gets the RFC's error. A peer that floods gets GOAWAY with ENHANCE_YOUR_CALM and the
 * reason, and the log a warning.
 */
import type { Timer } from "../base/clock.ts";
import { beginWork } from "../base/doing.ts";
import type { RpcSocket } from "./contract.ts";
import type { RpcCore } from "./core.ts";
import { FrameReader } from "./frame-reader.ts";
import { giveUpReplies, giveUpRequests } from "./giving-up.ts";
import { ABUSES, type Abuse, Earning, FloodGuard } from "./guard.ts";
import { HeldAccount } from "./held-bytes.ts";
import { Incoming } from "./incoming.ts";
import { Intake } from "./intake.ts";
import { Keepalive } from "./keepalive.ts";
import {
  CONNECTION_WINDOW,
  H2Error,
  HEADER_LIST_BYTES_MAX,
  Setting,
  STREAM_CREDIT_STEP,
  STREAM_WINDOW,
  WINDOW_DEFAULT,
} from "./protocol.ts";
import type { ReceivingStream } from "./receiving.ts";
import { Sender } from "./sender.ts";
import type { Stream } from "./stream.ts";
import { StreamTable } from "./stream-table.ts";

/** How long a connection ended by this side stays open for the peer to read what was sent last. */
const LINGER_MS = 10_000;
const LINGER_AFTER_ERROR_MS = 1000;
/** Streams of a lost connection ended in one turn. */
const DROPS_PER_TURN = 500;

export class Connection {
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
  readonly keepalive: Keepalive;
  /** New streams are refused; the connection ends with the last of those that are open. */
  isDraining = false;

  readonly #streams = new StreamTable();
  readonly #reader: FrameReader;
  readonly #intake: Intake;
  #reading = false;
  #isReported = false;
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
    this.requests = new HeldAccount(core.heldRequests, (bytes) => giveUpRequests(this, this.#streams.open, bytes));
    this.replies = new HeldAccount(core.heldReplies, (bytes) => giveUpReplies(this, this.#streams.open, bytes));
    this.sender = new Sender(this, core.chunks);
    this.keepalive = new Keepalive(this, core);
    this.#intake = new Intake(this);
    this.#reader = new FrameReader(new Incoming(this, this.#streams));
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
    return this.#streams.size === 0 ? this.keepalive.lastReadMs : Number.POSITIVE_INFINITY;
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
    this.#streams.delete(stream);
    if (!stream.remoteClosed) {
      this.#streams.earlyClosed.add(stream.id, stream.receiveWindow);
      this.sender.reset(stream.id, H2Error.none);
    }
    this.guard.earn(Earning.callDone);
    if (this.isDraining && this.#streams.size === 0) this.#end();
  }

  /** Ends a stream with an HTTP/2 error. */
  resetStream(id: number, code: number): void {
    this.sender.reset(id, code);
    this.touch();
    const stream = this.#streams.get(id);
    // Of a refused stream, all that its window allows may be on its way.
    if (stream === undefined) this.#streams.earlyClosed.add(id, code === H2Error.refusedStream ? STREAM_WINDOW : 0);
    else {
      this.#streams.earlyClosed.add(id, stream.receiveWindow);
      this.drop(stream);
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
    if (this.isDraining || this.#ended || this.closed) return;
    this.isDraining = true;
    this.sender.goaway(this.#streams.lastId, H2Error.none, "");
    this.sender.flush();
    if (this.#streams.size === 0) this.#end();
  }

  /** Closes an idle connection to make room: the client can reconnect. */
  closeIdle(): void {
    this.sender.goaway(this.#streams.lastId, H2Error.none, "too many connections: this one was idle");
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
    this.sender.goaway(this.#streams.lastId, code, reason);
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
    this.keepalive.stop();
    this.sender.close();
    this.#dropAll();
  }

  /** Ends all calls, a limited number per turn. A connection is over when it has no calls. */
  #dropAll(): void {
    let dropped = 0;
    for (const stream of this.#streams.open.values()) {
      if (dropped++ === DROPS_PER_TURN) return this.core.clock.defer(() => this.#dropAll());
      this.drop(stream);
    }
    if (!this.closed || this.#isReported) return;
    this.#isReported = true;
    this.#onOver();
  }

  /** Ends a stream that can have no answer any more. */
  drop(stream: Stream): void {
    this.#streams.delete(stream);
    stream.remoteClosed = true;
    stream.localClosed = true;
    this.sender.forget(stream);
    stream.onReset();
    if (this.isDraining && this.#streams.size === 0) this.#end();
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
    this.keepalive.lastReadMs = this.nowMs;
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

  /** Asked after each frame: whether to read the next one now. */
  goesOn(): boolean {
    return this.#intake.goesOn(this.#eager.length) && !this.#ended && !this.closed;
  }

  #startEager(): void {
    const calls = this.#eager;
    this.#eager = [];
    for (const call of calls) call.start();
  }
}
