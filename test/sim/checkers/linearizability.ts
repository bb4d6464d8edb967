/**
 * Linearizability of etcd's key-value interface.
 *
 * Every answer names a revision, and a write's is its own. That provides the order that a general checker (Porcupine)
 * must search for: writes by revision, a read after the write whose revision it names. It remains to check that each
 * answer matches the model at its place, that the order agrees with real time, and that every revision was made once,
 * by a request that could make it; requests with unknown outcome fill the gaps.
 *
 * The time is linear in the history, except for gaps that several requests could fill: these need a matching.
 */
import { isDeepStrictEqual } from "node:util";
import type { Finding, Moment, Operation, Revision } from "./history.ts";
import {
  type Answer,
  answerWrote,
  KeySpace,
  type Kv,
  type KvRequest,
  type ModelEvent,
  ModelRefusal,
  mayWrite,
  valuesOf,
} from "./model.ts";

export interface Linearized {
  readonly findings: readonly Finding[];
  readonly space: KeySpace;
  /** Revisions that ended a lease, and which one: no client request made them. */
  readonly leaseEnds: ReadonlyMap<number, bigint>;
  readonly operations: number;
}

export interface LinearizabilityInput {
  readonly operations: readonly Operation[];
  /** From revision 2 on, without gaps. */
  readonly revisions: readonly Revision[];
  /** Serializable reads may be stale. */
  readonly isSerializable: (operation: Operation) => boolean;
  /** True when a revision's `seen` is its first application anywhere: later calls must then see it. */
  readonly seenIsKnown: boolean;
}

export function checkLinearizability(input: LinearizabilityInput): Linearized {
  return new Check(input).run();
}

/** A possible maker of an unclaimed revision: a request with unknown outcome, or the end of this lease. */
type Maker = Operation | bigint;

class Check {
  readonly #input: LinearizabilityInput;
  readonly #findings: Finding[] = [];
  readonly #space = new KeySpace();
  /** The maker of each revision. */
  readonly #makers = new Map<number, Operation>();
  readonly #leaseEnds = new Map<number, bigint>();

  constructor(input: LinearizabilityInput) {
    this.#input = input;
  }

  run(): Linearized {
    this.#placeWrites();
    const gaps = this.#replay();
    this.#fillGaps(gaps);
    this.#checkReads();
    this.#checkRealTime();
    this.#checkCompactions();
    return {
      findings: this.#findings,
      space: this.#space,
      leaseEnds: this.#leaseEnds,
      operations: this.#input.operations.length,
    };
  }

