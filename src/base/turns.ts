/**
 * Long work on the one thread, cut into slices: who runs next, for how long, and how much may be under way.
 *
 * A piece of work does about a millisecond at each `step` and says whether there is more. All that is under way shares the
 * turns of the event loop: after the I/O of a turn, slices run until the turn's budget is spent, and the rest waits for the
 * next turn, so that small requests are never behind a large one but behind one slice of it.
 *
 * Fair by owner: the next slice is of the owner that has had the least time. An owner is whoever must not gain by asking for
 * more at once: a user, a connection, or the member itself. Within an owner, work runs in turn.
 *
 * Bounded: at most `activeMax` pieces of work hold memory at one time, and `activePerOwnerMax` of one owner; others wait in
 * the order of their arrival, and beyond `waitingMax` they are refused.
 */
import type { Clock } from "./clock.ts";
import { spentOn } from "./doing.ts";

/** What a step says: there is more to do, nothing for now (call `Ticket.resume`), or it is over. */
export type StepResult = "more" | "wait" | "done";

export interface Work {
  /** What it does, for logs: a request's name. */
  readonly name: string;
  /** Told once, before the first step, how it is resumed and given up. */
  attach?(ticket: Ticket): void;
  /** Does a bounded piece, about a millisecond. Not called again once it has said "done" or thrown. */
  step(): StepResult;
  /** A step threw, and the work is over: tells who asked for it. */
  fail(error: unknown): void;
}

/** Who the time of a piece of work is counted for. Compared by identity. */
export class Owner {
  readonly name: string;
  /** Time it has had, in milliseconds, never behind the owners that are served now. */
  spentMs = 0;
  /** Work of it that is under way, whether it can run or waits for something. */
  active = 0;
  readonly runnable: Ticket[] = [];
  readonly waiting: Ticket[] = [];

  constructor(name: string) {
    this.name = name;
  }
}

export interface TurnsOptions {
  readonly clock: Clock;
  /** Time that slices may take of one turn. */
  readonly budgetMs: number;
  /** Pieces of work under way at one time. */
  readonly activeMax: number;
  readonly activePerOwnerMax: number;
  /** Pieces of work that may wait for their start. */
  readonly waitingMax: number;
  /** Where the clock stands still during a turn, as in simulation: slices of one turn, and steps that are done at once. */
  readonly slicesMax: number;
  readonly stepsNowMax: number;
  /** One slice took longer than `longSliceMs`: it held everybody up. */
  readonly onLongSlice?: ((work: Work, tookMs: number) => void) | undefined;
  readonly longSliceMs: number;
}

export const TURNS_DEFAULTS = {
  budgetMs: 4,
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
  /** Owners with work that can run. */
  readonly #runnable = new Set<Owner>();
  /** Owners with work that waits for its start, in the order of arrival of their first. */
  readonly #waiting = new Set<Owner>();
  #active = 0;
  #waitingCount = 0;
  #scheduled = false;
  /** What was done at once in this turn, beside the turn's own slices. */
  #nowMs = 0;
  #nowSteps = 0;
  #resetScheduled = false;
  /** What the owner served last had spent: who comes anew starts here, and gains nothing by having been away. */
  #floorMs = 0;
  /** Slices run so far. */
  slices = 0;
  /** Pieces of work refused so far, because too many waited. */
  refused = 0;

  constructor(options: TurnsOptions) {
    this.#clock = options.clock;
    this.#options = options;
  }

  /** Pieces of work under way. */
  get active(): number {
    return this.#active;
  }

  /** Pieces of work that wait for their start. */
  get waiting(): number {
    return this.#waitingCount;
  }

  /** Takes work on, to be begun when its turn comes. Undefined when too much waits already: refuse the request. */
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
   * Takes work on, and begins it at once where that fits into this turn: what is short is over before this returns. Undefined as
   * for `add`.
   */
  begin(owner: Owner, work: Work): Ticket | undefined {
    const ticket = this.add(owner, work);
    if (ticket !== undefined) this.#runNow(ticket);
    return ticket;
  }

  /** The same for what cannot be refused any more, because what was asked for is done; something else bounds how many there are. */
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

  /** True while there is time left in this turn for what is done at once. */
  get hasTimeNow(): boolean {
    return this.#mayRunNow();
  }

  /** For what was done at once without being work: it took so long. */
  spend(tookMs: number): void {
    this.#nowMs += tookMs;
    this.#scheduleReset();
  }

  #mayRunNow(): boolean {
    if (this.#nowMs >= this.#options.budgetMs || this.#nowSteps >= this.#options.stepsNowMax) return false;
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

  /** For a Ticket that is given up: whatever it held is free. */
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

  /** Runs one slice, and counts its time. Returns when it ended. */
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

  /** The owner with the least time. There are few: an owner is here only while it has work that can run. */
  #next(): Owner {
    let best: Owner | undefined;
    for (const owner of this.#runnable) if (best === undefined || owner.spentMs < best.spentMs) best = owner;
    this.#floorMs = Math.max(this.#floorMs, best!.spentMs);
    return best!;
  }
}

/** A slice that the clock sees no time pass in costs something all the same. */
const SLICE_MS_MIN = 0.01;

/** One piece of work on its way. */
export class Ticket {
  readonly owner: Owner;
  readonly work: Work;
  readonly #turns: Turns;
  #state: "waiting" | "ready" | "parked" | "over" = "waiting";
  /** `resume` came while the step ran that is going to say "wait". */
  #resumed = false;

  constructor(turns: Turns, owner: Owner, work: Work) {
    this.#turns = turns;
    this.owner = owner;
    this.work = work;
  }

  /** It can run, and waits for its turn. */
  get isReady(): boolean {
    return this.#state === "ready";
  }

  /** What the work waited for has come. Harmless when it did not wait. */
  resume(): void {
    if (this.#state === "parked") {
      this.#state = "ready";
      this.#turns.ready(this);
    } else this.#resumed = true;
  }

  /** Gives the work up; it is not stepped again. Harmless when it is over. */
  cancel(): void {
    if (this.#state === "over") return;
    const wasStarted = this.#state !== "waiting";
    this.#state = "over";
    this.#turns.ended(this, wasStarted);
  }

  /** For Turns: its turn has come to be under way. */
  start(): void {
    this.#state = "ready";
    this.#turns.ready(this);
  }

  /** For Turns: its turn has come for a slice. */
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
