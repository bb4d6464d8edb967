/**
 * The scheduler of long work on the event loop, cut into slices: which work runs next, for how long, and how much may
 * be in progress.
 *
 * Each `step` of a piece of work takes about a millisecond and reports whether there is more. All work in progress
 * shares the turns of the event loop: after a turn's I/O, slices run until the turn's budget is spent, and the rest
 * waits for the next turn. So a small request waits for at most one slice of a large one.
 *
 * Fair by owner: the next slice goes to the owner that has had the least time. An owner is anything that must not gain
 * by asking for more at once: a user, a connection, or the member itself. Within an owner, work runs in turn.
 *
 * Bounded: at most `activeMax` pieces of work hold memory at a time, and at most `activePerOwnerMax` per owner. Others
 * wait in order of arrival; beyond `waitingMax` they are refused.
 */
import type { Clock } from "./clock.ts";
import { spentOn } from "./doing.ts";

/** Result of a step: there is more to do, there is nothing to do until `Ticket.resume`, or the work is over. */
export type StepResult = "more" | "wait" | "done";

export interface Work {
  /** Name for logs: the request's. */
  readonly name: string;
  /** Called once, before the first step, with the ticket to resume or cancel it. */
  attach?(ticket: Ticket): void;
  /** Does a bounded piece, about a millisecond. Not called again after it returned "done" or threw. */
  step(): StepResult;
  /** A step threw and the work is over: reports the error to the requester. */
  fail(error: unknown): void;
}

/** The unit of fairness that a piece of work is charged to. Compared by identity. */
export class Owner {
  readonly name: string;
  /** Time it has used, in milliseconds, never behind the owners being served. */
  spentMs = 0;
  /** Its work in progress, runnable or waiting. */
  active = 0;
  readonly runnable: Ticket[] = [];
  readonly waiting: Ticket[] = [];

  constructor(name: string) {
    this.name = name;
  }
}

export interface TurnsOptions {
  readonly clock: Clock;
  /** Time for slices in one turn. */
  readonly budgetMs: number;
  /** The same for work run at once, outside the slices. */
  readonly budgetNowMs: number;
  /** Pieces of work in progress at a time. */
  readonly activeMax: number;
  readonly activePerOwnerMax: number;
  /** Pieces of work that may wait to start. */
  readonly waitingMax: number;
  /** For clocks that stand still during a turn, as in simulation: slices in one turn, and steps run at once. */
  readonly slicesMax: number;
  readonly stepsNowMax: number;
  /** A slice took longer than `longSliceMs` and delayed everything else. */
  readonly onLongSlice?: ((work: Work, tookMs: number) => void) | undefined;
  readonly longSliceMs: number;
}

export const TURNS_DEFAULTS = {
  budgetMs: 2,
  budgetNowMs: 4,
  activeMax: 128,
  activePerOwnerMax: 32,
  waitingMax: 10_000,
  slicesMax: 64,
  stepsNowMax: 1000,
  longSliceMs: 25,
} as const;

export class Turns {
  readonly #clock: Clock;
  readonly #options: TurnsOptions;
  /** Owners with runnable work. */
  readonly #runnable = new Set<Owner>();
  /** Owners with work waiting to start, ordered by the arrival of their first. */
  readonly #waiting = new Set<Owner>();
  #active = 0;
  #waitingCount = 0;
  #scheduled = false;
  /** Time used in this turn by work run at once, outside the turn's own slices. */
  #nowMs = 0;
  #nowSteps = 0;
  #resetScheduled = false;
  /**
   * `spentMs` of the owner served last. A newly active owner starts here, so that it gains nothing by having been idle.
   */
  #floorMs = 0;
  /** Slices run so far. */
  slices = 0;
  /** Pieces of work refused so far because too many waited. */
  refused = 0;

  constructor(options: TurnsOptions) {
    this.#clock = options.clock;
    this.#options = options;
  }

  /** Pieces of work in progress. */
  get active(): number {
    return this.#active;
  }

  /** Pieces of work waiting to start. */
  get waiting(): number {
    return this.#waitingCount;
  }

  /** Queues work, to start when its turn comes. Undefined when too much waits already: refuse the request. */
  add(owner: Owner, work: Work): Ticket | undefined {
    if (this.#waitingCount < this.#options.waitingMax) return this.#take(owner, work);
    this.refused++;
    return undefined;
  }

  #take(owner: Owner, work: Work): Ticket {
    const ticket = new Ticket(this, owner, work);
    work.attach?.(ticket);
    owner.waiting.push(ticket);
    this.#waitingCount++;
    this.#waiting.add(owner);
    this.#admit();
    return ticket;
  }

  /**
   * Queues work, and starts it at once if this turn has time: short work is over before this returns. Undefined as for
   * `add`.
   */
  begin(owner: Owner, work: Work): Ticket | undefined {
    const ticket = this.add(owner, work);
    if (ticket !== undefined) this.#runNow(ticket);
    return ticket;
  }

  /**
   * The same for work that can no longer be refused, because the request is already carried out; something else bounds
   * it.
   */
  mustBegin(owner: Owner, work: Work): void {
    this.#runNow(this.#take(owner, work));
  }

