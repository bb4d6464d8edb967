/** What the core reads of the stable log. It never writes: the owner of the RawNode does, as each Ready says. */
import type { ConfState, Entry, HardState, Snapshot } from "../proto/raftpb.ts";

/**
 * The stable log, its hard state and its last snapshot. Any error other than those named makes the node unusable.
 * The calls come often; keep them in memory.
 */
export interface RaftStorage {
  /** Read once, when a RawNode is made. `hardState` is undefined for a log that was never written. */
  initialState(): { readonly hardState: HardState | undefined; readonly confState: ConfState };

  /**
   * Entries [low, high), cut after `bytesMax` wire bytes (see entry-size.ts) but at least one. The caller owns the
   * array; the entries must not be changed. Throws ErrCompacted if `low` is compacted, ErrUnavailable if there are
   * none.
   */
  entries(low: number, high: number, bytesMax: number): Entry[];

  /** Term of an entry in [firstIndex - 1, lastIndex]. Throws ErrCompacted below, ErrUnavailable above. */
  term(index: number): number;

  /** Of the last entry; of the snapshot if none follows it. */
  lastIndex(): number;

  /** Of the first entry that is or would be there: one past the last compaction. */
  firstIndex(): number;

  /** The last snapshot. Throws ErrSnapshotTemporarilyUnavailable while it is being created. */
  snapshot(): Snapshot;
}
