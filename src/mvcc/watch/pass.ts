import { invariant } from "../../base/fatal.ts";
import type { ChangeSource } from "../model/types.ts";
import type { PrevKvLookup, WatchBatch } from "./batch.ts";
import { unitsOf } from "./fan-out.ts";
import { type LargeContext, StoredBatch } from "./large.ts";
import { type PageLimits, readPage } from "./page.ts";
import { RevisionScan } from "./scan.ts";
import { Share } from "./share.ts";
import type { LargeBatch } from "./types.ts";
import { type Watcher, WatcherGroup, type WatcherSet } from "./watcher-group.ts";

/** Outcomes for the watchers of a pass. They are in no group then. */
export interface PassOutcomes {
  /** False when its stream is full. */
  offer(watcher: Watcher, batch: WatchBatch): boolean;
  /** False when its stream is full; otherwise it is full from now on, until all is delivered. */
  offerLarge(watcher: Watcher, batch: LargeBatch): boolean;
  /** It waits for its stream to drain, and needs the events from this revision on. */
  block(watcher: Watcher, nextRevision: number): void;
  /** It is synced. */
  catchUp(watcher: Watcher): void;
  /** It needs the events from its `minRevision` on, which may be compacted. */
  fallBehind(watcher: Watcher): void;
}

/** Watchers that have everything before a position. */
export interface WaitingGroup {
  readonly group: WatcherGroup;
  readonly position: number;
}

/** The waiting watchers that a pass takes, in buckets by the first of a number of revisions. */
export interface WaitingWatchers {
  readonly buckets: Map<number, Set<Watcher>>;
  /** In order of position. */
  readonly groups: WaitingGroup[];
  /** A watcher has left its bucket. */
  onJoined(): void;
}

export interface PassOptions {
  readonly store: ChangeSource;
  readonly limits: PageLimits;
  readonly lookup: PrevKvLookup;
  readonly outcomes: PassOutcomes;
  readonly large: LargeContext;
}

/** Limits of one step. */
export interface StepBudget {
  /** Units of about a microsecond. */
  units: number;
  pages: number;
}

/**
 * One pass over the past, shared by all watchers that need it: it goes from the oldest revision needed to the current
 * one, reads every row once, and matches it with the watchers that need its revision. Watchers join on the way, and
 * leave when their stream is full or when everything is read.
 */
export class Pass {
  readonly group: WatcherGroup;
  /** Watchers of the group have everything before it. */
  #position: number;
  /** Watchers that wait for a revision before this one have joined. */
  #openTo: number;
  readonly #waiting: WaitingWatchers;
  readonly #store: ChangeSource;
  readonly #limits: PageLimits;
  readonly #lookup: PrevKvLookup;
  readonly #outcomes: PassOutcomes;
  readonly #large: LargeContext;
  #handing: Handing | undefined = undefined;
  #scan: RevisionScan | undefined = undefined;
  /** A compaction has overtaken it: its watchers join another pass, or are cancelled. */
  #isDissolving = false;
  /** Its first watchers have joined. */
  #isBegun: boolean;

  /** Begins with the watchers of the oldest bucket. */
  static ofBucket(first: number, waiting: WaitingWatchers, options: PassOptions): Pass {
    return new Pass(new WatcherGroup(), Number.POSITIVE_INFINITY, first, waiting, options);
  }

  static ofGroup(group: WatcherGroup, position: number, waiting: WaitingWatchers, options: PassOptions): Pass {
    return new Pass(group, position, position, waiting, options);
  }

  private constructor(
    group: WatcherGroup,
    position: number,
    openTo: number,
    waiting: WaitingWatchers,
    { store, limits, lookup, outcomes, large }: PassOptions,
  ) {
    this.group = group;
    this.#position = position;
    this.#openTo = openTo;
    this.#isBegun = position !== Number.POSITIVE_INFINITY;
    this.#waiting = waiting;
    this.#store = store;
    this.#limits = limits;
    this.#lookup = lookup;
    this.#outcomes = outcomes;
    this.#large = large;
  }

