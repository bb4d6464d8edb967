import type { RangeRequest } from "../proto/etcdserverpb.ts";
import type { UnaryCall } from "../rpc/server.ts";
import { toEtcdError } from "../server/apply.ts";
import { type EtcdError, errors } from "../server/errors.ts";
import { rangeEndOf } from "../server/range.ts";
import type { EtcdServer } from "../server/server.ts";
import { failWith } from "./calls.ts";
import type { RangeReply } from "./range-reply.ts";

/** Keys read in one turn of the event loop: one to three milliseconds. */
const SLICE_KEYS = 1000;

/**
 * Answers a plain range in slices, each in a turn of its own, all at the revision of the first: whoever lists a million
 * keys does not hold up everyone else.
 */
export class SlicedRange {
  readonly #server: EtcdServer;
  readonly #call: UnaryCall;
  readonly #request: RangeRequest;
  readonly #reply: RangeReply;
  readonly #rangeEnd: Uint8Array | null;
  readonly #limit: number;
  #revision: number;
  /** Keys in the range; unknown until the end at a revision that is not the current one. */
  #count = 0;
  #countIsKnown = false;
  #added = 0;
  /** Keys seen behind the limit, where they are only counted. */
  #beyond = 0;
  #nextKey: Uint8Array;
  #restarts = 0;
  /** Revision of the auth store at which the caller might read this; 0 while everybody may. */
  readonly #authRevision: number;

  constructor(server: EtcdServer, call: UnaryCall, request: RangeRequest, reply: RangeReply) {
    this.#server = server;
    this.#call = call;
    this.#request = request;
    this.#reply = reply;
    this.#rangeEnd = rangeEndOf(request.rangeEnd);
    this.#limit = request.limit > 0 ? request.limit : Number.POSITIVE_INFINITY;
    this.#revision = request.revision;
    this.#nextKey = request.key;
    this.#authRevision = server.auth.enabled ? server.auth.revision : 0;
  }

  /** True when one turn is enough for any range of this kind. */
  static isShort(request: RangeRequest): boolean {
    return request.rangeEnd.length === 0 || request.countOnly || (request.limit > 0 && request.limit <= SLICE_KEYS);
  }

  /** Reads the first slice, and answers if it was all. True when more turns are needed: the reply then belongs to this. */
  start(): boolean {
    const { store } = this.#server;
    this.#reply.begin();
    if (this.#revision <= 0) this.#revision = store.currentRevision;
    if (this.#revision === store.currentRevision) {
      this.#countIsKnown = true;
      this.#count = store.range(this.#nextKey, this.#rangeEnd, { ...this.#request, countOnly: true }, ignore).count;
    }
    return !this.#addSlice();
  }

  continue(): void {
    this.#server.options.clock.defer(() => {
      if (this.#call.cancelled) return;
      try {
        if (!this.#addSlice()) this.continue();
      } catch (error) {
        this.#fail(toEtcdError(error));
      }
    });
  }

  /** A client that asked for the newest state must not hear that it was compacted meanwhile: it gets a newer one. */
  #fail(error: EtcdError): void {
    if (error !== errors.compacted || this.#request.revision > 0 || ++this.#restarts > RESTARTS_MAX) {
      failWith(this.#call, error);
      return;
    }
    this.#revision = 0;
    this.#nextKey = this.#request.key;
    this.#added = 0;
    if (this.start()) this.continue();
  }

  /** True when the call has been answered. */
  #addSlice(): boolean {
    const wanted = Math.min(SLICE_KEYS, this.#limit - this.#added);
    if (wanted > 0) {
      const { visited } = this.#reply.add(this.#nextKey, this.#rangeEnd, this.#options(wanted));
      this.#added += visited;
      if (visited < wanted) return this.#answer();
      this.#nextKey = Buffer.concat([this.#reply.lastKey(), ZERO]);
      return this.#countIsKnown && this.#added === Math.min(this.#count, this.#limit) ? this.#answer() : false;
    }
    if (this.#countIsKnown) return this.#answer();
    let last = "";
    const options = this.#options(COUNT_SLICE_KEYS);
    const { visited } = this.#server.store.rangeKeys(this.#nextKey, this.#rangeEnd, options, (key) => {
      last = key;
    });
    this.#beyond += visited;
    if (visited < COUNT_SLICE_KEYS) return this.#answer();
    this.#nextKey = Buffer.from(`${last}\0`, "latin1");
    return false;
  }

  #answer(): true {
    if (this.#authRevision !== 0 && this.#authRevision !== this.#server.auth.revision) {
      failWith(this.#call, errors.authOldRevision);
      return true;
    }
    const count = this.#countIsKnown ? this.#count : this.#added + this.#beyond;
    this.#reply.respond(this.#call, count > this.#added, count);
    return true;
  }

  #options(limit: number): { revision: number; limit: number; countOnly: false; withoutCount: true } {
    return { revision: this.#revision, limit, countOnly: false, withoutCount: true };
  }
}

/** Counting is much faster than reading. */
const COUNT_SLICE_KEYS = 10_000;
/** Compactions that may overtake one read. */
const RESTARTS_MAX = 5;
const ZERO = Buffer.from([0]);
const ignore = (): void => {};
