import { InvariantError } from "../../base/fatal.ts";
import type { ByteString } from "../model/types.ts";
import type { WatchEvent } from "./batch.ts";
import { IntervalTree } from "./interval-tree.ts";
import type { Watch, WatchSink } from "./types.ts";
import { variantBits } from "./variants.ts";

export const watcherStates = {
  /** In a group: the synced one, which receives every change, or one that catches up together. */
  grouped: 0,
  /** Unsynced: waits for a pass to reach the revision it needs. */
  waiting: 1,
  /** Blocked: its stream is full, and it waits for the stream to drain. etcd's term is victim. */
  blocked: 2,
  /** Notified that its next revision is compacted; gets nothing more, but keeps its id until the client cancels it. */
  compacted: 3,
  cancelled: 4,
} as const;

export type WatcherState = (typeof watcherStates)[keyof typeof watcherStates];

/** The state shared by the watchers of one stream. */
export interface WatcherOutlet {
  readonly sink: WatchSink;
  /** The sink refused a response and has not drained since. */
  full: boolean;
  /** Watchers waiting for it to drain. */
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
  /** Events before this revision are not delivered. */
  minRevision: number;
  /** Had no event since the progress timer's last turn. */
  quiet = true;
  /** Its set in a group or in the waiting place. */
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
  /** Its position in the group. */
  index: number;
  readonly watchers: Watcher[] = [];
  /** Matched events that are not delivered yet. */
  events: WatchEvent[] | undefined = undefined;
  /** Their bytes, where counted. */
  bytes = 0;
  /** Its events wait for a later turn. */
  queued = false;
  /** A mark used by the scan of a large revision. */
  mark: object | undefined = undefined;

  constructor(group: WatcherGroup, index: number) {
    this.group = group;
    this.index = index;
  }
}

/** Watchers, indexed by watched key or range. Adding and removing is (at most) logarithmic. */
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

  /** The watcher must be in this group. The last watcher of its set takes its position. */
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

  /** Removes and returns any watcher; undefined when empty. */
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
