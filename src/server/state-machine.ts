import type { Clock } from "../base/clock.ts";
import { spentOn } from "../base/doing.ts";
import { goDuration } from "../base/duration.ts";
import type { Logger } from "../base/log.ts";
import { loadConfState, saveConfState } from "../membership/cluster.ts";
import { type Backend, metaKeys } from "../mvcc/backend.ts";
import type { ConfState, Entry } from "../proto/raftpb.ts";
import { EntryType } from "../proto/raftpb.ts";
import { type Applier, type Outcome, opNames } from "./apply.ts";
import type { ConfChanges } from "./conf-changes.ts";
import { ownRequestId } from "./entry-id.ts";
import { errors } from "./errors.ts";
import { decodeLogEntry } from "./log-entry.ts";
import type { ServerMetrics } from "./metrics.ts";
import type { Proposal } from "./proposal.ts";
import type { ProposalQueue } from "./proposal-queue.ts";
import { ResponseReads } from "./response-reads.ts";

/** What this member has applied of the log. */
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
  /** Entries up to this index are in the backend already. */
  readonly consistentIndex: number;
  /** Used when the backend has none. */
  readonly confState: ConfState;
  readonly metrics: ServerMetrics;
  readonly logger: Logger;
  readonly clock: Clock;
  readonly warningApplyDurationMs: number;
  readonly warningRequestDurationMs: number;
  /** The first entry of a leader's term, which is empty, was applied. */
  readonly onTermStarted: (term: number) => void;
  /** A request did not fit any more: raises the alarm, and resolves when that is known. */
  readonly onNoSpace: () => Promise<unknown>;
  readonly isNoSpace: () => boolean;
  readonly onConfState: () => void;
}

/** An application from here on may be what a long turn is told with. */
const NAMED_MS = 2;

/**
 * Applies the committed entries of the log in their order, and answers the proposals that they came from. Owns the
 * position up to which that was done, and raft's configuration there; both are saved with each batch of the backend.
 */
export class StateMachine {
  readonly #options: StateMachineOptions;
  #backend: Backend;
  #index: number;
  #term: number;
  #consistentIndex: number;
  #confState: ConfState;
  #startMs = 0;
  readonly #deferringReads = new ResponseReads(true);
  readonly #wholeReads = new ResponseReads(false);

  constructor(options: StateMachineOptions) {
    this.#options = options;
    this.#backend = options.backend;
    this.#index = options.applied.index;
    this.#term = options.applied.term;
    this.#consistentIndex = options.consistentIndex;
    const stored = loadConfState(options.backend);
    this.#confState = stored ?? options.confState;
    // A database that came from etcd 3.4 has none; from here on it must, for it may be sent to others.
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

  apply(entries: readonly Entry[]): void {
    const { metrics, clock } = this.#options;
    this.#startMs = clock.nowMs();
    for (const entry of entries) {
      if (entry.index <= this.#index) continue;
      if (entry.index !== this.#index + 1) {
        throw new Error(`entry ${entry.index} was committed, but ${this.#index} is the last one applied`);
      }
      this.#index = entry.index;
      this.#term = entry.term;
      if (entry.type === EntryType.EntryNormal) this.#applyNormal(entry);
      else this.#applyConfChange(entry);
    }
    metrics.proposalsApplied += entries.length;
    // What this member did not propose itself is not measured one by one.
    spentOn("apply of others' requests", clock.nowMs() - this.#startMs);
  }

  /** Goes on from the state of another backend, which a snapshot brought. */
  restore(backend: Backend, applied: AppliedPosition, confState: ConfState): void {
    this.#backend.setPreCommitHook(() => {});
    this.#backend = backend;
    this.#index = applied.index;
    this.#term = applied.term;
    this.#consistentIndex = applied.index;
    this.#confState = confState;
    // A database of etcd 3.4 does not hold it.
    saveConfState(backend, confState);
    backend.setPreCommitHook(() => this.#savePosition());
  }

  #applyNormal(entry: Entry): void {
    const { applier, isNoSpace, onTermStarted, onNoSpace } = this.#options;
    const proposal = this.#proposalOf(entry);
    if (entry.data.length === 0) {
      proposal?.finish(errors.leaderChanged);
      onTermStarted(entry.term);
      return;
    }
    // A restart replays what the backend already holds.
    if (entry.index <= this.#consistentIndex) return;
    let outcome: Outcome;
    if (proposal !== undefined) {
      outcome = applier.apply(proposal.op, proposal.request, proposal.user, entry.index, this.#readsFor(proposal));
      this.#observe(proposal);
    } else {
      const request = decodeLogEntry(entry.data, (reason) => this.#refused(entry, reason));
      if (request === undefined) return;
      outcome = applier.applyInternal(request, entry.index);
    }
    if (outcome === errors.noSpace && !isNoSpace()) void onNoSpace().then(() => proposal?.finish(outcome));
    else proposal?.finish(outcome);
  }

  #readsFor(proposal: Proposal): ResponseReads | null {
    if (!proposal.isWanted) return null;
    return (proposal.defersReads ? this.#deferringReads : this.#wholeReads).begin();
  }

  /** No version of etcd makes such an entry: every member passes over it alike. */
  #refused({ index, term, data }: Entry, reason: string): void {
    this.#options.logger.error("an entry of the log cannot be applied; passing over it", {
      index,
      term,
      "entry-size": data.length,
      error: reason,
    });
  }

  #proposalOf(entry: Entry): Proposal | undefined {
    const { proposals, idPrefix } = this.#options;
    const own = proposals.take(entry.index, entry.term, errors.leaderChanged);
    if (own !== undefined || !proposals.hasForwarded) return own;
    const id = ownRequestId(entry.data, idPrefix);
    return id < 0 ? undefined : proposals.takeForwarded(id);
  }

  #applyConfChange(entry: Entry): void {
    if (entry.index <= this.#consistentIndex) return;
    // A proposal whose place it took is lost.
    this.#options.proposals.take(entry.index, entry.term, errors.leaderChanged);
    this.#confState = this.#options.confChanges.apply(entry) ?? this.#confState;
    saveConfState(this.#backend, this.#confState);
    this.#options.onConfState();
  }

  /** Requests are applied back to back, so the end of one is the start of the next. */
  #observe({ op, sinceMs, payload }: Proposal): void {
    const { clock, metrics, logger, warningApplyDurationMs, warningRequestDurationMs } = this.#options;
    const nowMs = clock.nowMs();
    const tookMs = nowMs - this.#startMs;
    this.#startMs = nowMs;
    if (tookMs >= NAMED_MS) spentOn(`apply of ${opNames[op]}`, tookMs);
    metrics.observeApply(opNames[op], tookMs / 1000);
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