  /** A watcher joins at once if the pass has not reached its revision yet, but will before it opens another bucket. */
  accepts(watcher: Watcher): boolean {
    if (this.#isDissolving || watcher.minRevision >= this.#openTo) return false;
    return watcher.minRevision >= (this.#scan === undefined ? this.#position : this.#position + 1);
  }

  /** Continues. True when it is over: no watcher is left. */
  step(budget: StepBudget): boolean {
    for (;;) {
      if (this.#handing !== undefined && !this.#handOut(this.#handing, budget)) return false;
      if (this.#scan !== undefined) {
        if (budget.pages-- <= 0) return false;
        this.#goOnScanning(this.#scan);
        continue;
      }
      if (this.#isDissolving || this.#position < this.#store.compactRevision) return this.#dissolve(budget);
      if (!this.#absorb(budget) || !this.#join(budget)) return false;
      if (this.group.size === 0) return true;
      const next = this.#store.currentRevision + 1;
      const to = Math.min(next, this.#openTo, this.#nextGroup()?.position ?? next);
      if (this.#position >= next) return this.#finish(budget);
      if (budget.pages-- <= 0) return false;
      this.#read(to);
    }
  }

  #read(to: number): void {
    const touched: WatcherSet[] = [];
    const page = readPage(this.#store, this.group, this.#position, to, this.#limits, this.#lookup, touched);
    if (page.large && page.next === this.#position) {
      this.#scan = new RevisionScan(this.#store, this.group, page.next, this.#limits, this.#lookup);
      return;
    }
    invariant(page.next > this.#position && page.next <= to, "a page is read forwards", this.#position, page.next);
    this.#position = page.next;
    if (touched.length > 0) this.#handing = new Handing(touched, [], page.next - 1);
  }

  #goOnScanning(scan: RevisionScan): void {
    if (this.#position < this.#store.compactRevision) {
      scan.giveUp();
      this.#scan = undefined;
      return;
    }
    if (!scan.step()) return;
    this.#handing = new Handing(scan.kept, scan.large, scan.revision);
    if (scan.nextRound()) return;
    this.#scan = undefined;
    this.#position = scan.revision + 1;
  }

  /** True when all watchers were offered the events read. */
  #handOut(handing: Handing, budget: StepBudget): boolean {
    for (;;) {
      const set = handing.set();
      if (set === undefined) {
        this.#handing = undefined;
        return true;
      }
      // Backwards: a leaving watcher is replaced by the last, which has been served.
      for (let i = Math.min(handing.index, set.watchers.length) - 1; i >= 0; i--) {
        if (budget.units <= 0) {
          handing.index = i + 1;
          return false;
        }
        const watcher = set.watchers[i]!;
        if (watcher.minRevision > handing.revision) continue;
        if (handing.share === undefined) this.#handLarge(handing, set, watcher, budget);
        else this.#hand(handing.share, watcher, budget);
      }
      handing.done();
    }
  }

  #hand(share: Share, watcher: Watcher, budget: StepBudget): void {
    const batch = share.batchFor(watcher);
    if (batch === null) return;
    if (batch === undefined) {
      const large = share.largeFor(watcher, this.#large);
      this.group.remove(watcher);
      this.#outcomes.block(watcher, this.#outcomes.offerLarge(watcher, large) ? large.revision + 1 : large.revision);
      return;
    }
    budget.units -= unitsOf(batch.byteCount);
    if (!this.#outcomes.offer(watcher, batch)) {
      this.group.remove(watcher);
      this.#outcomes.block(watcher, batch.events[0]!.revision);
    } else if (batch.revision < share.revision) {
      this.group.remove(watcher);
      this.#outcomes.fallBehind(watcher);
    }
  }

  #handLarge(handing: Handing, set: WatcherSet, watcher: Watcher, budget: StepBudget): void {
    budget.units -= unitsOf(0);
    const large = handing.largeFor(watcher, this.#large);
    if (this.#outcomes.offerLarge(watcher, large)) return;
    set.group.remove(watcher);
    this.#outcomes.block(watcher, handing.revision);
  }

  /** Takes in the watchers of a group that it has reached. False when the budget is spent. */
  #absorb(budget: StepBudget): boolean {
    for (;;) {
      const next = this.#nextGroup();
      if (next?.position !== this.#position) return true;
      const { group, position } = next;
      while (group.size > 0) {
        if (budget.units-- <= 0) return false;
        const watcher = group.pop()!;
        watcher.minRevision = Math.max(watcher.minRevision, position);
        this.group.add(watcher);
      }
      this.#waiting.groups.splice(this.#waiting.groups.indexOf(next), 1);
    }
  }

  /** The next group on its way; one that begins before its position waits for the next pass. */
  #nextGroup(): WaitingGroup | undefined {
    return this.#waiting.groups.find(({ position }) => position >= this.#position);
  }

  /** Takes in the watchers that wait for the revisions read next. False when the budget is spent. */
  #join(budget: StepBudget): boolean {
    const { joinRevisions, entriesMax } = this.#limits;
    const { buckets } = this.#waiting;
    const current = this.#store.currentRevision;
    while (this.#openTo <= current && (!this.#isBegun || this.#openTo < this.#position + entriesMax)) {
      const index = Math.floor(this.#openTo / joinRevisions);
      const bucket = buckets.get(index);
      if (bucket !== undefined) {
        // Earlier revisions are read first.
        if (this.#isBegun && this.#openTo > this.#position) break;
        for (const watcher of bucket) {
          if (budget.units-- <= 0) return false;
          bucket.delete(watcher);
          watcher.waitingIn = undefined;
          this.#waiting.onJoined();
          this.#take(watcher);
        }
        buckets.delete(index);
      }
      this.#openTo = (index + 1) * joinRevisions;
      // All of the first watchers may have found their stream full.
      if (this.#position === Number.POSITIVE_INFINITY) break;
      this.#isBegun = true;
    }
    return true;
  }

  #take(watcher: Watcher): void {
    if (watcher.outlet.full) this.#outcomes.block(watcher, watcher.minRevision);
    else if (watcher.minRevision < this.#store.compactRevision) this.#outcomes.fallBehind(watcher);
    else {
      if (!this.#isBegun) this.#position = Math.min(this.#position, watcher.minRevision);
      this.group.add(watcher);
    }
  }

  /** Everything is read: releases the watchers. True when all are released. */
  #finish(budget: StepBudget): boolean {
    while (this.group.size > 0) {
      if (budget.units-- <= 0) return false;
      const watcher = this.group.pop()!;
      watcher.minRevision = Math.max(watcher.minRevision, this.#position);
      this.#outcomes.catchUp(watcher);
    }
    return true;
  }

  #dissolve(budget: StepBudget): boolean {
    this.#isDissolving = true;
    while (this.group.size > 0) {
      if (budget.units-- <= 0) return false;
      const watcher = this.group.pop()!;
      watcher.minRevision = Math.max(watcher.minRevision, this.#position);
      this.#outcomes.fallBehind(watcher);
    }
    return true;
  }
}

/** Delivers the events read to the watchers of the matching sets. */
class Handing {
  readonly revision: number;
  readonly #kept: WatcherSet[];
  readonly #large: WatcherSet[];
  /** For the current set; undefined when it is large. */
  share: Share | undefined = undefined;
  /** Watchers of the set before this index were not offered it yet. */
  index = Number.POSITIVE_INFINITY;
  #set: WatcherSet | undefined = undefined;
  readonly #larges = new Map<number, StoredBatch>();

  constructor(kept: WatcherSet[], large: WatcherSet[], revision: number) {
    this.revision = revision;
    this.#kept = kept.reverse();
    this.#large = large.reverse();
  }

  /** The current set, or the next one. */
  set(): WatcherSet | undefined {
    while (this.#set === undefined) {
      const set = this.#kept.pop();
      if (set === undefined) return (this.#set = this.#large.pop());
      // A set that became large is in both lists.
      if (set.events === undefined) continue;
      this.share = new Share(set, set.events, this.revision);
      set.events = undefined;
      set.bytes = 0;
      this.#set = set;
    }
    return this.#set;
  }

  /** All watchers of the current set were offered it. */
  done(): void {
    this.#set = undefined;
    this.share = undefined;
    this.index = Number.POSITIVE_INFINITY;
    this.#larges.clear();
  }

  largeFor(watcher: Watcher, context: LargeContext): LargeBatch {
    let large = this.#larges.get(watcher.variant);
    if (large === undefined) {
      large = StoredBatch.of(watcher, this.revision, context);
      this.#larges.set(watcher.variant, large);
    }
    return large;
  }
}
