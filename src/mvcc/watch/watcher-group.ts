import { InvariantError } from "../../base/fatal.ts";
import type { ByteString } from "../model/types.ts";
import type { WatchEvent } from "./batch.ts";
import { IntervalTree } from "./interval-tree.ts";
import type { Watch, WatchSink } from "./types.ts";
import { variantBits } from "./variants.ts";

export const watcherStates = {
  /** In a group: that of the synced ones, which is told of every change, or one that catches up together. */
  grouped: 0,
  /** Behind: waits for a pass over the past to come to the revision that it needs. */
  waiting: 1,
  /** Behind, because its stream is full: waits for that to drain. etcd's word is victim. */
  blocked: 2,
  /** Told that its next revision is compacted; gets nothing more, but its id is taken until the client cancels it. */
  compacted: 3,
  cancelled: 4,
} as const;

export type WatcherState = (typeof watcherStates)[keyof typeof watcherStates];

/** What the watchers of one stream have in common. */
export interface WatcherOutlet {
  readonly sink: WatchSink;
  /** The sink refused a response and was not drained since. */
  full: boolean;
  /** Watchers that wait for it to drain. */
  readonly blocked: Set<Watcher>;
}

export class Watcher implements Watch {
  readonly outlet: WatcherOutlet;
  readonly id: number;
  readonly key: ByteString;
  /** Null watches the single key; "" has no end. */
  readonly end: ByteString | null;
  readonly startRevision: number;
  readonly variant: number;
  readonly fragment: boolean;
  readonly progressNotify: boolean;
  state: WatcherState = watcherStates.cancelled;
  /** No event before this revision is for it any more. */
  minRevision: number;
  /** Had no event since the last turn of the progress timer. */
  quiet = true;
  /** Where it is in a group, or where it waits. */
  set: WatcherSet | undefined = undefined;
  index = 0;
  waitingIn: Set<Watcher> | undefined = undefined;

  constructor(outlet: WatcherOutlet, fields: WatcherFields) {
    this.outlet = outlet;
    this.id = fields.id;
    this.key = fields.key;
    this.end = fields.end;
    this.startRevision = fields.startRevision;
    this.minRevision = fields.startRevision;
    this.variant = fields.variant;
    this.fragment = fields.fragment;
    this.progressNotify = fields.progressNotify;
  }

  get prevKv(): boolean {
    return (this.variant & variantBits.prevKv) !== 0;
  }
}

export type WatcherFields = Pick<
  Watcher,
  "id" | "key" | "end" | "startRevision" | "variant" | "fragment" | "progressNotify"
>;

/** The watchers of a group that watch the same key or the same range. */
export class WatcherSet {
  readonly group: WatcherGroup;
  /** Its place in the group. */
  index: number;
  readonly watchers: Watcher[] = [];
  /** Events that matched and are not handed out yet. */
  events: WatchEvent[] | undefined = undefined;
  /** Bytes that they hold, where somebody counts them. */
  bytes = 0;
  /** Its events wait for a later turn. */
  queued = false;
  /** What the scan of a large revision notes about it. */
  mark: object | undefined = undefined;

  constructor(group: WatcherGroup, index: number) {
    this.group = group;
    this.index = index;
  }
}

/** Watchers, found by a key that they watch. Adding and removing one is (at most) logarithmic. */
export class WatcherGroup {
  readonly #keys = new Map<ByteString, WatcherSet>();
  readonly #ranges = new IntervalTree<WatcherSet>();
  readonly #sets: WatcherSet[] = [];
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** The watcher must be in no group. */
  add(watcher: Watcher): void {
    if (watcher.set !== undefined) throw new InvariantError(`watcher ${watcher.id} is added to a second group`);
    const set = this.#setFor(watcher);
    watcher.state = watcherStates.grouped;
    watcher.set = set;
    watcher.index = set.watchers.length;
    set.watchers.push(watcher);
    this.#size++;
  }

  /** The watcher must be in this group. The last one of its set takes its place there. */
  remove(watcher: Watcher): void {
    const { set } = watcher;
    if (set === undefined || set.group !== this || set.watchers[watcher.index] !== watcher) {
      throw new InvariantError(`watcher ${watcher.id} is not in the group it is removed from`);
    }
    const last = set.watchers.pop()!;
    if (last !== watcher) {
      set.watchers[watcher.index] = last;
      last.index = watcher.index;
    }
    watcher.set = undefined;
    this.#size--;
    if (set.watchers.length === 0) this.#drop(set, watcher);
  }

  /** Takes some watcher out; undefined when there is none. */
  pop(): Watcher | undefined {
    const watcher = this.#sets.at(-1)?.watchers.at(-1);
    if (watcher !== undefined) this.remove(watcher);
    return watcher;
  }

  /** Appends the sets whose watchers watch the key. */
  match(key: ByteString, out: WatcherSet[]): void {
    const set = this.#keys.get(key);
    if (set !== undefined) out.push(set);
    if (this.#ranges.size > 0) this.#ranges.stab(key, out);
  }

  #setFor(watcher: Watcher): WatcherSet {
    const { key, end } = watcher;
    let set = end === null ? this.#keys.get(key) : this.#ranges.get(key, end);
    if (set === undefined) {
      set = new WatcherSet(this, this.#sets.length);
      this.#sets.push(set);
      if (end === null) this.#keys.set(key, set);
      else this.#ranges.insert(key, end, set);
    }
    return set;
  }

  #drop(set: WatcherSet, { key, end }: Watcher): void {
    const last = this.#sets.pop()!;
    if (last !== set) {
      this.#sets[set.index] = last;
      last.index = set.index;
    }
    if (end === null) this.#keys.delete(key);
    else this.#ranges.remove(key, end);
  }
}
