/**
 * How far the log is durable here, by what was written and synced. A second account of what raft is told, so that a promise
 * which the disk does not keep ends the process before it is sent: acknowledgements, what counts as stable, and what is applied.
 */
import { invariant } from "../../base/fatal.ts";
import { type Entry, type Message, MessageType } from "../../proto/raftpb.ts";

export class DurableIndex {
  /** Everything up to here is on the disk. */
  #durable: number;
  /** Last entry written. */
  #written: number;
  /** What the sync under way will make durable. */
  #syncing = 0;

  /** A log that was opened is durable. */
  constructor(lastIndex: number) {
    this.#durable = lastIndex;
    this.#written = lastIndex;
  }

  /** Entries take the place of what was there from the first one on. */
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

  /** The log begins anew behind a snapshot that is durable, and so is all that was written before. */
  snapshotSaved(index: number): void {
    this.#durable = index;
    this.#written = index;
    this.#syncing = index;
  }

  /** Before a response is delivered. One of an earlier term speaks of a log that may have been overwritten, and counts nowhere. */
  checkResponse({ type, reject, term, index }: Message, nodeTerm: number): void {
    const promises = type === MessageType.MsgAppResp ? !reject : type === MessageType.MsgStorageAppendResp;
    if (!promises || term !== nodeTerm) return;
    invariant(index <= this.#durable, "only what is durable is acknowledged", index, this.#durable);
  }

  /** Before entries are applied. */
  checkApply(entries: readonly Entry[]): void {
    const last = entries[entries.length - 1]?.index ?? 0;
    invariant(last <= this.#durable, "only what is durable here is applied", last, this.#durable);
  }
}
