import type { Clock } from "../../base/clock.ts";
import { spentOn } from "../../base/doing.ts";
import { goDuration } from "../../base/duration.ts";
import { invariant } from "../../base/fatal.ts";
import type { Logger } from "../../base/log.ts";
import { loadConfState, saveConfState } from "../../membership/cluster.ts";
import { type Backend, metaKeys } from "../../mvcc/backend/backend.ts";
import type { ConfState, Entry } from "../../proto/raftpb.ts";
import { EntryType } from "../../proto/raftpb.ts";
import { EtcdError, errors } from "../contract/errors.ts";
import type { ServerMetrics } from "../contract/metrics.ts";
import type { ReadSlice } from "../contract/options.ts";
import type { RequestTrace } from "../contract/trace.ts";
import { ownRequestId } from "../log/entry-id.ts";
import { type Op, opNames } from "../log/op.ts";
import type { Applied } from "../log/outcome.ts";
import type { Proposal, ProposalApplier, QueuedProposal } from "../log/proposal.ts";
import type { ProposalQueue } from "../log/proposal-queue.ts";
import type { Applier } from "./apply.ts";
import type { ConfChanges } from "./conf-changes.ts";
import { LongApply } from "./long-apply.ts";
import { ResponseReads } from "./response-reads.ts";

/** The applied position of this member. */
export interface AppliedPosition {
  readonly index: number;
  readonly term: number;
}

export interface StateMachineOptions {
  readonly applier: Applier;
  readonly confChanges: ConfChanges;
  readonly proposals: ProposalQueue;
  readonly backend: Backend;
  /** The upper 16 bits of this member's request ids. */
  readonly idPrefix: number;
  readonly applied: AppliedPosition;
  /** Entries up to this index are already in the backend. */
  readonly consistentIndex: number;
  /** Used when the backend has none. */
  readonly confState: ConfState;
  readonly metrics: ServerMetrics;
  readonly trace?: RequestTrace | undefined;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly readSlice: ReadSlice;
  /** See ApplySlice. */
  readonly longTurnMs: number;
  readonly warningApplyDurationMs: number;
  readonly warningRequestDurationMs: number;
  /** The empty first entry of a leader's term was applied. */
  readonly onTermStarted: (term: number) => void;
  /** A request no longer fits: raises the alarm, and resolves when that is known. */
  readonly onNoSpace: () => Promise<unknown>;
  readonly isNoSpace: () => boolean;
  readonly onConfState: () => void;
  /** True while the applied state must not grow; `resume` is called when it may again. */
  readonly isBlocked: () => boolean;
  /** Entries were applied, and more follow in another turn. */
  readonly onProgress: () => void;
  readonly onFailure: (error: unknown) => void;
}

/** An entry whose application takes many turns. */
interface LongEntry {
  readonly entry: Entry;
  readonly proposal: QueuedProposal | undefined;
  /** Runs one slice. Returns the final action after the last one; undefined before. */
  readonly step: () => (() => void) | undefined;
}

const NO_ENTRIES: readonly Entry[] = [];
/** Cost of an entry besides its bytes, and limit of one turn: a thousand small entries, or some megabytes. */
const ENTRY_COST = 2048;
const TURN_COST_MAX = 2 * 1024 * 1024;

/** An application of at least this duration may be named in the report of a long turn. */
const NAMED_MS = 2;

/**
 * Applies the committed entries in log order and answers their proposals. Owns the applied index and raft's
 * configuration at it; both are saved with each backend batch.
 *
 * One turn applies a limited amount. The rest follows in later turns, between other work of the member; an entry that
 * takes many turns counts as applied when all of it is.
 */
export class StateMachine implements ProposalApplier {
  readonly #options: StateMachineOptions;
  #backend: Backend;
  #index: number;
  #term: number;
  #consistentIndex: number;
  #confState: ConfState;
  #startMs = 0;
  /** Being applied, from `#next` on. */
  #entries: readonly Entry[] = NO_ENTRIES;
  #next = 0;
  #long: LongEntry | null = null;
  /** Called when all of `#entries` are applied; null when that happens in the turn of their arrival. */
  #done: (() => void) | null = null;
  /** Waits for the backend. */
  #isHeld = false;
  #stopped = false;
  readonly #deferringReads: ResponseReads;
  readonly #wholeReads: ResponseReads;

