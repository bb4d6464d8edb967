/**
 * One watch on the cluster for many watches of the proxy's clients. Owns what is known of its position, and the forms in
 * which its events are encoded once for all.
 */
import { Code } from "../../base/grpc-codes.ts";
import { RpcError } from "../../client/rpc-error.ts";
import type { Subscriber, WatchOptions } from "../../client/watcher.ts";
import type { Watches } from "../../client/watches.ts";
import { WatchResponse } from "../../proto/etcdserverpb.ts";
import { type Event, Event_EventType } from "../../proto/mvccpb.ts";
import type { Namespace } from "./namespace.ts";

/** A watch of a client, as a broadcast sees it. */
export interface Receiver {
  /** The first revision that it has not received. */
  nextRevision: number;
  readonly prevKv: boolean;
  readonly withoutPuts: boolean;
  readonly withoutDeletes: boolean;
  /** Sends `events`, encoded for all who get them, all up to `revision`. False: the client reads too slowly, and it must leave. */
  deliver(events: Buffer, revision: number): boolean;
  /** Nothing happened up to `revision`. */
  progressed(revision: number): void;
  compacted(compactRevision: number): void;
  failed(reason: string): void;
}

export interface BroadcastOptions {
  readonly span: { readonly key: Uint8Array; readonly rangeEnd: Uint8Array };
  readonly namespace: Namespace;
  readonly watches: Watches;
  readonly startRevision: number;
  /** `startRevision` is the present, not one of the past or future. */
  readonly isFromNow: boolean;
  /** It has moved on: perhaps it can be merged with another. */
  readonly onMoved: (broadcast: Broadcast) => void;
  /** It is over: all its receivers have been told, or have left. */
  readonly onEnd: (broadcast: Broadcast) => void;
  /** One more event went to so many receivers. */
  readonly onEvents: (events: number, receivers: number) => void;
}

export class Broadcast implements Subscriber {
  readonly span: BroadcastOptions["span"];
  readonly options: WatchOptions = { previous: true };
  readonly receivers = new Set<Receiver>();
  nextRevision: number;
  watchId: number | undefined;
  readonly isParked = false;
  readonly isBehind = false;
  readonly #options: BroadcastOptions;
  /** It has seen what there was when it began, and so is where the cluster is. */
  isCurrent: boolean;
  /** The newest revision when the cluster had created the watch. */
  #createdRevision = Number.POSITIVE_INFINITY;
  #fragments: Event[] = [];
  #isOver = false;

  constructor(options: BroadcastOptions) {
    this.span = options.span;
    this.nextRevision = options.startRevision;
    this.isCurrent = options.isFromNow;
    this.#options = options;
  }

  /** Takes a receiver off; without any, the watch ends. */
  leave(receiver: Receiver): void {
    if (!this.receivers.delete(receiver) || this.receivers.size > 0) return;
    this.#end();
  }

  /** Moves all receivers to a broadcast that is not ahead of this one. */
  mergeInto(other: Broadcast): void {
    for (const receiver of this.receivers) other.receivers.add(receiver);
    this.receivers.clear();
    this.#end();
  }

  // ---- for the hub of the client

  created(revision: number): void {
    this.#createdRevision = Math.min(this.#createdRevision, revision);
  }

  received(events: readonly Event[], isFragment: boolean): void {
    if (isFragment || this.#fragments.length > 0) this.#fragments.push(...events);
    if (isFragment) return;
    const all = this.#fragments.length > 0 ? this.#fragments : events;
    this.#fragments = [];
    const revision = all.at(-1)?.kv?.modRevision;
    if (revision === undefined || revision < this.nextRevision) return;
    const fresh = all.filter((event) => revisionOf(event) >= this.nextRevision);
    this.#options.onEvents(fresh.length, this.receivers.size);
    this.#moved(revision, () => this.#deliver(fresh, revision));
  }

  progressed(revision: number, exactly: boolean): void {
    if (!exactly || revision < this.nextRevision - 1) return;
    this.#moved(revision, () => {
      for (const receiver of [...this.receivers]) receiver.progressed(revision);
    });
  }

  compacted(compactRevision: number): void {
    const receivers = [...this.receivers];
    this.#end();
    for (const receiver of receivers) receiver.compacted(compactRevision);
  }

  interrupted(): void {
    this.watchId = undefined;
    this.#fragments = [];
  }

  fail(error: unknown): void {
    const receivers = [...this.receivers];
    this.#end();
    const reason = error instanceof RpcError && error.code !== Code.CANCELED ? error.details : "";
    for (const receiver of receivers) receiver.failed(reason);
  }

  // ---- to the receivers

  #moved(revision: number, tell: () => void): void {
    this.nextRevision = revision + 1;
    if (revision >= this.#createdRevision) this.isCurrent = true;
    tell();
    if (!this.#isOver) this.#options.onMoved(this);
  }

  #deliver(events: readonly Event[], revision: number): void {
    /** By what a receiver wants to see, and from where on. */
    const encoded = new Map<string, Buffer>();
    for (const receiver of [...this.receivers]) {
      const { prevKv, withoutPuts, withoutDeletes, nextRevision } = receiver;
      // One whose client reads too slowly has left, with all of that client's.
      if (nextRevision > revision || !this.receivers.has(receiver)) continue;
      const first = Math.max(nextRevision, revisionOf(events[0]!));
      const name = `${prevKv} ${withoutPuts} ${withoutDeletes} ${first}`;
      let bytes = encoded.get(name);
      if (bytes === undefined) {
        bytes = this.#encode(
          events.filter((event) => revisionOf(event) >= first && isWanted(event, receiver)),
          prevKv,
        );
        encoded.set(name, bytes);
      }
      if (bytes.length === 0) {
        receiver.nextRevision = revision + 1;
        continue;
      }
      if (receiver.deliver(bytes, revision)) receiver.nextRevision = revision + 1;
    }
  }

  #encode(events: readonly Event[], prevKv: boolean): Buffer {
    const { namespace } = this.#options;
    return WatchResponse.encode(
      WatchResponse.create({
        events: events.map((event) => ({
          ...event,
          kv: event.kv && namespace.outside(event.kv),
          prevKv: prevKv ? event.prevKv && namespace.outside(event.prevKv) : undefined,
        })),
      }),
    );
  }

  #end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.receivers.clear();
    this.#options.watches.remove(this);
    this.#options.onEnd(this);
  }
}

const revisionOf = ({ kv }: Event): number => kv?.modRevision ?? 0;

function isWanted({ type }: Event, { withoutPuts, withoutDeletes }: Receiver): boolean {
  return type === Event_EventType.DELETE ? !withoutDeletes : !withoutPuts;
}
