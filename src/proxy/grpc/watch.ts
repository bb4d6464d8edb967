/** The service Watch of a proxy. Source: etcd v3.7, server/proxy/grpcproxy/watch.go. */

import { inBackground } from "../../base/background.ts";
import { Code } from "../../base/grpc-codes.ts";
import type { Logger } from "../../base/log.ts";
import { RpcError } from "../../client/rpc-error.ts";
import {
  type ResponseHeader,
  type WatchCreateRequest,
  WatchCreateRequest_FilterType,
  WatchRequest,
  WatchResponse,
  WatchService,
} from "../../proto/etcdserverpb.ts";
import type { RpcRegistry, StreamCall } from "../../rpc/contract.ts";
import type { Receiver } from "./broadcast.ts";
import { Broadcasts, type WatchPlace } from "./broadcasts.ts";
import { decode } from "./kv.ts";
import type { Namespace } from "./namespace.ts";
import { failWith, requiresLeader, TOO_MANY, tokenOf, type Upstream } from "./upstream.ts";
import { WatchChecks } from "./watch-checks.ts";

const NO_LEADER = "etcdserver: no leader";
const COMPACTED = "etcdserver: mvcc: required revision has been compacted";
/** Requests of one stream that wait for their permission, and their bytes; then the stream is not read on. */
const REQUESTS_MAX = 128;
const REQUEST_BYTES_MAX = 1024 * 1024;
/** From this size on, events are not copied for each watch. */
const SHARED_BYTES_MIN = 16 * 1024;

/** What clients may watch. */
export interface WatchLimits {
  /** Watches of one stream; a member has the same limit. */
  readonly ofStreamMax: number;
  /** Watches of all streams, and the bytes of their ranges. */
  readonly watchesMax: number;
  readonly rangeBytesMax: number;
}

const LIMITS: WatchLimits = { ofStreamMax: 500_000, watchesMax: 2_000_000, rangeBytesMax: 256 * 1024 * 1024 };
/** The id in answers to requests that made no watch. */
const NO_WATCH = -1;

export interface WatchProxyOptions {
  readonly upstream: Upstream;
  readonly namespace: Namespace;
  readonly logger: Logger;
  readonly limits?: WatchLimits;
}

export class WatchProxy {
  readonly options: WatchProxyOptions;
  readonly broadcasts: Broadcasts;
  readonly checks: WatchChecks;
  readonly limits: WatchLimits;
  watches = 0;
  rangeBytes = 0;
  readonly #streams = new Set<ProxyStream>();