  constructor(options: StateMachineOptions) {
    this.#options = options;
    this.#deferringReads = new ResponseReads(true, options.readSlice);
    this.#wholeReads = new ResponseReads(false, options.readSlice);
    this.#backend = options.backend;
    this.#index = options.applied.index;
    this.#term = options.applied.term;
    this.#consistentIndex = options.consistentIndex;
    const stored = loadConfState(options.backend);
    this.#confState = stored ?? options.confState;
    // A database from etcd 3.4 has none; from here on it must, because it may be sent to other members.
    if (stored === undefined && options.applied.index > 0) saveConfState(options.backend, this.#confState);
    options.backend.setPreCommitHook(() => this.#savePosition());
  }

  get index(): number {
    return this.#index;
  }

  get term(): number {
    return this.#term;
  }

  get confState(): ConfState {
    return this.#confState;
  }

  /**
   * Applies entries. False when they take more than this turn: `done` is called when all are applied; do not call this
   * again before.
   */
  apply(entries: readonly Entry[], done: () => void): boolean {
    this.#entries = entries;
    this.#next = 0;
    const { logger } = this.#options;
    if (logger.debugEnabled) logger.debug("Applying entries", { "num-entries": entries.length });
    if (this.#applyTurn()) return true;
    this.#done = done;
    this.#schedule();
    return false;
  }

  /** The backend has room again. */
  resume(): void {
    if (!this.#isHeld) return;
    this.#isHeld = false;
    this.#schedule();
  }

  /** Leaves a partly applied entry: the backend is marked, and the log has the entry. */
  stop(): void {
    this.#stopped = true;
    this.#long?.proposal?.refuse(errors.stopped);
  }

  /** Applies as much as fits into one turn. True when that was all. */
  #applyTurn(): boolean {
    const { metrics, clock, logger } = this.#options;
    const entries = this.#entries;
    const { debugEnabled } = logger;
    this.#startMs = clock.nowMs();
    for (let cost = 0; this.#next < entries.length; ) {
      if (cost >= TURN_COST_MAX) return false;
      const entry = entries[this.#next++]!;
      if (entry.index <= this.#index) continue;
      invariant(entry.index === this.#index + 1, "entries are applied one by one", this.#index, entry.index);
      invariant(entry.term >= this.#term, "terms never fall along the log", this.#term, entry.term);
      if (debugEnabled) logger.debug("Applying entry", { index: entry.index, term: entry.term, type: entry.type });
      const { term } = this;
      this.#index = entry.index;
      this.#term = entry.term;
      if (entry.type === EntryType.EntryNormal) this.#applyNormal(entry);
      else this.#applyConfChange(entry);
      if (this.#long !== null) {
        // No backend batch may include this index before the entry is complete.
        this.#index = entry.index - 1;
        this.#term = term;
        return false;
      }
      cost += ENTRY_COST + entry.data.length;
    }
    this.#entries = NO_ENTRIES;
    metrics.proposalsApplied += entries.length;
    // Entries of other members are not measured individually.
    spentOn("apply of others' requests", clock.nowMs() - this.#startMs);
    return true;
  }

  #schedule(): void {
    this.#options.clock.defer(this.#turn);
  }

  readonly #turn = (): void => {
    if (this.#stopped) return;
    try {
      if (this.#options.isBlocked()) this.#isHeld = true;
      else if (this.#long !== null) this.#goOnWith(this.#long);
      else if (this.#applyTurn()) {
        const done = this.#done!;
        this.#done = null;
        done();
      } else {
        this.#options.onProgress();
        this.#schedule();
      }
    } catch (error) {
      this.#options.onFailure(error);
    }
  };

  #goOnWith(long: LongEntry): void {
    const { clock, longTurnMs, onProgress } = this.#options;
    if (!this.#backend.hasRoom) {
      void this.#backend.roomLeft().then(() => this.#schedule());
      return;
    }
    const startMs = clock.nowMs();
    let answer = long.step();
    let tookMs = clock.nowMs() - startMs;
    // Where no time passes during a turn, as in simulation, each slice has its own turn.
    while (answer === undefined && tookMs > 0 && tookMs < longTurnMs && this.#backend.hasRoom) {
      answer = long.step();
      tookMs = clock.nowMs() - startMs;
    }
    if (answer !== undefined) {
      const { entry } = long;
      this.#long = null;
      this.#index = entry.index;
      this.#term = entry.term;
      answer();
      onProgress();
    }
    spentOn("slices of a long apply", tookMs);
    // The next entry waits for another turn, so that a backend snapshot is possible between two long ones.
    this.#schedule();
  }

  /** Continues from the state of another backend, brought by a snapshot. */
  restore(backend: Backend, applied: AppliedPosition, confState: ConfState): void {
    this.#backend.setPreCommitHook(() => {});
    this.#backend = backend;
    this.#index = applied.index;
    this.#term = applied.term;
    this.#consistentIndex = applied.index;
    this.#confState = confState;
    // A database of etcd 3.4 does not contain it.
    saveConfState(backend, confState);
    backend.setPreCommitHook(() => this.#savePosition());
  }

  #applyNormal(entry: Entry): void {
    const { onTermStarted } = this.#options;
    const proposal = this.#proposalOf(entry);
    if (entry.data.length === 0) {
      proposal?.refuse(errors.leaderChanged);
      onTermStarted(entry.term);
      return;
    }
    // A restart replays entries that are already in the backend.
    if (entry.index <= this.#consistentIndex) return;
    if (proposal !== undefined) proposal.applyBy(this, entry);
    else this.#applyFound(entry);
  }

  applyProposal<O extends Op>(proposal: Proposal<O>, entry: Entry): void {
    const { op, request, user } = proposal;
    const applied = this.#options.applier.apply(op, request, user, entry.index, this.#readsFor(proposal));
    if (applied instanceof LongApply) {
      const step = (): (() => void) | undefined => {
        const whole = applied.step();
        if (whole === undefined) return undefined;
        return () => {
          this.#observe(proposal, whole);
          this.#answer(proposal, whole);
        };
      };
      this.#long = { entry, proposal, step };
    } else {
      this.#observe(proposal, applied);
      this.#answer(proposal, applied);
    }
  }

  /** Applies an entry without a waiting caller. */
  #applyFound(entry: Entry): void {
    const { applier } = this.#options;
    const applied = applier.applyEntry(entry.data, entry.index, (reason) => this.#refused(entry, reason));
    if (applied instanceof LongApply) {
      const step = (): (() => void) | undefined => {
        const whole = applied.step();
        return whole === undefined ? undefined : () => this.#noteSpace(whole);
      };
      this.#long = { entry, proposal: undefined, step };
    } else this.#noteSpace(applied);
  }

  #answer<O extends Op>(proposal: Proposal<O>, applied: Applied<O>): void {
    if (this.#isOutOfSpace(applied)) void this.#options.onNoSpace().then(() => proposal.refuse(errors.noSpace));
    else if (applied !== null) proposal.finish(applied);
  }

  #noteSpace(applied: Applied<Op>): void {
    if (this.#isOutOfSpace(applied)) void this.#options.onNoSpace();
  }

  /** The first request that did not fit: raise the alarm. */
  #isOutOfSpace(applied: Applied<Op>): boolean {
    return applied === errors.noSpace && !this.#options.isNoSpace();
  }

  #readsFor<O extends Op>(proposal: Proposal<O>): ResponseReads | null {
    if (!proposal.isWanted) return null;
    return (proposal.defersReads ? this.#deferringReads : this.#wholeReads).begin();
  }

  /** No version of etcd makes such an entry: every member skips it. */
  #refused({ index, term, data }: Entry, reason: string): void {
    this.#options.logger.error("an entry of the log cannot be applied; passing over it", {
      index,
      term,
      "entry-size": data.length,
      error: reason,
    });
  }

  #proposalOf(entry: Entry): QueuedProposal | undefined {
    const { proposals, idPrefix } = this.#options;
    const own = proposals.take(entry.index, entry.term, errors.leaderChanged);
    if (own !== undefined || !proposals.hasForwarded) return own;
    const id = ownRequestId(entry.data, idPrefix);
    return id < 0 ? undefined : proposals.takeForwarded(id);
  }

  #applyConfChange(entry: Entry): void {
    if (entry.index <= this.#consistentIndex) return;
    // A proposal whose position it took is lost.
    this.#options.proposals.take(entry.index, entry.term, errors.leaderChanged);
    this.#confState = this.#options.confChanges.apply(entry) ?? this.#confState;
    saveConfState(this.#backend, this.#confState);
    this.#options.onConfState();
  }

  /** Requests are applied back to back, so the end of one is the start of the next. */
  #observe<O extends Op>(proposal: Proposal<O>, applied: Applied<O>): void {
    const { op, sinceMs, payload } = proposal;
    const { clock, metrics, logger, warningApplyDurationMs, warningRequestDurationMs } = this.#options;
    const nowMs = clock.nowMs();
    const tookMs = nowMs - this.#startMs;
    this.#startMs = nowMs;
    if (tookMs >= NAMED_MS) spentOn(`apply of ${opNames[op]}`, tookMs);
    metrics.observeApply(opNames[op], tookMs / 1000);
    this.#options.trace?.applied(proposal);
    metrics.observeRequest(opNames[op], !(applied instanceof EtcdError), (nowMs - sinceMs) / 1000);
    if (nowMs - sinceMs >= warningRequestDurationMs) {
      logger.warn("request stats", {
        "time spent": goDuration(nowMs - sinceMs),
        request: opNames[op],
        "request size": payload.length,
      });
    }
    if (tookMs < warningApplyDurationMs) return;
    metrics.slowApplies++;
    logger.warn("apply request took too long", {
      took: goDuration(tookMs),
      "expected-duration": goDuration(warningApplyDurationMs),
      request: opNames[op],
    });
  }

  #savePosition(): void {
    const index = Buffer.alloc(8);
    index.writeBigUInt64BE(BigInt(Math.max(this.#index, this.#consistentIndex)));
    const term = Buffer.alloc(8);
    term.writeBigUInt64BE(BigInt(this.#term));
    this.#backend.put("meta", metaKeys.consistentIndex, index);
    this.#backend.put("meta", metaKeys.term, term);
  }
}
