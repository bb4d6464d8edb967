import type { Clock } from "../../base/clock.ts";
import { othersTurn } from "../../base/others-turn.ts";
import { mainOf, revisionBytes } from "../model/revision.ts";
import { type Backend, type BackendSnapshot, metaKeys } from "./backend.ts";

/**
 * A write transaction of many turns, as a backend sees it: batches that are sealed meanwhile hold a part of its rows. The
 * first of them says so in the bucket meta, and the one that holds the last rows takes that back. A crash in between leaves
 * the mark, and whoever opens the file takes the part away before anything else: the log brings the whole again.
 */
export class LongWrite {
  #main = 0;
  /** A sealed batch has the mark. */
  #isMarked = false;
  #ended: (() => void)[] = [];

  get isOpen(): boolean {
    return this.#main !== 0;
  }

  /** All its rows get the revision `main`. */
  begin(main: number): void {
    this.#main = main;
  }

  /** For the batch that is being sealed: adds the mark where it is due. */
  seal(put: (bucket: "meta", key: Uint8Array, value: Uint8Array) => void): void {
    if (this.#main === 0 || this.#isMarked) return;
    this.#isMarked = true;
    put("meta", metaKeys.unfinished, revisionBytes(this.#main, 0));
  }

  end(remove: (bucket: "meta", key: Uint8Array) => void): void {
    this.#main = 0;
    if (this.#isMarked) remove("meta", metaKeys.unfinished);
    this.#isMarked = false;
    this.release();
  }

  /** Lets go of those who wait for the end, which does not come any more. */
  release(): void {
    const ended = this.#ended;
    this.#ended = [];
    for (const resolve of ended) resolve();
  }

  /** Resolves when it has ended, or the backend closes. */
  whenEnded(): Promise<void> {
    return new Promise((resolve) => this.#ended.push(resolve));
  }
}

/** Whether a view has only a part of a write transaction. */
export function isUnfinished(snapshot: BackendSnapshot): boolean {
  for (const chunk of snapshot.entries("meta")) {
    if (chunk.some(({ key }) => metaKeys.unfinished.equals(key))) return true;
  }
  return false;
}

/** Takes away what a crash left of an unfinished transaction, in slices. Returns how many rows that were. */
export async function dropUnfinished(backend: Backend, clock: Clock): Promise<number> {
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
  // Only with the last row: a crash before begins again.
  backend.delete("meta", metaKeys.unfinished);
  await backend.commit();
  return dropped;
}

const SLICE_ROWS = 2000;
