/**
 * Measures the turns of the event loop, because nothing else is served during one. It counts all turns, remembers the
 * long ones with what they did, and warns of those that are too long.
 *
 * A turn is the time between two polls for system events: the handlers of one poll and what they deferred. Time in
 * which the loop waits for events does not count. Time in which its thread waits for a processor counts, but is
 * reported separately, because this process does not cause it.
 */
import type { Clock } from "./clock.ts";
import { endOfTurn, forgetTurn } from "./doing.ts";
import { goDuration } from "./duration.ts";
import { Histogram } from "./histogram.ts";
import type { Logger } from "./log.ts";
import type { LoopProbe } from "./loop-probe.ts";

/** A turn that took long. */
export interface LongTurn {
  /** By the monotonic clock. */
  readonly endMs: number;
  /** Wall clock at its end, in milliseconds since the Unix epoch. */
  readonly endedAtMs: number;
  readonly tookMs: number;
  /** Part of the turn, at most, in which the thread waited for a processor. */
  readonly queuedMs: number;
  /** Part of the turn in which V8 collected garbage; known some turns later. */
  collectingMs: number;
  /** The longest piece of work in it; empty when unknown. */
  readonly what: string;
  readonly whatMs: number;
}

/** Turns of at least this length are remembered individually. */
const REMEMBER_MS = 20;
const REMEMBERED_MAX = 512;
/** Turns of at least this length cause a warning. */
const WARN_MS = 100;
/** A warning waits this long, until the time of the garbage collector is known. */
const WARN_DELAY_MS = 50;
/** Minimum time between warnings; the next one counts those left out. */
const WARN_PERIOD_MS = 10_000;
/** `longestMs` covers this period and the part of the next that has passed. */
const PERIOD_MS = 60_000;
/** While nothing is wrong, the time spent waiting for a processor is read at most this often. */
const QUEUED_PERIOD_MS = 50;

export class LoopWatch {
  /** Durations of all turns, in seconds. */
  readonly turns = new Histogram([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10]);
  readonly #clock: Clock;
  readonly #probe: LoopProbe;
  readonly #logger: Logger;
  readonly #cancel: (() => void)[];
  #turnStartMs: number;
  #idleMs: number;
  #queuedMs: number;
  #queuedReadAtMs: number;
  #remembered: LongTurn[] = [];
  #longestMs = 0;
  #longestBeforeMs = 0;
  #periodStartMs: number;
  #isWarning = false;
  /** The warning to be logged. */
  #pending: LongTurn | undefined;
  #warnedAtMs = Number.NEGATIVE_INFINITY;
  #unsaid = 0;

  constructor(options: { clock: Clock; probe: LoopProbe; logger: Logger }) {
    this.#clock = options.clock;
    this.#probe = options.probe;
    this.#logger = options.logger;
    this.#turnStartMs = this.#periodStartMs = this.#queuedReadAtMs = this.#clock.nowMs();
    this.#idleMs = this.#probe.idleMs();
    this.#queuedMs = this.#probe.queuedMs();
    this.#cancel = [
      this.#probe.everyTurn(() => this.#turnOver()),
      this.#probe.everyCollection((startMs, tookMs) => this.#collected(startMs, tookMs)),
    ];
  }

  /** The longest turn, in milliseconds, of at least the last minute and at most the last two. */
  get longestMs(): number {
    this.#startPeriod(this.#clock.nowMs());
    return Math.max(this.#longestMs, this.#longestBeforeMs);
  }

  /** The most recent long turns, oldest first. */
  get longTurns(): readonly LongTurn[] {
    return this.#remembered;
  }

  /** Enables warnings about long turns. During startup there is no client to delay. */
  startWarning(): void {
    this.#isWarning = true;
  }

  close(): void {
    for (const cancel of this.#cancel) cancel();
  }

  #turnOver(): void {
    const nowMs = this.#clock.nowMs();
    const idleMs = this.#probe.idleMs();
    const tookMs = nowMs - this.#turnStartMs - (idleMs - this.#idleMs);
    this.#turnStartMs = nowMs;
    this.#idleMs = idleMs;
    this.turns.observe(tookMs / 1000);
    if (this.#pending !== undefined && nowMs - this.#pending.endMs >= WARN_DELAY_MS) this.#warn(this.#pending);
    if (nowMs - this.#periodStartMs >= PERIOD_MS) this.#startPeriod(nowMs);
    if (tookMs > this.#longestMs) this.#longestMs = tookMs;
    if (tookMs < REMEMBER_MS) {
      forgetTurn();
      if (nowMs - this.#queuedReadAtMs >= QUEUED_PERIOD_MS) this.#readQueued(nowMs);
    } else this.#longTurn(nowMs, tookMs);
  }

  #readQueued(nowMs: number): number {
    const before = this.#queuedMs;
    this.#queuedMs = this.#probe.queuedMs();
    this.#queuedReadAtMs = nowMs;
    return this.#queuedMs - before;
  }

  #longTurn(nowMs: number, tookMs: number): void {
    const { what, tookMs: whatMs } = endOfTurn(nowMs);
    const queuedMs = Math.min(this.#readQueued(nowMs), tookMs);
    const turn: LongTurn = {
      endMs: nowMs,
      endedAtMs: this.#clock.wallMs(),
      tookMs,
      queuedMs,
      collectingMs: 0,
      what,
      whatMs,
    };
    this.#remembered.push(turn);
    if (this.#remembered.length > REMEMBERED_MAX) this.#remembered.shift();
    if (tookMs < WARN_MS || !this.#isWarning) return;
    if (nowMs - this.#warnedAtMs < WARN_PERIOD_MS) this.#unsaid++;
    else {
      this.#warnedAtMs = nowMs;
      this.#pending = turn;
    }
  }

  #collected(startMs: number, tookMs: number): void {
    const endMs = startMs + tookMs;
    for (let i = this.#remembered.length - 1; i >= 0; i--) {
      const turn = this.#remembered[i]!;
      if (turn.endMs < startMs) return;
      if (turn.endMs - turn.tookMs < endMs) turn.collectingMs += tookMs;
    }
  }

  #warn({ tookMs, queuedMs, collectingMs, what, whatMs }: LongTurn): void {
    this.#pending = undefined;
    const round = (ms: number): string => goDuration(Math.round(ms));
    this.#logger.warn("one turn of the event loop took too long; nothing else was served during it", {
      took: round(tookMs),
      "expected-duration": round(WARN_MS),
      work: what === "" ? "unknown" : what,
      "work-took": round(whatMs),
      "garbage-collection": round(collectingMs),
      "waited-for-processor-at-most": round(queuedMs),
      ...(this.#unsaid > 0 ? { "times-suppressed": this.#unsaid } : {}),
    });
    this.#unsaid = 0;
  }

  #startPeriod(nowMs: number): void {
    const periods = Math.floor((nowMs - this.#periodStartMs) / PERIOD_MS);
    if (periods === 0) return;
    this.#longestBeforeMs = periods === 1 ? this.#longestMs : 0;
    this.#longestMs = 0;
    this.#periodStartMs += periods * PERIOD_MS;
  }
}
