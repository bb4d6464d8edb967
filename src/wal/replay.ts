/**
 * Interprets the records of a log: hard state, entries, snapshots. Three ways of reading: for a member that starts, for
 * choosing the snapshot to start from, and for checking a log without opening it.
 */
import type { Disk } from "../base/disk.ts";
import type { Logger } from "../base/log.ts";
import { type Codec, ProtobufError } from "../base/protobuf.ts";
import { Entry, EntryType, HardState } from "../proto/raftpb.ts";
import { Snapshot } from "../proto/walpb.ts";
import { RECOVER_MEMBER, WalError } from "./errors.ts";
import { LogReader } from "./log-reader.ts";
import { checkSequence, listSegments, type SegmentName, selectSegments } from "./names.ts";
import { RecordType } from "./record.ts";

/** Where to continue from: the snapshot that was loaded, or zeros for none. */
export interface WalPosition {
  readonly index: number;
  readonly term: number;
}

export interface Replayed {
  metadata: Uint8Array;
  /** Undefined if never written. */
  hardState: HardState | undefined;
  /** All entries after the snapshot; the last written wins where indexes repeat. Those after `hardState.commit` may still change. */
  entries: Entry[];
}

export interface ReplayResult extends Replayed {
  /** Last index in the log: of the last entry written or of a later snapshot. */
  lastIndex: number;
}

/**
 * Reads all records after `snapshot`. The caller owns the reader, which then knows where the log ends. Throws WalError.
 */
export function replay(reader: LogReader, dir: string, snapshot: WalPosition, tolerateTornTail: boolean): ReplayResult {
  const entries: Entry[] = [];
  let hardState: HardState | undefined;
  let lastIndex = snapshot.index;
  let matched = false;
  while (nextRecord(reader, tolerateTornTail)) {
    switch (reader.type) {
      case RecordType.entry: {
        const entry = decode(reader, Entry);
        if (entry.index > snapshot.index) {
          const offset = entry.index - snapshot.index - 1;
          if (offset > entries.length) {
            throw reader.damaged(
              "WAL_ENTRY_GAP",
              `entry ${entry.index} (term ${entry.term}) follows entry ${snapshot.index + entries.length}`,
            );
          }
          // The reader reuses its memory; and an entry that keeps a few bytes must not keep a whole window alive.
          entry.data = Buffer.from(entry.data);
          if (offset < entries.length) entries.length = offset;
          checkEntry(reader, entry, entries.at(-1)?.term ?? 0);
          entries.push(entry);
        }
        lastIndex = entry.index;
        break;
      }
      case RecordType.state:
        hardState = decodeState(reader);
        break;
      case RecordType.snapshot: {
        const found = decode(reader, Snapshot);
        if (found.index > lastIndex) lastIndex = found.index;
        if (matches(reader, found, snapshot)) matched = true;
        break;
      }
      default:
        checkKnown(reader);
    }
  }
  if (!matched) throw snapshotNotFound(dir, snapshot);
  return { metadata: reader.metadata!, hardState, entries, lastIndex };
}

/**
 * The snapshot records that the log's commit index covers, oldest first: a snapshot file that none of them names must
 * not be loaded, because the member may have stopped before it was logged. Segments in which no record of a snapshot at
 * `fromIndex` or later can be are not read. Tolerates a torn tail. Throws WalError.
 */
export function validSnapshotEntries(disk: Disk, dir: string, logger: Logger, fromIndex: number): Snapshot[] {
  const all = listSegments(disk, dir, logger);
  checkSequence(dir, all);
  // A snapshot is recorded when its entry is in the log: no segment that ends before has it.
  const first = all.findLastIndex(({ index }) => index <= fromIndex);
  const segments = all.slice(Math.max(0, first));
  const snapshots: Snapshot[] = [];
  let commit = 0;
  withReader(disk, dir, segments, (reader) => {
    if (reader.type === RecordType.snapshot) snapshots.push(decode(reader, Snapshot));
    else if (reader.type === RecordType.state) commit = decodeState(reader).commit;
  });
  return snapshots.filter((snapshot) => snapshot.index <= commit);
}