  #placeWrites(): void {
    for (const operation of this.#input.operations) {
      const known = knownAnswer(operation);
      if (known === undefined || !answerWrote(known.answer)) continue;
      const other = this.#makers.get(known.revision);
      if (other !== undefined) {
        this.#report(
          operation,
          `two writes have revision ${known.revision}: ${nameOf(other)} and ${nameOf(operation)}`,
        );
      } else this.#makers.set(known.revision, operation);
      if (known.revision > this.#lastRevision) {
        this.#report(
          operation,
          `${nameOf(operation)} was acknowledged as revision ${known.revision}, which no member has`,
        );
      }
    }
  }

  get #lastRevision(): number {
    return this.#input.revisions.at(-1)?.revision ?? 1;
  }

  /** Processes the revisions in order; returns those that no acknowledged write claims. */
  #replay(): Revision[] {
    const gaps: Revision[] = [];
    for (const revision of this.#input.revisions) {
      const before = revision.revision - 1;
      if (before !== this.#space.revision) throw new Error(`revision ${revision.revision} follows ${before}`);
      const broken = brokenRow(this.#space, revision);
      if (broken !== undefined) this.#add(`revision ${revision.revision}: ${broken}`, revision.seen);
      const maker = this.#makers.get(revision.revision);
      if (maker === undefined) gaps.push(revision);
      else this.#checkWrite(maker, revision);
      this.#space.append(revision.events);
    }
    return gaps;
  }

  #checkWrite(operation: Operation, revision: Revision): void {
    const execution = this.#execute(operation, revision.revision - 1);
    if (execution === undefined) {
      this.#report(
        operation,
        `${nameOf(operation)} succeeded as revision ${revision.revision}, where it must be refused`,
      );
      return;
    }
    if (!isDeepStrictEqual(execution.events, revision.events)) {
      this.#report(
        operation,
        `${nameOf(operation)} must make revision ${revision.revision} ${showEvents(execution.events)}, but it is ${showEvents(revision.events)}`,
      );
    } else this.#compareAnswers(operation, execution.answer, revision.revision - 1);
    if (revision.seen > operation.returned) {
      this.#report(operation, `${nameOf(operation)} was answered before any member had applied it`);
    }
  }

  #execute(operation: Operation, revision: number): ReturnType<KeySpace["execute"]> | undefined {
    try {
      return this.#space.execute(operation.action as KvRequest, revision);
    } catch (error) {
      if (error instanceof ModelRefusal) return undefined;
      throw error;
    }
  }

  #compareAnswers(operation: Operation, expected: Answer, at: number): void {
    const known = knownAnswer(operation)!;
    if (isDeepStrictEqual(known.answer, expected)) return;
    this.#report(
      operation,
      `${nameOf(operation)} on the state at revision ${at} must answer ${show(expected)}, but answered ${show(known.answer)}`,
    );
  }

  /** Each gap was made by one request with unknown outcome, which makes at most one, or by the end of a lease. */
  #fillGaps(gaps: readonly Revision[]): void {
    const unknown = this.#input.operations.filter(
      ({ action, outcome }) => outcome.kind === "unknown" && isKv(action) && mayWrite(action),
    );
    const byValue = new Map<string, Operation[]>();
    const withoutValue: Operation[] = [];
    for (const operation of unknown) {
      const values = valuesOf(operation.action as KvRequest);
      for (const value of values) push(byValue, value, operation);
      withoutValue.push(operation);
    }
    const candidates = new Map<Revision, Maker[]>();
    for (const gap of gaps) {
      const put = gap.events.find(({ kv }) => kv !== undefined)?.kv;
      const pool = put === undefined ? withoutValue : [...(byValue.get(put.value) ?? []), ...(byValue.get("") ?? [])];
      const able: Maker[] = [...new Set(pool)].filter((operation) => this.#couldMake(operation, gap));
      const lease = this.#leaseEndOf(gap);
      if (lease !== undefined) able.push(lease);
      if (able.length > 0) candidates.set(gap, able);
      else {
        const events = showEvents(gap.events);
        this.#add(`nothing that any client asked for makes revision ${gap.revision}: ${events}`, gap.seen);
      }
    }
    this.#match(candidates);
  }

  #couldMake(operation: Operation, gap: Revision): boolean {
    if (operation.invoked > gap.seen) return false;
    const execution = this.#execute(operation, gap.revision - 1);
    return execution !== undefined && isDeepStrictEqual(execution.events, gap.events);
  }

  /** The lease whose keys this revision deletes, all of them. */
  #leaseEndOf(gap: Revision): bigint | undefined {
    const before = gap.revision - 1;
    const lease = this.#space.at(gap.events[0]!.key, before)?.lease ?? 0n;
    if (lease === 0n || gap.events.some(({ kv }) => kv !== undefined)) return undefined;
    const keys = this.#space.keys().filter((key) => this.#space.at(key, before)?.lease === lease);
    const same = keys.length === gap.events.length && keys.every((key, i) => gap.events[i]!.key === key);
    return same ? lease : undefined;
  }

  /** Bipartite matching by augmenting paths: gaps on one side, requests and leases on the other. */
  #match(candidates: ReadonlyMap<Revision, readonly Maker[]>): void {
    const takenBy = new Map<Maker, Revision>();
    const augment = (gap: Revision, tried: Set<Maker>): boolean => {
      for (const maker of candidates.get(gap)!) {
        if (tried.has(maker)) continue;
        tried.add(maker);
        const holder = takenBy.get(maker);
        if (holder !== undefined && !augment(holder, tried)) continue;
        takenBy.set(maker, gap);
        return true;
      }
      return false;
    };
    for (const [gap, able] of candidates) {
      if (augment(gap, new Set())) continue;
      const names = able.map((maker) => (typeof maker === "bigint" ? `the end of lease ${maker}` : nameOf(maker)));
      this.#add(`revision ${gap.revision} ${showEvents(gap.events)} took effect twice: ${names.join(", ")}`, gap.seen);
    }
    for (const [maker, gap] of takenBy) {
      // If a request could have made it too, the assignment may be the other way round.
      if (typeof maker !== "bigint") this.#makers.set(gap.revision, maker);
      else if (candidates.get(gap)!.length === 1) this.#leaseEnds.set(gap.revision, maker);
    }
  }

  #checkReads(): void {
    for (const operation of this.#input.operations) {
      const known = knownAnswer(operation);
      if (known === undefined || answerWrote(known.answer)) continue;
      const { revision } = known;
      if (revision > this.#lastRevision) {
        this.#report(operation, `${nameOf(operation)} read revision ${revision}, which no member has`);
        continue;
      }
      const execution = this.#execute(operation, revision);
      if (execution === undefined) this.#report(operation, `${nameOf(operation)} succeeded where it must be refused`);
      else this.#compareAnswers(operation, execution.answer, revision);
    }
  }

  /** A call that starts after a fact was known to any client must know it too. */
  #checkRealTime(): void {
    const marks: { moment: Moment; revision: number }[] = [];
    for (const { returned, outcome } of this.#input.operations) {
      if (outcome.kind === "ok") marks.push({ moment: returned, revision: outcome.revision });
    }
    if (this.#input.seenIsKnown)
      for (const { seen, revision } of this.#input.revisions) marks.push({ moment: seen, revision });
    marks.sort((a, b) => a.moment - b.moment);
    for (let i = 1; i < marks.length; i++) {
      const mark = marks[i]!;
      mark.revision = Math.max(mark.revision, marks[i - 1]!.revision);
    }
    const knownBefore = (moment: Moment): number => {
      let low = 0;
      let high = marks.length;
      while (low < high) {
        const middle = (low + high) >>> 1;
        if (marks[middle]!.moment < moment) low = middle + 1;
        else high = middle;
      }
      return low === 0 ? 1 : marks[low - 1]!.revision;
    };
    for (const operation of this.#input.operations) {
      const { outcome } = operation;
      if (outcome.kind !== "ok" || operation.action.kind === "other" || this.#input.isSerializable(operation)) continue;
      const known = knownAnswer(operation);
      if (known === undefined || answerWrote(known.answer)) continue;
      const floor = knownBefore(operation.invoked);
      if (outcome.revision < floor) {
        this.#report(
          operation,
          `${nameOf(operation)} read revision ${outcome.revision}, but ${floor} was known before it began`,
        );
      }
    }
    for (const [revision, operation] of this.#makers) {
      const floor = knownBefore(operation.invoked);
      if (revision <= floor) {
        this.#report(
          operation,
          `${nameOf(operation)} made revision ${revision}, but ${floor} was known before it began`,
        );
      }
    }
  }

  /**
   * A compacted revision is unavailable to every call after the compaction was acknowledged, and available to every
   * call before it was requested.
   */
  #checkCompactions(): void {
    const compactions = this.#input.operations.filter(({ action }) => action.kind === "compact");
    for (const operation of this.#input.operations) {
      const { action, outcome } = operation;
      if (action.kind !== "range" || action.request.revision === 0) continue;
      const { revision } = action.request;
      if (outcome.kind === "ok" && !this.#input.isSerializable(operation)) {
        const by = compactions.find(
          (each) => each.outcome.kind === "ok" && each.returned < operation.invoked && revisionOf(each) > revision,
        );
        if (by !== undefined)
          this.#report(operation, `${nameOf(operation)} read revision ${revision} after ${nameOf(by)} was done`);
      }
      if (outcome.kind === "refused" && outcome.error.includes("compacted")) {
        const by = compactions.some((each) => each.invoked < operation.returned && revisionOf(each) > revision);
        if (!by)
          this.#report(
            operation,
            `${nameOf(operation)} says that revision ${revision} is compacted, which nobody asked for`,
          );
      }
    }
  }

  #report(operation: Operation, message: string): void {
    this.#add(message, Number.isFinite(operation.returned) ? operation.returned : operation.invoked);
  }

  #add(message: string, moment: Moment): void {
    this.#findings.push({ checker: "linearizability", message, moment });
  }
}

