import type { EtcdError } from "./errors.ts";

/** A read that waits until it can be linearizable. */
export interface Read {
  /** The state is new enough: read it now. Or the error to answer with. */
  serve(error: EtcdError | null): void;
}

interface Round {
  reads: Read[];
  readonly sinceMs: number;
  askedMs: number;
  /** Read index, once raft has confirmed the leader; 0 before. */
  index: number;
}

/** Reads that may wait. */
const READS_MAX = 100_000;

/**
 * Linearizable reads: all that wait share one round of read index. While a round is under way, the reads that arrive
 * gather for the next. A round is done when raft has named an index and the state has applied it.
 * Source: Raft thesis, section 6.4.
 */
export class ReadQueue {
  #next: Read[] = [];
  #nextSinceMs = 0;
  readonly #rounds = new Map<number, Round>();
  #lastId = 0;

  get full(): boolean {
    return this.#next.length >= READS_MAX;
  }

  add(read: Read, nowMs: number): void {
    if (this.#next.length === 0) this.#nextSinceMs = nowMs;
    this.#next.push(read);
  }

  /** Starts the next round if reads wait and none is being confirmed: the context to ask raft with, or undefined. */
  startRound(nowMs: number, retryMs: number): Buffer | undefined {
    for (const [id, round] of this.#rounds) {
      if (round.index > 0) continue;
      if (nowMs - round.askedMs < retryMs) return undefined;
      // The question or its answer got lost: ask again under the same name.
      round.askedMs = nowMs;
      return contextOf(id);
    }
    if (this.#next.length === 0) return undefined;
    const id = ++this.#lastId;
    this.#rounds.set(id, { reads: this.#next, sinceMs: this.#nextSinceMs, askedMs: nowMs, index: 0 });
    this.#next = [];
    return contextOf(id);
  }

  confirmed(context: Uint8Array, index: number): void {
    const round = context.length === 8 ? this.#rounds.get(Number(Buffer.from(context).readBigUInt64BE(0))) : undefined;
    if (round !== undefined) round.index = index;
  }

  /** Serves the rounds whose index is applied. */
  applied(appliedIndex: number): void {
    for (const [id, round] of this.#rounds) {
      if (round.index === 0 || round.index > appliedIndex) continue;
      this.#rounds.delete(id);
      for (const read of round.reads) read.serve(null);
    }
  }

  expire(beforeMs: number, error: EtcdError): void {
    for (const [id, round] of this.#rounds) {
      if (round.sinceMs >= beforeMs) continue;
      this.#rounds.delete(id);
      for (const read of round.reads) read.serve(error);
    }
    if (this.#next.length > 0 && this.#nextSinceMs < beforeMs) {
      const reads = this.#next;
      this.#next = [];
      for (const read of reads) read.serve(error);
    }
  }
}

function contextOf(id: number): Buffer {
  const context = Buffer.alloc(8);
  context.writeBigUInt64BE(BigInt(id));
  return context;
}
