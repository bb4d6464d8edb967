/** What a member's log says that lies on a simulated disk. */
import { nullLogger } from "../../src/base/log.ts";
import { Entry, HardState } from "../../src/proto/raftpb.ts";
import { Snapshot } from "../../src/proto/walpb.ts";
import { WalError } from "../../src/wal/errors.ts";
import { LogReader } from "../../src/wal/log-reader.ts";
import { listSegments, walExists } from "../../src/wal/names.ts";
import { RecordType } from "../../src/wal/record.ts";
import type { SimDisk } from "./disk.ts";

export const WAL_DIR = "/data/member/wal";

/** A log's state as its records are read in order. */
export interface LogState {
  readonly term: number;
  readonly vote: bigint;
  readonly lastIndex: number;
  readonly terms: ReadonlyMap<number, number>;
  /** The last record is not whole. */
  readonly isTorn: boolean;
}

/** Undefined when it cannot be read to its end. */
export function readLog(disk: SimDisk): LogState | undefined {
  if (!walExists(disk, WAL_DIR)) return undefined;
  const terms = new Map<number, number>();
  let [term, vote, lastIndex, isTorn] = [0, 0n, 0, false];
  const reader = new LogReader(disk, WAL_DIR, listSegments(disk, WAL_DIR, nullLogger));
  try {
    while (reader.next()) {
      if (reader.type === RecordType.entry) {
        const entry = Entry.decode(reader.data);
        for (let index = entry.index + 1; index <= lastIndex; index++) terms.delete(index);
        terms.set(entry.index, entry.term);
        lastIndex = entry.index;
      } else if (reader.type === RecordType.state) ({ term, vote } = HardState.decode(reader.data));
      else if (reader.type === RecordType.snapshot) lastIndex = Math.max(lastIndex, Snapshot.decode(reader.data).index);
    }
  } catch (error) {
    if (!(error instanceof WalError) || error.code !== "WAL_TORN_TAIL") return undefined;
    isTorn = true;
  } finally {
    reader.close();
  }
  return { term, vote, lastIndex, terms, isTorn };
}