/** Reads the log from `snapshot` on, checks everything and returns the last hard state. Tolerates a torn tail. Throws WalError. */
export function verify(disk: Disk, dir: string, snapshot: WalPosition, logger: Logger): HardState | undefined {
  const segments = selectSegments(dir, listSegments(disk, dir, logger), snapshot.index);
  let hardState: HardState | undefined;
  let matched = false;
  withReader(disk, dir, segments, (reader) => {
    if (reader.type === RecordType.state) hardState = decodeState(reader);
    else if (reader.type === RecordType.snapshot) {
      if (matches(reader, decode(reader, Snapshot), snapshot)) matched = true;
    } else checkKnown(reader);
  });
  if (!matched) throw snapshotNotFound(dir, snapshot);
  return hardState;
}

function withReader(
  disk: Disk,
  dir: string,
  segments: readonly SegmentName[],
  visit: (reader: LogReader) => void,
): void {
  const reader = new LogReader(disk, dir, segments);
  try {
    while (nextRecord(reader, true)) visit(reader);
  } finally {
    reader.close();
  }
}

function nextRecord(reader: LogReader, tolerateTornTail: boolean): boolean {
  try {
    return reader.next();
  } catch (error) {
    if (tolerateTornTail && error instanceof WalError && error.code === "WAL_TORN_TAIL") return false;
    throw error;
  }
}

/** Decodes the current record and rejects numbers that are not exact. */
function decode<T extends Entry | HardState | Snapshot>(reader: LogReader, codec: Codec<T>): T {
  let message: T;
  try {
    message = codec.decode(reader.data);
  } catch (cause) {
    if (!(cause instanceof ProtobufError)) throw cause;
    throw reader.damaged("WAL_CORRUPT", `undecodable ${codec.typeName} (${cause.message})`, cause);
  }
  const index = "commit" in message ? message.commit : message.index;
  if (!Number.isSafeInteger(index) || !Number.isSafeInteger(message.term)) {
    throw reader.damaged("WAL_CORRUPT", `${codec.typeName} with index ${index} and term ${message.term}, beyond 2^53`);
  }
  return message;
}

/*
 * A record's checksum does not cover its type, so a flipped bit there turns an entry into a hard state, or the reverse,
 * and their fields have the same numbers. The result is impossible in other ways.
 */

function decodeState(reader: LogReader): HardState {
  const state = decode(reader, HardState);
  const isEntry = (state.term === 0 && state.commit > 0) || reader.data.length > HardState.encode(state).length;
  if (isEntry) throw reader.damaged("WAL_CORRUPT", `hard state of term ${state.term} that has the fields of an entry`);
  return state;
}

function checkEntry(reader: LogReader, { index, term, type }: Entry, termBefore: number): void {
  if (term >= Math.max(1, termBefore) && type <= EntryType.EntryConfChangeV2) return;
  throw reader.damaged(
    "WAL_CORRUPT",
    `entry ${index} with term ${term} and type ${type} after an entry of term ${termBefore}`,
  );
}

function matches(reader: LogReader, found: Snapshot, wanted: WalPosition): boolean {
  if (found.index !== wanted.index) return false;
  if (found.term === wanted.term) return true;
  throw new WalError(
    "WAL_SNAPSHOT_MISMATCH",
    `wal: ${reader.file} at offset ${reader.recordOffset} records the snapshot at index ${found.index} with term ${found.term}, ` +
      `the snapshot file has term ${wanted.term}: they belong to different histories. ${RECOVER_MEMBER}`,
    { file: reader.file, offset: reader.recordOffset },
  );
}

function checkKnown(reader: LogReader): void {
  if (reader.type >= RecordType.metadata && reader.type <= RecordType.snapshot) return;
  throw reader.damaged("WAL_CORRUPT", `record of unknown type ${reader.type}`);
}

function snapshotNotFound(dir: string, snapshot: WalPosition): WalError {
  return new WalError(
    "WAL_SNAPSHOT_NOT_FOUND",
    `wal: no record of the snapshot at index ${snapshot.index}, term ${snapshot.term} in ${dir}: snapshot files and log do not ` +
      `belong together. Move the newest .snap file away if the log mentions an older one. ${RECOVER_MEMBER}`,
    { file: dir },
  );
}
