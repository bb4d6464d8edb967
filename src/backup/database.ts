/** What a database of a snapshot says of itself. */
import type { Disk } from "../base/disk.ts";
import { BoltReader } from "../bolt/reader.ts";
import { mainOf } from "../mvcc/model/revision.ts";

export interface DatabaseRange {
  /** The revision of its last change. */
  readonly revision: number;
  /** What is before it is forgotten; 0 when nothing is. */
  readonly compactRevision: number;
}

const KEY = Buffer.from("key");
const META = Buffer.from("meta");
const COMPACTIONS = ["finishedCompactRev", "scheduledCompactRev"].map((name) => Buffer.from(name));

/** Throws BoltError. */
function rangeOf(reader: BoltReader): DatabaseRange {
  const meta = reader.bucket(META);
  const compactions = COMPACTIONS.map((name) => meta?.get(name)).map((bytes) => (bytes ? mainOf(bytes) : 0));
  const compactRevision = Math.max(...compactions);
  const last = reader.bucket(KEY)?.last();
  // The last change may have been a deletion that is compacted.
  return { revision: Math.max(1, compactRevision, last === undefined ? 0 : mainOf(last.key)), compactRevision };
}

export function rangeOfFile(disk: Disk, path: string): DatabaseRange {
  const reader = new BoltReader({ disk, path });
  try {
    return rangeOf(reader);
  } finally {
    reader.close();
  }
}
