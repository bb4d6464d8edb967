/**
 * All watches of a client on one stream. When the stream ends, for whatever reason, each watch is created again on
 * another one, from the first revision that it has not received. So nothing is lost or repeated.
 */
import type { Timer } from "../base/clock.ts";
import { Code } from "../base/grpc-codes.ts";
import { WatchCreateRequest, WatchRequest, type WatchResponse, WatchService } from "../proto/etcdserverpb.ts";
import type { Caller } from "./caller.ts";
import type { KeyRange, Space } from "./keys.ts";
import { ClientClosedError } from "./options.ts";
import { RpcError } from "./rpc-error.ts";
import type { StreamCall } from "./stream-call.ts";
import { type Subscriber, Watcher, type WatchHub, type WatchOptions } from "./watcher.ts";

const RETRY_FIRST_MS = 20;
const RETRY_MAX_MS = 2000;
/** The pseudo id of answers that concern all watches of a stream. */
const ALL = -1;
/** Refusals that a new token may end. */
const TOKEN_REFUSALS = /invalid auth token|revision of auth store is old|user name is empty/;

export interface WatchesOptions {
  /** Watches in the name of somebody else. */
  readonly token?: string | undefined;
  /** The stream ended; another one is opened. */
  readonly onInterrupted?: (error: unknown) => void;
}

export class Watches implements WatchHub {
  readonly #caller: Caller;
  readonly #options: WatchesOptions;
  readonly #watchers = new Set<Subscriber>();
  /** By the ids of the present stream. */
  readonly #byId = new Map<number, Subscriber>();
  /** Asked for on the present stream, in order: the server answers in that order. */
  #asked: (Subscriber | undefined)[] = [];
  #stream: StreamCall<WatchRequest, WatchResponse> | undefined;
  #retry: Timer | undefined;
  #failures = 0;

  constructor(caller: Caller, options: WatchesOptions = {}) {
    this.#caller = caller;
    this.#options = options;
  }

