/**
 * How far the log is durable here, from what was written and synced. It checks what raft is told, so that a promise
 * that the disk does not keep ends the process before it is sent: acknowledgements, stable entries, and applied
 * entries.
 */
import { invariant } from "../../base/fatal.ts";
import { type Entry, type Message, MessageType } from "../../proto/raftpb.ts";

/** A raft node, as far as its log decides what a response means. */
export interface NodeLog {
  readonly term: number;
  readonly log: { matchTerm(index: number, term: number): boolean };
}

export class DurableIndex {
  /** Everything up to here is durable. */
  #durable: number;
  /** Last entry written. */
  #written: number;
  /** The index that the sync in progress will make durable. */
  #syncing = 0;

  /** An opened log is durable. */
  constructor(lastIndex: number) {
    this.#durable = lastIndex;
    this.#written = lastIndex;
  }

  /** Entries replace the log from their first index on. */
  wrote(entries: readonly Entry[]): void {
    const first = entries[0];
    if (first === undefined) return;
    this.#durable = Math.min(this.#durable, first.index - 1);
    this.#syncing = Math.min(this.#syncing, first.index - 1);
    this.#written = entries[entries.length - 1]!.index;
  }

  syncBegins(): void {
    this.#syncing = this.#written;
  }

  syncEnded(): void {
    this.#durable = Math.max(this.#durable, this.#syncing);
  }

  /** The log restarts after a durable snapshot; everything written before is durable too. */
  snapshotSaved(index: number): void {
    this.#durable = index;
    this.#written = index;
    this.#syncing = index;
  }

  /**
   * Call it before a response is delivered. A response of an earlier term concerns a log that may have been
   * overwritten, and has no effect. Nor has the report that an entry is stable which was overwritten since: a write of
   * this term may have been the last to report an entry of an earlier one.
   */
  checkResponse({ type, reject, term, index, logTerm }: Message, { term: nodeTerm, log }: NodeLog): void {
    const isReport = type === MessageType.MsgStorageAppendResp;
    const promises = type === MessageType.MsgAppResp ? !reject : isReport;
    if (!promises || term !== nodeTerm || index <= this.#durable) return;
    if (isReport && !log.matchTerm(index, logTerm)) return;
    invariant(false, "only what is durable is acknowledged", index, this.#durable);
  }

  /** Call it before entries are applied. */
  checkApply(entries: readonly Entry[]): void {
    const last = entries[entries.length - 1]?.index ?? 0;
    invariant(last <= this.#durable, "only what is durable here is applied", last, this.#durable);
  }
}