  #runNow(ticket: Ticket): void {
    const { owner } = ticket;
    while (ticket.isReady && this.#mayRunNow()) {
      const startMs = this.#clock.nowMs();
      removeFrom(owner.runnable, ticket);
      if (owner.runnable.length === 0) this.#runnable.delete(owner);
      this.#step(ticket, startMs);
      this.#nowMs += this.#clock.nowMs() - startMs;
    }
  }

  /** True while this turn has time for work run at once. */
  get hasTimeNow(): boolean {
    return this.#mayRunNow();
  }

  /** Charges time that was used outside of any piece of work. */
  spend(tookMs: number): void {
    this.#nowMs += tookMs;
    this.#scheduleReset();
  }

  #mayRunNow(): boolean {
    if (this.#nowMs >= this.#options.budgetNowMs || this.#nowSteps >= this.#options.stepsNowMax) return false;
    this.#nowSteps++;
    this.#scheduleReset();
    return true;
  }

  #scheduleReset(): void {
    if (this.#resetScheduled) return;
    this.#resetScheduled = true;
    this.#clock.defer(this.#reset);
  }

  readonly #reset = (): void => {
    this.#resetScheduled = false;
    this.#nowMs = 0;
    this.#nowSteps = 0;
  };

  /** For a Ticket. */
  ready(ticket: Ticket): void {
    const { owner } = ticket;
    if (owner.runnable.push(ticket) === 1) {
      owner.spentMs = Math.max(owner.spentMs, this.#floorMs);
      this.#runnable.add(owner);
    }
    this.#schedule();
  }

  /** For a Ticket that ended: frees what it held. */
  ended(ticket: Ticket, wasStarted: boolean): void {
    const { owner } = ticket;
    if (wasStarted) {
      owner.active--;
      this.#active--;
      removeFrom(owner.runnable, ticket);
      if (owner.runnable.length === 0) this.#runnable.delete(owner);
    } else if (removeFrom(owner.waiting, ticket)) {
      this.#waitingCount--;
      if (owner.waiting.length === 0) this.#waiting.delete(owner);
    }
    this.#admit();
  }

  #admit(): void {
    const { activeMax, activePerOwnerMax } = this.#options;
    for (const owner of this.#waiting) {
      while (owner.waiting.length > 0 && this.#active < activeMax && owner.active < activePerOwnerMax) {
        const ticket = owner.waiting.shift()!;
        this.#waitingCount--;
        this.#active++;
        owner.active++;
        ticket.start();
      }
      if (owner.waiting.length === 0) this.#waiting.delete(owner);
      if (this.#active >= activeMax) return;
    }
  }

  #schedule(): void {
    if (this.#scheduled || this.#runnable.size === 0) return;
    this.#scheduled = true;
    this.#clock.defer(this.#run);
  }

  readonly #run = (): void => {
    const { budgetMs, slicesMax } = this.#options;
    const startMs = this.#clock.nowMs();
    let nowMs = startMs;
    for (let i = 0; i < slicesMax && this.#runnable.size > 0 && nowMs - startMs < budgetMs; i++) {
      const owner = this.#next();
      const ticket = owner.runnable.shift()!;
      if (owner.runnable.length === 0) this.#runnable.delete(owner);
      nowMs = this.#step(ticket, nowMs);
    }
    this.#scheduled = false;
    this.#schedule();
  };

  /** Runs one slice and charges its time. Returns when it ended. */
  #step(ticket: Ticket, startMs: number): number {
    this.slices++;
    ticket.step();
    const endMs = this.#clock.nowMs();
    const tookMs = endMs - startMs;
    spentOn(ticket.work.name, tookMs);
    ticket.owner.spentMs += Math.max(tookMs, SLICE_MS_MIN);
    if (tookMs > this.#options.longSliceMs) this.#options.onLongSlice?.(ticket.work, tookMs);
    return endMs;
  }

  /** The owner with the least time. There are few: an owner is listed only while it has runnable work. */
  #next(): Owner {
    let best: Owner | undefined;
    for (const owner of this.#runnable) if (best === undefined || owner.spentMs < best.spentMs) best = owner;
    this.#floorMs = Math.max(this.#floorMs, best!.spentMs);
    return best!;
  }
}

/** Charged at least for each slice, also when the clock did not move. */
const SLICE_MS_MIN = 0.01;

/** One piece of work in the scheduler. */
export class Ticket {
  readonly owner: Owner;
  readonly work: Work;
  readonly #turns: Turns;
  #state: "waiting" | "ready" | "parked" | "over" = "waiting";
  /** `resume` came during a step that is about to return "wait". */
  #resumed = false;

  constructor(turns: Turns, owner: Owner, work: Work) {
    this.#turns = turns;
    this.owner = owner;
    this.work = work;
  }

  /** Runnable, and waiting for its turn. */
  get isReady(): boolean {
    return this.#state === "ready";
  }

  /** Makes waiting work runnable. No effect when it does not wait. */
  resume(): void {
    if (this.#state === "parked") {
      this.#state = "ready";
      this.#turns.ready(this);
    } else this.#resumed = true;
  }

  /** Cancels the work; it is not stepped again. No effect when it is over. */
  cancel(): void {
    if (this.#state === "over") return;
    const wasStarted = this.#state !== "waiting";
    this.#state = "over";
    this.#turns.ended(this, wasStarted);
  }

  /** For Turns: starts the work. */
  start(): void {
    this.#state = "ready";
    this.#turns.ready(this);
  }

  /** For Turns: runs one slice. */
  step(): void {
    this.#resumed = false;
    let result: StepResult;
    try {
      result = this.work.step();
    } catch (error) {
      this.cancel();
      this.work.fail(error);
      return;
    }
    if (this.#state === "over") return;
    if (result === "done") this.cancel();
    else if (result === "wait" && !this.#resumed) this.#state = "parked";
    else this.#turns.ready(this);
  }
}

function removeFrom(list: Ticket[], ticket: Ticket): boolean {
  const at = list.indexOf(ticket);
  if (at >= 0) list.splice(at, 1);
  return at >= 0;
}
