/**
 * One watch: delivers every event of its range once and in order, over all connections and members, and keeps no more than
 * a bounded number of events for a reader that is slow.
 */
import type { Event } from "../proto/mvccpb.ts";
import type { KeyRange, Space, Span } from "./keys.ts";
import type { CallOptions } from "./options.ts";
import { sizeOf, type WatchBatch, WatchCompactedError, type WatchEvent, watchEvent } from "./watch-events.ts";

/** From where on, and what, a watch sees. */
export interface WatchOptions extends Pick<CallOptions, "signal"> {
  /** The first revision to see; what happens after now when absent. */
  readonly revision?: number;
  /** Gives the pair before each event. */
  readonly previous?: boolean;
  /** Leaves out writes, or deletions. */
  readonly without?: "put" | "delete";
  /** Told when a server has this watch, and when the stream is interrupted; it goes on by itself on the next one. */
  readonly onConnection?: (connected: boolean) => void;
}

/** A watcher as the hub sees it. */
export interface Subscriber {
  readonly span: Span;
  readonly options: WatchOptions;
  /** The first revision whose events were not received yet; 0 until the server has created a watch from now on. */
  readonly nextRevision: number;
  /** On the present stream. */
  watchId: number | undefined;
  /** Its reader is slow, and the server keeps its events. */
  isParked: boolean;
  /** The past is still being read. */
  readonly isBehind: boolean;
  /** The server has created the watch, when this revision was the newest. */
  created(revision: number): void;
  received(events: readonly Event[], isFragment: boolean): void;
  /** The server has sent everything up to this revision. `exactly`: of this watch, in order with its events. */
  progressed(revision: number, exactly: boolean): void;
  compacted(compactRevision: number): void;
  /** The stream is gone: a half-received revision comes again. */
  interrupted(): void;
  fail(error: unknown): void;
}

/** The part of the hub that a watcher uses. */
export interface WatchHub {
  /** Takes it off the server. */
  remove(watcher: Subscriber): void;
  /** Its reader is slow: the server keeps its events. */
  park(watcher: Subscriber): void;
  unpark(watcher: Subscriber): void;
  requestProgress(): void;
}

/** Bytes waiting for the reader above which the server keeps the rest, and below which it sends again. */
const WAITING_HIGH_BYTES = 8 * 1024 * 1024;
const WAITING_LOW_BYTES = 1024 * 1024;

interface Queued<V, K> {
  readonly batch: WatchBatch<V, K>;
  readonly bytes: number;
}

/**
 * Iterate it once, by events or by `batches`. Leaving the loop, the signal, `close` and `await using` end the watch.
 *
 * @example
 * for await (const event of client.watch({ prefix: "jobs/" })) {
 *   if (event.type === "put") console.log(event.key, event.kv.value);
 *   else console.log(event.key, "is gone");
 * }
 */
export class Watcher<V, K> implements AsyncIterable<WatchEvent<V, K>>, Subscriber {
  readonly span: Span;
  readonly options: WatchOptions;
  /** The first revision whose events were not received yet; 0 until the server has created a watch from now on. */
  nextRevision: number;
  /** On the present stream. */
  watchId: number | undefined;
  isParked = false;