  watch<V, K>(space: Space<V, K>, range: KeyRange, options: WatchOptions): Watcher<V, K> {
    const watcher = new Watcher(this, space, range, options);
    if (this.#caller.closed) watcher.fail(new ClientClosedError());
    if (!watcher.isOver) this.add(watcher);
    return watcher;
  }

  /** Whether nothing is watched. */
  get isEmpty(): boolean {
    return this.#watchers.size === 0;
  }

  add(watcher: Subscriber): void {
    this.#watchers.add(watcher);
    if (this.#retry === undefined) this.#create(watcher);
  }

  remove(watcher: Subscriber): void {
    this.#watchers.delete(watcher);
    this.#takeOff(watcher);
    if (this.#watchers.size > 0) return;
    this.#retry?.cancel();
    this.#retry = undefined;
    this.#stream?.cancel();
    this.#forgetStream();
  }

  park(watcher: Subscriber): void {
    watcher.isParked = true;
    this.#takeOff(watcher);
    watcher.interrupted();
  }

  unpark(watcher: Subscriber): void {
    watcher.isParked = false;
    if (this.#watchers.has(watcher) && this.#stream !== undefined) this.#create(watcher);
  }

  requestProgress(): void {
    this.#stream?.send(WatchRequest.create({ progressRequest: {} }));
  }

  /** For the client: ends all watches. */
  close(reason: Error = new ClientClosedError()): void {
    for (const watcher of [...this.#watchers]) watcher.fail(reason);
  }

  #create(watcher: Subscriber): void {
    const { span, options, nextRevision } = watcher;
    this.#asked.push(watcher);
    this.#open().send(
      WatchRequest.create({
        createRequest: WatchCreateRequest.create({
          ...span,
          startRevision: nextRevision,
          // Moves a quiet watch on, so that it can be resumed after a compaction.
          progressNotify: true,
          fragment: true,
          prevKv: options.previous ?? false,
          filters: options.without === undefined ? [] : [options.without === "put" ? 0 : 1],
        }),
      }),
    );
  }

  #takeOff(watcher: Subscriber): void {
    const { watchId } = watcher;
    if (watchId !== undefined) {
      this.#byId.delete(watchId);
      watcher.watchId = undefined;
      this.#stream?.send(WatchRequest.create({ cancelRequest: { watchId } }));
    } else {
      const at = this.#asked.indexOf(watcher);
      if (at >= 0) this.#asked[at] = undefined;
    }
  }

  #open(): StreamCall<WatchRequest, WatchResponse> {
    if (this.#stream !== undefined) return this.#stream;
    const stream = this.#caller.stream<WatchRequest, WatchResponse>(
      WatchService.Watch,
      {
        onMessage: (response) => {
          if (this.#stream === stream) this.#onResponse(response);
        },
        onEnd: (error) => {
          if (this.#stream === stream || this.#stream === undefined) this.#onEnd(error);
        },
      },
      { requireLeader: true, token: this.#options.token },
    );
    this.#stream = stream;
    return stream;
  }

  #onResponse(response: WatchResponse): void {
    const revision = response.header?.revision ?? 0;
    if (response.created) return this.#onCreated(response, revision);
    if (response.watchId === ALL && !response.canceled) {
      for (const watcher of this.#byId.values()) watcher.progressed(revision, false);
      return;
    }
    const watcher = this.#byId.get(response.watchId);
    if (watcher === undefined) return;
    if (response.canceled) return this.#onCanceled(watcher, response);
    if (response.events.length > 0 || response.fragment) watcher.received(response.events, response.fragment);
    else watcher.progressed(revision, true);
  }

  #onCreated(response: WatchResponse, revision: number): void {
    const watcher = this.#asked.shift();
    this.#failures = 0;
    if (watcher === undefined) {
      // Closed meanwhile.
      if (!response.canceled) this.#stream?.send(WatchRequest.create({ cancelRequest: { watchId: response.watchId } }));
      return;
    }
    if (response.canceled) return this.#onCanceled(watcher, response);
    watcher.watchId = response.watchId;
    this.#byId.set(response.watchId, watcher);
    watcher.created(revision);
    if (watcher.isBehind) this.requestProgress();
  }

  #onCanceled(watcher: Subscriber, { watchId, compactRevision, cancelReason }: WatchResponse): void {
    this.#byId.delete(watchId);
    watcher.interrupted();
    if (compactRevision > 0) return watcher.compacted(compactRevision);
    if (this.#caller.tokens !== undefined && TOKEN_REFUSALS.test(cancelReason)) {
      this.#caller.tokens.forget();
      this.#stream?.cancel();
      return this.#onEnd(new RpcError(Code.UNAUTHENTICATED, cancelReason));
    }
    const code = /permission denied/.test(cancelReason) ? Code.PERMISSION_DENIED : Code.CANCELED;
    watcher.fail(new RpcError(code, cancelReason === "" ? "the server cancelled the watch" : cancelReason));
  }

  /** Creates all again on another stream, soon. */
  #onEnd(error: unknown): void {
    this.#forgetStream();
    if (this.#caller.closed) return this.close();
    if (this.#watchers.size === 0) return;
    this.#options.onInterrupted?.(error);
    if (error instanceof RpcError && error.code === Code.UNIMPLEMENTED) {
      for (const watcher of [...this.#watchers]) watcher.fail(error);
      return;
    }
    const { clock, random } = this.#caller;
    const pauseMs = Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** Math.min(this.#failures++, 10));
    this.#retry?.cancel();
    this.#retry = clock.after(pauseMs / 2 + random.below(Math.ceil(pauseMs / 2)), () => {
      this.#retry = undefined;
      for (const watcher of this.#watchers) if (!watcher.isParked) this.#create(watcher);
    });
  }

  #forgetStream(): void {
    this.#stream = undefined;
    this.#byId.clear();
    this.#asked = [];
    for (const watcher of this.#watchers) watcher.interrupted();
  }
}
