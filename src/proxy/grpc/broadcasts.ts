/**
 * The broadcasts of a proxy, by range and by whose token the cluster is asked. A watch from now on joins the broadcast
 * of its range; one from the past gets a broadcast of its own, which is merged with that when it has caught up. So a
 * thousand watches of one range cost the cluster one.
 */
import { Watches } from "../../client/watches.ts";
import { Broadcast, type Receiver } from "./broadcast.ts";
import type { Namespace } from "./namespace.ts";
import type { Upstream } from "./upstream.ts";

/** Tokens with which clients watch at a time: each costs a stream to a member. */
const TOKENS_MAX = 100_000;

export interface BroadcastsOptions {
  readonly upstream: Upstream;
  readonly namespace: Namespace;
  /** The cluster's stream of a token ended and is opened again. */
  readonly onInterrupted: (error: unknown) => void;
}

export interface WatchPlace {
  /** As the cluster knows it. */
  readonly span: { readonly key: Uint8Array; readonly rangeEnd: Uint8Array };
  readonly token: string | undefined;
}

export class Broadcasts {
  /** Watches that share a broadcast with another, and events that were sent to more than one. */
  coalescedEvents = 0;
  readonly #options: BroadcastsOptions;
  readonly #byToken = new Map<string, Watches>();
  readonly #byPlace = new Map<string, Set<Broadcast>>();
  readonly #of = new Map<Receiver, Broadcast>();

  constructor(options: BroadcastsOptions) {
    this.#options = options;
  }

  /** Whether a watch with this token may begin. */
  mayBegin(token: string | undefined): boolean {
    return this.#byToken.size < TOKENS_MAX || this.#byToken.has(token ?? "");
  }

  get coalescedWatches(): number {
    let watches = this.#of.size;
    for (const broadcasts of this.#byPlace.values()) watches -= broadcasts.size;
    return watches;
  }

  /**
   * Adds a receiver, whose `nextRevision` is the first revision it wants.
   *
   * @param isFromNow it may begin later than that, if a broadcast has gone on meanwhile: its `nextRevision` is changed
   */
  join(receiver: Receiver, place: WatchPlace, isFromNow: boolean): void {
    const name = nameOf(place);
    let broadcasts = this.#byPlace.get(name);
    if (broadcasts === undefined) this.#byPlace.set(name, (broadcasts = new Set()));
    for (const broadcast of broadcasts) {
      if (isFromNow && broadcast.isCurrent)
        receiver.nextRevision = Math.max(receiver.nextRevision, broadcast.nextRevision);
      if (broadcast.nextRevision > receiver.nextRevision) continue;
      this.#add(receiver, broadcast);
      return;
    }
    this.#add(receiver, this.#begin(broadcasts, place, name, receiver.nextRevision, isFromNow));
  }

  leave(receiver: Receiver): void {
    this.#of.get(receiver)?.leave(receiver);
    this.#of.delete(receiver);
  }

  #add(receiver: Receiver, broadcast: Broadcast): void {
    broadcast.receivers.add(receiver);
    this.#of.set(receiver, broadcast);
  }

  #begin(
    broadcasts: Set<Broadcast>,
    place: WatchPlace,
    name: string,
    startRevision: number,
    isFromNow: boolean,
  ): Broadcast {
    const watches = this.#watchesOf(place.token ?? "");
    const broadcast = new Broadcast({
      span: place.span,
      namespace: this.#options.namespace,
      watches,
      startRevision,
      isFromNow,
      onMoved: (moved) => this.#merge(moved, broadcasts),
      onEnd: (ended) => {
        broadcasts.delete(ended);
        if (broadcasts.size === 0 && this.#byPlace.get(name) === broadcasts) this.#byPlace.delete(name);
        if (watches.isEmpty) this.#byToken.delete(place.token ?? "");
      },
      onEvents: (events, receivers) => {
        if (receivers > 1) this.coalescedEvents += events * (receivers - 1);
      },
    });
    broadcasts.add(broadcast);
    watches.add(broadcast);
    return broadcast;
  }

  /** Into one that is not ahead of it, so that its receivers miss nothing. */
  #merge(moved: Broadcast, broadcasts: ReadonlySet<Broadcast>): void {
    for (const other of broadcasts) {
      // What is still in the past would hold the others up.
      if (other === moved || !other.isCurrent || other.nextRevision > moved.nextRevision) continue;
      for (const receiver of moved.receivers) this.#of.set(receiver, other);
      moved.mergeInto(other);
      return;
    }
  }

  #watchesOf(token: string): Watches {
    let watches = this.#byToken.get(token);
    if (watches === undefined) {
      const { upstream, onInterrupted } = this.#options;
      watches = new Watches(upstream.caller, { token: token === "" ? undefined : token, onInterrupted });
      this.#byToken.set(token, watches);
    }
    return watches;
  }
}

const nameOf = ({ span, token }: WatchPlace): string =>
  `${token ?? ""}\n${Buffer.from(span.key).toString("latin1")}\n${Buffer.from(span.rangeEnd).toString("hex")}`;