  readonly #hub: WatchHub;
  readonly #space: Space<V, K>;
  #queue: Queued<V, K>[] = [];
  #queuedBytes = 0;
  #fragments: Event[] = [];
  #wake: (() => void) | undefined;
  #failure: { readonly error: unknown } | undefined;
  #isClosed = false;
  #isConnected = false;
  /** The revision that was the newest when the watch was created. */
  #goalRevision: number | undefined;
  #isCaughtUp = false;
  #resolveReady: (revision: number) => void = () => {};
  #rejectReady: (error: unknown) => void = () => {};
  readonly #ready = new Promise<number>((resolve, reject) => {
    this.#resolveReady = resolve;
    this.#rejectReady = reject;
  });

  constructor(hub: WatchHub, space: Space<V, K>, range: KeyRange, options: WatchOptions) {
    this.#hub = hub;
    this.#space = space;
    this.span = space.span(range);
    this.options = options;
    this.nextRevision = options.revision ?? 0;
    // A failure is reported by the iteration too.
    this.#ready.catch(() => {});
    const { signal } = options;
    if (signal?.aborted) this.fail(signal.reason);
    else signal?.addEventListener("abort", this.#onAbort);
  }

  /**
   * The newest revision when the server had created the watch: whatever happens after it will be seen. Rejects when the
   * watch fails before.
   */
  get ready(): Promise<number> {
    return this.#ready;
  }

  /** It has ended: there is nothing to create again. */
  get isOver(): boolean {
    return this.#isClosed || this.#failure !== undefined;
  }

  /** Asks the server how far it is; the answer is a batch, perhaps without events. */
  requestProgress(): void {
    this.#hub.requestProgress();
  }

  /** Ends the watch. A loop over it ends after what has arrived. */
  close(): void {
    if (this.isOver) return;
    this.#isClosed = true;
    this.#ended();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }

  /** Event by event. */
  async *[Symbol.asyncIterator](): AsyncGenerator<WatchEvent<V, K>, void, undefined> {
    for await (const { events } of this.batches()) yield* events;
  }

  /** As they arrive, with the revision that has been reached. */
  async *batches(): AsyncGenerator<WatchBatch<V, K>, void, undefined> {
    try {
      for (;;) {
        const queued = this.#queue.shift();
        if (queued !== undefined) {
          this.#queuedBytes -= queued.bytes;
          if (this.isParked && !this.isOver && this.#queuedBytes <= WAITING_LOW_BYTES) this.#hub.unpark(this);
          yield queued.batch;
        } else if (this.#failure !== undefined) throw this.#failure.error;
        else if (this.#isClosed) return;
        else await new Promise<void>((resolve) => (this.#wake = resolve));
      }
    } finally {
      this.#queue = [];
      this.close();
    }
  }

  // ---- for the hub

  created(revision: number): void {
    if (this.nextRevision === 0) this.nextRevision = revision + 1;
    if (this.#goalRevision === undefined) {
      this.#goalRevision = revision;
      this.#resolveReady(revision);
      if (this.nextRevision > revision) this.#push([], this.nextRevision - 1, 0);
    }
    if (this.#isConnected) return;
    this.#isConnected = true;
    this.options.onConnection?.(true);
  }

  /** Whether the past is still being read. */
  get isBehind(): boolean {
    return !this.#isCaughtUp;
  }

  received(events: readonly Event[], isFragment: boolean): void {
    if (this.isOver) return;
    if (isFragment || this.#fragments.length > 0) {
      this.#fragments.push(...events);
      if (isFragment) return;
    }
    const all = this.#fragments.length > 0 ? this.#fragments : events;
    this.#fragments = [];
    const last = all.at(-1)?.kv?.modRevision;
    if (last === undefined || last < this.nextRevision) return;
    const fresh = all.filter(({ kv }) => (kv?.modRevision ?? 0) >= this.nextRevision);
    let bytes = 0;
    for (const event of fresh) bytes += sizeOf(event);
    let decoded: WatchEvent<V, K>[];
    try {
      decoded = fresh.map((event) => watchEvent(this.#space, event));
    } catch (error) {
      return this.fail(error);
    }
    this.nextRevision = last + 1;
    this.#push(decoded, last, bytes);
  }

  /** The server has sent everything up to this revision. `exactly`: of this watch, in order with its events. */
  progressed(revision: number, exactly: boolean): void {
    if (this.isOver || revision < this.nextRevision - 1) return;
    if (exactly) this.nextRevision = Math.max(this.nextRevision, revision + 1);
    this.#push([], revision, 0);
  }

  compacted(compactRevision: number): void {
    this.fail(new WatchCompactedError(compactRevision, this.nextRevision));
  }

  /** Forgets a half-received revision: it comes again. */
  interrupted(): void {
    this.watchId = undefined;
    this.#fragments = [];
    if (!this.#isConnected || this.isParked) return;
    this.#isConnected = false;
    if (!this.isOver) this.options.onConnection?.(false);
  }

  fail(error: unknown): void {
    if (this.isOver) return;
    this.#failure = { error };
    this.#rejectReady(error);
    this.#ended();
  }

  #push(events: readonly WatchEvent<V, K>[], revision: number, bytes: number): void {
    const caughtUp = !this.#isCaughtUp && this.#goalRevision !== undefined && revision >= this.#goalRevision;
    if (caughtUp) this.#isCaughtUp = true;
    const last = this.#queue.at(-1);
    // A slow reader must not gather marks without end.
    if (events.length === 0 && last !== undefined) {
      const batch = { events: last.batch.events, revision, caughtUp: caughtUp || last.batch.caughtUp };
      this.#queue[this.#queue.length - 1] = { batch, bytes: last.bytes };
      return;
    }
    this.#queue.push({ batch: { events, revision, caughtUp }, bytes });
    this.#queuedBytes += bytes;
    if (this.#queuedBytes > WAITING_HIGH_BYTES && !this.isParked) this.#hub.park(this);
    this.#notify();
  }

  #ended(): void {
    this.options.signal?.removeEventListener("abort", this.#onAbort);
    this.#hub.remove(this);
    this.#notify();
  }

  #notify(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }

  readonly #onAbort = (): void => this.fail(this.options.signal?.reason);
}