  constructor(options: WatchProxyOptions) {
    this.options = options;
    const { upstream, namespace } = options;
    this.limits = options.limits ?? LIMITS;
    this.checks = new WatchChecks(upstream);
    this.broadcasts = new Broadcasts({ upstream, namespace, onInterrupted: (error) => this.#interrupted(error) });
  }

  register(rpc: RpcRegistry): void {
    rpc.stream(WatchService.Watch.path, (call) => {
      const stream = new ProxyStream(this, call, () => this.#streams.delete(stream));
      this.#streams.add(stream);
    });
  }

  /** Clients that asked for it are told that their member has no leader. */
  #interrupted(error: unknown): void {
    if (!(error instanceof RpcError) || error.details !== NO_LEADER) return;
    for (const stream of [...this.#streams]) stream.lostLeader();
  }
}

interface Asked {
  readonly request: WatchRequest;
  readonly bytes: number;
  /** Why there will be no watch. */
  refusal: string | undefined;
  /** Of the read that showed that the client may watch. */
  header: ResponseHeader | undefined;
  isReady: boolean;
}

/** One Watch call of a client. */
class ProxyStream {
  readonly #proxy: WatchProxy;
  readonly #call: StreamCall;
  readonly #onEnd: () => void;
  readonly #watches = new Map<number, ProxyWatch>();
  readonly #token: string | undefined;
  readonly #requiresLeader: boolean;
  #nextId = 0;
  /** Requests in their order: one is handled when those before it are, and its permission is known. */
  readonly #requests: Asked[] = [];
  #requestBytes = 0;
  #isFull = false;
  #isPaused = false;
  #isOver = false;

  constructor(proxy: WatchProxy, call: StreamCall, onEnd: () => void) {
    this.#proxy = proxy;
    this.#call = call;
    this.#onEnd = onEnd;
    this.#token = tokenOf(call);
    this.#requiresLeader = requiresLeader(call);
    call.onMessage = (message) => this.#receive(message);
    call.onDrain = () => this.#drained();
    call.onCancel = () => this.#close();
    call.onHalfClose = () => {
      this.#close();
      call.end();
    };
  }

  lostLeader(): void {
    if (!this.#requiresLeader) return;
    this.#close();
    this.#call.fail(Code.UNAVAILABLE, NO_LEADER);
  }

  #receive(message: Uint8Array): void {
    let asked: Asked;
    try {
      const request = decode(WatchRequest, message);
      asked = { request, bytes: message.length, refusal: undefined, header: undefined, isReady: true };
    } catch (error) {
      this.#close();
      return failWith(this.#call, error);
    }
    this.#requests.push(asked);
    this.#requestBytes += asked.bytes;
    const { createRequest } = asked.request;
    if (createRequest !== undefined) this.#prepare(asked, createRequest);
    if (this.#requests.length >= REQUESTS_MAX || this.#requestBytes >= REQUEST_BYTES_MAX) this.#pause();
    this.#handle();
  }

  #handle(): void {
    while (this.#requests[0]?.isReady === true && !this.#isOver) {
      const { request, bytes, refusal, header } = this.#requests.shift()!;
      this.#requestBytes -= bytes;
      if (request.createRequest !== undefined) {
        if (refusal === undefined) this.#begin(request.createRequest, header);
        else this.#refuse(refusal);
      } else if (request.cancelRequest !== undefined) this.#cancel(request.cancelRequest.watchId);
      else if (request.progressRequest !== undefined) this.#progress();
    }
    if (this.#requests.length === 0 && !this.#isOver) this.#resume();
  }

  #prepare(asked: Asked, request: WatchCreateRequest): void {
    const { key, rangeEnd, startRevision } = request;
    const isAll = rangeEnd.length === 1 && rangeEnd[0] === 0;
    if (startRevision < 0) asked.refusal = COMPACTED;
    else if (rangeEnd.length > 0 && !isAll && Buffer.compare(rangeEnd, key) <= 0) asked.refusal = "";
    if (asked.refusal !== undefined) return;
    asked.isReady = false;
    const { namespace, logger } = this.#proxy.options;
    const span = key.length === 0 && namespace.isEmpty ? { key: ZERO, rangeEnd: ZERO } : namespace.span(key, rangeEnd);
    const done = this.#proxy.checks
      .ask(span, this.#token)
      .then(
        (header) => {
          asked.header = header;
        },
        (error: unknown) => {
          asked.refusal = reasonOf(error);
        },
      )
      .then(() => {
        asked.isReady = true;
        this.#handle();
      });
    inBackground(done, "create a watch", logger);
  }

  #begin(request: WatchCreateRequest, header: ResponseHeader | undefined): void {
    if (this.#isOver) return;
    const id = request.watchId !== 0 ? request.watchId : this.#freeId();
    if (this.#watches.has(id)) return this.#refuse("etcdserver: duplicate watch ID provided on the WatchStream");
    const refusal = this.#tooMany(request);
    if (refusal !== undefined) return this.#refuse(refusal);
    const isFromNow = request.startRevision === 0;
    const span = this.#proxy.options.namespace.span(request.key, request.rangeEnd);
    const bytes = span.key.length + span.rangeEnd.length;
    const watch = new ProxyWatch(id, request, header, (header?.revision ?? 0) + 1, {
      broadcasts: this.#proxy.broadcasts,
      place: { span, token: this.#token },
      send: (head, events) => this.#send(head, events),
      onEnd: () => {
        if (!this.#watches.delete(id)) return;
        this.#proxy.watches--;
        this.#proxy.rangeBytes -= bytes;
      },
    });
    this.#watches.set(id, watch);
    this.#proxy.watches++;
    this.#proxy.rangeBytes += bytes;
    watch.begin(isFromNow);
  }

  #tooMany({ key, rangeEnd }: WatchCreateRequest): string | undefined {
    const { limits, watches, rangeBytes, broadcasts } = this.#proxy;
    const { ofStreamMax, watchesMax, rangeBytesMax } = limits;
    if (this.#watches.size >= ofStreamMax)
      return `mvcc: a WatchStream cannot have more than ${ofStreamMax} watchers: open another one`;
    const isFull = watches >= watchesMax || rangeBytes + key.length + rangeEnd.length > rangeBytesMax;
    return isFull || !broadcasts.mayBegin(this.#token) ? TOO_MANY : undefined;
  }

  #freeId(): number {
    while (this.#watches.has(this.#nextId)) this.#nextId++;
    return this.#nextId++;
  }

  #cancel(id: number): void {
    const watch = this.#watches.get(id);
    if (watch === undefined) return;
    watch.close();
    this.#send(WatchResponse.encode(WatchResponse.create({ header: watch.header(), watchId: id, canceled: true })));
  }

  /** Each watch tells by itself how far it is: there is no revision that all have reached. */
  #progress(): void {
    let revision = Number.POSITIVE_INFINITY;
    for (const watch of this.#watches.values()) revision = Math.min(revision, watch.nextRevision - 1);
    const [first] = this.#watches.values();
    if (first === undefined || !Number.isFinite(revision)) return;
    const header = { ...first.header(), revision };
    this.#send(WatchResponse.encode(WatchResponse.create({ header, watchId: NO_WATCH })));
  }

  #refuse(cancelReason: string): void {
    const response = { header: HEADER, watchId: NO_WATCH, created: true, canceled: true, cancelReason };
    this.#send(WatchResponse.encode(WatchResponse.create(response)));
  }

  /**
   * Sends a response, whose fields `events` may be shared with other streams: they come after those of `head`. False when
   * the client reads too slowly: its watches wait.
   */
  #send(head: Uint8Array, events: Buffer = NO_EVENTS): boolean {
    if (this.#isOver || this.#write(head, events)) return !this.#isOver;
    this.#pause();
    this.#isFull = true;
    for (const watch of this.#watches.values()) watch.park();
    return false;
  }

  #write(head: Uint8Array, events: Buffer): boolean {
    if (events.length === 0) return this.#call.send(head);
    if (events.length < SHARED_BYTES_MIN) return this.#call.send(joined(head, events));
    this.#call.beginMessage(head.length + events.length);
    if (this.#call.cancelled) return true;
    this.#call.writePiece(Buffer.from(head));
    return this.#call.writePiece(events);
  }

  #drained(): void {
    if (!this.#isFull || this.#isOver) return;
    this.#isFull = false;
    for (const watch of [...this.#watches.values()]) if (!this.#isFull) watch.unpark();
    if (this.#requests.length === 0) this.#resume();
  }

  #pause(): void {
    if (this.#isPaused) return;
    this.#isPaused = true;
    this.#call.pauseReading();
  }

  #resume(): void {
    if (!this.#isPaused || this.#isFull) return;
    this.#isPaused = false;
    this.#call.resumeReading();
  }

  #close(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#requests.length = 0;
    this.#requestBytes = 0;
    for (const watch of [...this.#watches.values()]) watch.close();
    this.#onEnd();
  }
}

interface ProxyWatchOptions {
  readonly broadcasts: Broadcasts;
  readonly place: WatchPlace;
  readonly send: (head: Uint8Array, events?: Buffer) => boolean;
  readonly onEnd: () => void;
}

/** One watch of a client. */
class ProxyWatch implements Receiver {
  nextRevision: number;
  readonly prevKv: boolean;
  readonly withoutPuts: boolean;
  readonly withoutDeletes: boolean;
  readonly #id: number;
  readonly #wantsProgress: boolean;
  readonly #header: ResponseHeader;
  readonly #options: ProxyWatchOptions;
  #isParked = false;

  constructor(
    id: number,
    request: WatchCreateRequest,
    header: ResponseHeader | undefined,
    nowRevision: number,
    options: ProxyWatchOptions,
  ) {
    this.#id = id;
    this.nextRevision = request.startRevision === 0 ? nowRevision : request.startRevision;
    this.prevKv = request.prevKv;
    this.withoutPuts = request.filters.includes(WatchCreateRequest_FilterType.NOPUT);
    this.withoutDeletes = request.filters.includes(WatchCreateRequest_FilterType.NODELETE);
    this.#wantsProgress = request.progressNotify;
    this.#header = header ?? HEADER;
    this.#options = options;
  }

  begin(isFromNow: boolean): void {
    const { broadcasts, place, send } = this.#options;
    broadcasts.join(this, place, isFromNow);
    const revision = isFromNow ? this.nextRevision - 1 : Math.max(this.#header.revision, this.nextRevision - 1);
    const header = { ...this.#header, revision };
    send(WatchResponse.encode(WatchResponse.create({ header, watchId: this.#id, created: true })));
  }

  header(): ResponseHeader {
    return { ...this.#header, revision: Math.max(0, this.nextRevision - 1) };
  }

  /** The client reads too slowly: the cluster keeps its events. */
  park(): void {
    if (this.#isParked) return;
    this.#isParked = true;
    this.#options.broadcasts.leave(this);
  }

  unpark(): void {
    if (!this.#isParked) return;
    this.#isParked = false;
    this.#options.broadcasts.join(this, this.#options.place, false);
  }

  close(): void {
    this.#options.broadcasts.leave(this);
    this.#options.onEnd();
  }

  // ---- for its broadcast

  deliver(events: Buffer, revision: number): boolean {
    const head = WatchResponse.encode(
      WatchResponse.create({ header: { ...this.#header, revision }, watchId: this.#id }),
    );
    // The fields of a message may come in any order, so what is the same for all is appended.
    this.nextRevision = revision + 1;
    return this.#options.send(head, events);
  }

  progressed(revision: number): void {
    if (revision < this.nextRevision - 1) return;
    this.nextRevision = Math.max(this.nextRevision, revision + 1);
    if (!this.#wantsProgress) return;
    this.#options.send(
      WatchResponse.encode(WatchResponse.create({ header: { ...this.#header, revision }, watchId: this.#id })),
    );
  }

  compacted(compactRevision: number): void {
    this.#canceled({ compactRevision, cancelReason: COMPACTED });
  }

  failed(cancelReason: string): void {
    this.#canceled({ cancelReason });
  }

  #canceled(fields: Partial<WatchResponse>): void {
    this.close();
    const response = { header: this.header(), watchId: this.#id, canceled: true, ...fields };
    this.#options.send(WatchResponse.encode(WatchResponse.create(response)));
  }
}

const ZERO = Uint8Array.of(0);
const HEADER: ResponseHeader = { clusterId: 0n, memberId: 0n, revision: 0, raftTerm: 0 };

const NO_EVENTS = Buffer.alloc(0);

/** Both, until the next call: `send` copies what it gets. */
function joined(head: Uint8Array, events: Uint8Array): Uint8Array {
  scratch.set(head, 0);
  scratch.set(events, head.length);
  return scratch.subarray(0, head.length + events.length);
}

/** A head has a few numbers. */
const scratch = Buffer.allocUnsafeSlow(SHARED_BYTES_MIN + 256);

function reasonOf(error: unknown): string {
  return error instanceof RpcError ? error.details : String(error);
}
