import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import { othersTurn } from "../../base/others-turn.ts";
import { mainOf, revisionBytes } from "../model/revision.ts";
import { type Backend, type BackendSnapshot, metaKeys } from "./backend.ts";

/**
 * The backend's view of a write transaction of many turns: batches sealed meanwhile hold part of its rows. The first of
 * them sets a mark in the bucket meta, and the one with the last rows clears it. A crash in between leaves the mark,
 * and the next open removes the partial rows first: replaying the log restores all of them.
 */
export class LongWrite {
  #main = 0;
  /** A sealed batch has the mark. */
  #isMarked = false;
  #isAbandoned = false;
  #ended: (() => void)[] = [];

  get isOpen(): boolean {
    return this.#main !== 0;
  }

  /** All its rows have revision `main`. */
  begin(main: number): void {
    this.#main = main;
  }

  /** For the batch being sealed: adds the mark when needed. */
  seal(put: (bucket: "meta", key: Uint8Array, value: Uint8Array) => void): void {
    if (this.#main === 0 || this.#isMarked) return;
    this.#isMarked = true;
    put("meta", metaKeys.unfinished, revisionBytes(this.#main, 0));
  }

  end(remove: (bucket: "meta", key: Uint8Array) => void): void {
    this.#main = 0;
    if (this.#isMarked) remove("meta", metaKeys.unfinished);
    this.#isMarked = false;
    this.#release();
  }

  /** This process will not end an open one. */
  get isAbandoned(): boolean {
    return this.#isAbandoned;
  }

  /** No further rows come, because the member stops. */
  abandon(): void {
    this.#isAbandoned = true;
    this.#release();
  }

  /** Resolves when the write has ended or is abandoned. */
  whenEnded(): Promise<void> {
    return new Promise((resolve) => this.#ended.push(resolve));
  }

  #release(): void {
    const ended = this.#ended;
    this.#ended = [];
    for (const resolve of ended) resolve();
  }
}

/** Whether the newest state holds only part of a write transaction, of this process or of an earlier one. */
export function isMarked(backend: Backend): boolean {
  return backend.get("meta", metaKeys.unfinished) !== undefined;
}

/** Whether a view holds only part of a write transaction. */
export function isUnfinished(snapshot: BackendSnapshot): boolean {
  for (const chunk of snapshot.entries("meta")) {
    if (chunk.some(({ key }) => metaKeys.unfinished.equals(key))) return true;
  }
  return false;
}

/** Removes the rows of a transaction left unfinished by a crash, in slices. Returns their number. */
export async function dropUnfinished(backend: Backend, clock: Clock, logger: Logger): Promise<number> {
  const mark = backend.get("meta", metaKeys.unfinished);
  if (mark === undefined) return 0;
  const main = mainOf(mark);
  let dropped = 0;
  let fromSub = 0;
  for (;;) {
    const rows: { sub: number; tombstone: boolean }[] = [];
    backend.forEachRevision(main, fromSub, main + 1, (_main, sub, tombstone) => {
      return rows.push({ sub, tombstone }) < SLICE_ROWS;
    });
    for (const { sub, tombstone } of rows) backend.deleteRevision(main, sub, tombstone);
    dropped += rows.length;
    if (rows.length < SLICE_ROWS) break;
    fromSub = rows.at(-1)!.sub + 1;
    await backend.commit();
    await othersTurn(clock);
  }
  // Deleted with the last rows: after an earlier crash this starts again.
  backend.delete("meta", metaKeys.unfinished);
  await backend.commit();
  logger.info("dropped the rows of an unfinished transaction", { rows: dropped });
  return dropped;
}

const SLICE_ROWS = 2000;