/** What is wrong with the rows of a revision, whatever made it. */
function brokenRow(space: KeySpace, { revision, events }: Revision): string | undefined {
  if (events.length === 0) return "it has no events";
  for (const { key, kv } of events) {
    const old = space.at(key, revision - 1);
    if (kv === undefined) {
      if (old === undefined) return `key ${key} is deleted, but did not exist`;
      continue;
    }
    if (kv.mod !== revision) return `key ${key} has mod revision ${kv.mod}`;
    if (kv.create !== (old?.create ?? revision)) return `key ${key} has create revision ${kv.create}`;
    if (kv.version !== (old?.version ?? 0) + 1)
      return `key ${key} has version ${kv.version} after ${old?.version ?? 0}`;
  }
  return undefined;
}

function knownAnswer({ action, outcome }: Operation): { revision: number; answer: Answer } | undefined {
  if (outcome.kind !== "ok" || !isKv(action)) return undefined;
  return { revision: outcome.revision, answer: outcome.answer as Answer };
}

const isKv = (action: Operation["action"]): action is KvRequest => action.kind !== "compact" && action.kind !== "other";

const revisionOf = ({ action }: Operation): number => (action.kind === "compact" ? action.revision : 0);

function push<K, V>(map: Map<K, V[]>, key: K, value: V): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [value]);
  else list.push(value);
}

const nameOf = (operation: Operation): string =>
  `operation ${operation.id} (${operation.action.kind} by ${operation.client} at ${operation.member})`;

const showKv = (kv: Kv): string =>
  `${kv.key}=${kv.value}@${kv.mod}/${kv.create}/${kv.version}${kv.lease === 0n ? "" : `/lease ${kv.lease}`}`;

export function showEvents(events: readonly ModelEvent[]): string {
  return `[${events.map(({ key, kv }) => (kv === undefined ? `delete ${key}` : `put ${showKv(kv)}`)).join(", ")}]`;
}

function show(answer: Answer): string {
  switch (answer.kind) {
    case "put":
      return `put(prev ${answer.prev === undefined ? "none" : showKv(answer.prev)})`;
    case "delete":
      return `delete(${answer.deleted}, prev [${answer.prevs.map(showKv).join(", ")}])`;
    case "range":
      return `range(${answer.count}${answer.more ? ", more" : ""}: [${answer.kvs.map(showKv).join(", ")}])`;
    case "txn":
      return `txn(${answer.succeeded}: ${answer.answers.map(show).join("; ")})`;
  }
}
