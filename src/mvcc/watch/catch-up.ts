import type { Clock } from "../../base/clock.ts";
import { Pass, type PassOptions, type StepBudget, type WaitingGroup, type WaitingWatchers } from "./pass.ts";
import { type Watcher, type WatcherGroup, watcherStates } from "./watcher-group.ts";

/**
 * Unsynced watchers, and the passes over past revisions that sync them. All waiting watchers share a pass, whatever
 * their number and start. A watcher with little to read does not wait for the pass of those with much: there is one
 * pass at a time for each of a few distances from the current revision.
 */
export class CatchUp {
  readonly #clock: Clock;
  readonly #options: PassOptions;
  readonly #onWork: () => void;
  readonly #lanes: readonly Lane[];
  #waitingCount = 0;
  /** The lane that runs first in the next turn. */
  #turn = 0;

  /** `onWork`: a turn is needed. */
  constructor(clock: Clock, options: PassOptions, onWork: () => void) {
    this.#clock = clock;
    this.#options = options;
    this.#onWork = onWork;
    const onJoined = (): void => {
      this.#waitingCount--;
    };
    this.#lanes = Array.from({ length: LANES + 1 }, () => new Lane(onJoined));
  }

  /** Unsynced watchers, excluding blocked ones. */
  get size(): number {
    let size = this.#waitingCount;
    for (const lane of this.#lanes) {
      size += lane.pass === undefined ? 0 : lane.pass.group.size;
      for (const { group } of lane.groups) size += group.size;
    }
    return size;
  }

  /** The watcher needs the events from its `minRevision` on, which is not compacted. */
  add(watcher: Watcher): void {
    const { joinRevisions, entriesMax } = this.#options.limits;
    const lane = this.#laneOf(this.#options.store.currentRevision - watcher.minRevision, entriesMax);
    if (lane.pass?.accepts(watcher)) lane.pass.group.add(watcher);
    else {
      const index = Math.floor(watcher.minRevision / joinRevisions);
      let bucket = lane.buckets.get(index);
      if (bucket === undefined) lane.buckets.set(index, (bucket = new Set()));
      bucket.add(watcher);
      watcher.waitingIn = bucket;
      watcher.state = watcherStates.waiting;
      this.#waitingCount++;
    }
    this.#onWork();
  }

  /** Removes a waiting watcher. */
  remove(watcher: Watcher): void {
    watcher.waitingIn!.delete(watcher);
    watcher.waitingIn = undefined;
    this.#waitingCount--;
  }

  /** All watchers of the group have all events before the position. */
  adopt(group: WatcherGroup, position: number): void {
    if (group.size === 0) return;
    this.#lanes[LANES]!.groups.push({ group, position });
    this.#onWork();
  }

  /** Advances one lane a little. */
  step(): void {
    const { watchersMax } = this.#options.limits;
    const startMs = this.#clock.nowMs();
    for (let i = 0; i <= LANES; i++) {
      const lane = this.#lanes[(this.#turn + i) % this.#lanes.length]!;
      if (!lane.hasWork(startMs)) continue;
      this.#turn = (this.#turn + i + 1) % this.#lanes.length;
      lane.step(this.#options, { units: watchersMax * UNITS_PER_WATCHER, pages: 1 });
      lane.spent(startMs, this.#clock.nowMs());
      return;
    }
  }

  /** Delay before the next step: 0 for the next turn, Infinity when all watchers are synced. */
  get delayMs(): number {
    const nowMs = this.#clock.nowMs();
    let delayMs = Number.POSITIVE_INFINITY;
    for (const lane of this.#lanes) {
      if (lane.hasWork(nowMs)) return 0;
      if (lane.hasWork(Number.POSITIVE_INFINITY)) delayMs = Math.min(delayMs, lane.restUntilMs - nowMs);
    }
    return delayMs;
  }

  #laneOf(distance: number, entriesMax: number): Lane {
    let lane = 0;
    for (let reach = entriesMax; lane < LANES - 1 && distance >= reach; reach *= LANE_FACTOR) lane++;
    return this.#lanes[lane]!;
  }
}

/** One pass, and the watchers waiting for the next. */
class Lane implements WaitingWatchers {
  readonly buckets = new Map<number, Set<Watcher>>();
  readonly groups: WaitingGroup[] = [];
  pass: Pass | undefined = undefined;
  restUntilMs = 0;
  readonly onJoined: () => void;
  #spentMs = 0;

  constructor(onJoined: () => void) {
    this.onJoined = onJoined;
  }

  hasWork(nowMs: number): boolean {
    if (this.pass !== undefined) return true;
    return (this.groups.length > 0 || this.buckets.size > 0) && nowMs >= this.restUntilMs;
  }

  step(options: PassOptions, budget: StepBudget): void {
    this.pass ??= this.#begin(options);
    if (this.pass?.step(budget)) this.pass = undefined;
  }

  /**
   * Between two passes there is a pause of a fraction of their duration: otherwise clients that return one by one, each
   * after the previous one's answer, would have a pass each.
   */
  spent(fromMs: number, toMs: number): void {
    this.#spentMs += toMs - fromMs;
    if (this.pass !== undefined) return;
    this.restUntilMs = toMs + Math.min(REST_MS_MAX, this.#spentMs * REST_FACTOR);
    this.#spentMs = 0;
  }

  #begin(options: PassOptions): Pass | undefined {
    const adopted = this.groups.shift();
    if (adopted !== undefined) return Pass.ofGroup(adopted.group, adopted.position, this, options);
    let oldest = Number.POSITIVE_INFINITY;
    for (const [index, { size }] of this.buckets) {
      if (size === 0) this.buckets.delete(index);
      else if (index < oldest) oldest = index;
    }
    if (oldest === Number.POSITIVE_INFINITY) return undefined;
    return Pass.ofBucket(oldest * options.limits.joinRevisions, this, options);
  }
}

/** Distances from the current revision: one page, then each a multiple of the previous; the last is unlimited. */
const LANES = 4;
const LANE_FACTOR = 16;
const UNITS_PER_WATCHER = 4;
/** No longer than etcd waits between two of its rounds. */
const REST_MS_MAX = 100;
const REST_FACTOR = 3;
