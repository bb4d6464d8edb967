import type { EtcdError } from "../contract/errors.ts";
import type { RequestIdGenerator } from "./request-id.ts";

/** A read waiting to be linearizable. */
export interface Read {
  /** The state is new enough: execute it now. Or the error to answer with. */
  serve(error: EtcdError | null): void;
  /** Serving the read threw. Without this method the error ends the process. */
  failed?(error: unknown): void;
}

/** Resolves when the state is at least as new as now: to null, or to the error. */
export function readIndex(server: { read(read: Read): void }): Promise<EtcdError | null> {
  return new Promise((resolve) => server.read({ serve: resolve }));
}

interface Round {
  reads: Read[];
  readonly sinceMs: number;
  askedMs: number;
  /** Ids of its requests to raft; an answer to any of them is enough. */
  readonly ids: number[];
  /** Read index, once raft has confirmed the leader; 0 before. */
  index: number;
}

/** Reads that may wait. */
const READS_MAX = 100_000;
/** Reads served in one turn: some milliseconds. */
const READS_PER_TURN_MAX = 1000;
/** Context of a read index: the request id, big-endian, as in etcd. */
const CONTEXT_BYTES = 8;

/**
 * Linearizable reads: all waiting reads share one read-index round. During a round, arriving reads collect for the
 * next. A round is done when raft has returned an index and the state has applied it. Source: Raft thesis, section 6.4;
 * etcd `server/etcdserver/read`.
 */
export class ReadQueue {
  #next: Read[] = [];
  /** Reads that are not served yet: for the next round, in rounds, or overdue. */
  #waiting = 0;
  #nextSinceMs = 0;
  readonly #rounds = new Set<Round>();
  /** Rounds without an index, by the lower 48 bits of their request ids. */
  readonly #asked = new Map<number, Round>();
  readonly #ids: RequestIdGenerator;
  readonly #defer: (callback: () => void) => void;
  /** Reads of finished rounds that did not fit into this turn. */
  #overdue: { readonly reads: readonly Read[]; next: number; readonly error: EtcdError | null }[] = [];
  #servedInTurn = 0;

  /** `defer` calls back in a later turn, like `Clock.defer`. */
  constructor(ids: RequestIdGenerator, defer: (callback: () => void) => void) {
    this.#ids = ids;
    this.#defer = defer;
  }

  /** No more may be added until some are served: as many wait, in all rounds together, as may. */
  get full(): boolean {
    return this.#waiting >= READS_MAX;
  }

  add(read: Read, nowMs: number): void {
    if (this.#next.length === 0) this.#nextSinceMs = nowMs;
    this.#next.push(read);
    this.#waiting++;
  }

  /** Starts the next round if reads wait and none is being confirmed: returns the context for raft, or undefined. */
  startRound(nowMs: number, retryMs: number): Buffer | undefined {
    for (const round of this.#rounds) {
      if (round.index > 0) continue;
      // The request or its answer may be lost.
      return nowMs - round.askedMs < retryMs ? undefined : this.#ask(round, nowMs);
    }
    if (this.#next.length === 0) return undefined;
    const round = { reads: this.#next, sinceMs: this.#nextSinceMs, askedMs: nowMs, ids: [], index: 0 };
    this.#rounds.add(round);
    this.#next = [];
    return this.#ask(round, nowMs);
  }

  #ask(round: Round, nowMs: number): Buffer {
    const id = this.#ids.next();
    round.askedMs = nowMs;
    round.ids.push(id);
    this.#asked.set(id, round);
    const context = Buffer.allocUnsafe(CONTEXT_BYTES);
    context.writeUInt16BE(this.#ids.prefix, 0);
    context.writeUIntBE(id, 2, 6);
    return context;
  }

  /** False when this answer is no longer needed. */
  confirmed(context: Uint8Array, index: number): boolean {
    if (context.length !== CONTEXT_BYTES) return false;
    const bytes = Buffer.from(context.buffer, context.byteOffset, CONTEXT_BYTES);
    const round = bytes.readUInt16BE(0) === this.#ids.prefix ? this.#asked.get(bytes.readUIntBE(2, 6)) : undefined;
    if (round === undefined) return false;
    this.#forgetIds(round);
    round.index = index;
    return true;
  }

  /** Serves the rounds whose index is applied. */
  applied(appliedIndex: number): void {
    for (const round of this.#rounds) {
      if (round.index > 0 && round.index <= appliedIndex) this.#end(round, null);
    }
  }

  /** The leader changed: fails the rounds that the previous one has not answered. Returns their number. */
  leaderChanged(error: EtcdError): number {
    let count = 0;
    for (const round of this.#rounds) {
      if (round.index > 0) continue;
      this.#end(round, error);
      count++;
    }
    return count;
  }

  /** Fails rounds that began to wait before `beforeMs`. Returns their number. */
  expire(beforeMs: number, error: EtcdError): number {
    let count = 0;
    for (const round of this.#rounds) {
      if (round.sinceMs >= beforeMs) continue;
      this.#end(round, error);
      count++;
    }
    if (this.#next.length > 0 && this.#nextSinceMs < beforeMs) {
      const reads = this.#next;
      this.#next = [];
      count++;
      this.#serve(reads, error);
    }
    return count;
  }

  #end(round: Round, error: EtcdError | null): void {
    this.#rounds.delete(round);
    this.#forgetIds(round);
    this.#serve(round.reads, error);
  }

  /** Serves now, or what exceeds this turn in later ones: the state only gets newer. */
  #serve(reads: readonly Read[], error: EtcdError | null): void {
    this.#overdue.push({ reads, next: 0, error });
    if (this.#overdue.length === 1) this.#serveOverdue();
  }

  #serveOverdue(): void {
    for (;;) {
      const batch = this.#overdue[0];
      if (batch === undefined) return;
      while (batch.next < batch.reads.length) {
        if (this.#servedInTurn >= READS_PER_TURN_MAX) return;
        if (this.#servedInTurn++ === 0) this.#defer(this.#nextTurn);
        this.#waiting--;
        const read = batch.reads[batch.next++]!;
        try {
          read.serve(batch.error);
        } catch (error) {
          if (read.failed === undefined) throw error;
          read.failed(error);
        }
      }
      this.#overdue.shift();
    }
  }

  readonly #nextTurn = (): void => {
    this.#servedInTurn = 0;
    this.#serveOverdue();
  };

  #forgetIds(round: Round): void {
    for (const id of round.ids) this.#asked.delete(id);
    round.ids.length = 0;
  }
}
