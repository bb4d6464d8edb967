/** Examines a member's log and raft's snapshots without changing them. */
import type { Disk } from "../base/disk.ts";
import { nullLogger } from "../base/log.ts";
import { formatId } from "../membership/member.ts";
import { Metadata } from "../proto/etcdserverpb.ts";
import type { Snapshot } from "../proto/raftpb.ts";
import { SnapError, WalError } from "../wal/errors.ts";
import { listSegments } from "../wal/names.ts";
import { checkTail } from "../wal/repair.ts";
import { readSnapshotFile } from "../wal/snapshotter.ts";
import { Wal } from "../wal/wal.ts";
import type { Finding } from "./finding.ts";
import { WAYS_BACK } from "./ways-back.ts";

export interface LogState {
  /** Indexes of the first and the last entry, and the last known commit index. */
  readonly first: number;
  readonly last: number;
  readonly commit: number;
  readonly snapshotIndex: number;
  readonly memberId: bigint;
  readonly clusterId: bigint;
}

/** Undefined when there is no readable log. */
export function examineLog(
  disk: Disk,
  walDir: string,
  snapDir: string,
  isInUse: boolean,
  findings: Finding[],
): LogState | undefined {
  const snapshots = examineSnapshots(disk, snapDir, findings);
  if (!Wal.exists(disk, walDir)) {
    findings.push({
      severity: "problem",
      code: "log-missing",
      subject: "log",
      text: `there is no log in ${walDir}`,
      lost: "what this member has acknowledged and is not in its database",
      next: [
        `if the log lies elsewhere (--wal-dir), name that place: kvorum doctor DATA-DIR --wal-dir DIR`,
        ...WAYS_BACK,
      ],
    });
    return undefined;
  }
  try {
    const named = Wal.validSnapshotEntries(disk, walDir, nullLogger);
    const usable = snapshots.filter(({ metadata }) =>
      named.some(({ index, term }) => index === metadata?.index && term === metadata.term),
    );
    const { index = 0, term = 0 } = usable.at(-1)?.metadata ?? {};
    const content = Wal.openForRead({
      disk,
      dir: walDir,
      logger: nullLogger,
      snapshot: { index, term },
    }).readAll();
    // The end of a log that is being written is not torn.
    if (!isInUse) examineTail(disk, walDir, findings);
    const { nodeId, clusterId } = Metadata.decode(content.metadata);
    const state = {
      first: index + 1,
      last: content.entries.at(-1)?.index ?? index,
      commit: content.hardState?.commit ?? 0,
      snapshotIndex: index,
      memberId: nodeId,
      clusterId,
    };
    const segments = listSegments(disk, walDir, nullLogger).length;
    findings.push({
      severity: "ok",
      code: "log",
      subject: "log",
      text:
        `member ${formatId(nodeId)} of cluster ${formatId(clusterId)}: ${segments} segments, whole from entry ${state.first} to ` +
        `${state.last}, committed up to ${state.commit}`,
    });
    return state;
  } catch (error) {
    if (!(error instanceof WalError)) throw error;
    findings.push({
      severity: "problem",
      code: "log-damaged",
      subject: "log",
      text: `${error.message}${error.offset === undefined ? "" : ` (${error.file}, byte ${error.offset})`}`,
      lost: "the entries from there on, as far as only this member has them",
      next: WAYS_BACK,
    });
    return undefined;
  }
}

/** A tail torn by a crash was never acknowledged. */
function examineTail(disk: Disk, walDir: string, findings: Finding[]): void {
  const last = listSegments(disk, walDir, nullLogger).at(-1)!;
  try {
    checkTail(disk, walDir, nullLogger);
  } catch (error) {
    if (!(error instanceof WalError) || error.code !== "WAL_TORN_TAIL") throw error;
    findings.push({
      severity: "note",
      code: "log-torn",
      subject: "log",
      text: `a crash tore the end of ${walDir}/${last.name}; the member cuts it off at its next start. Nothing of it was acknowledged`,
      repair: {
        description: `cut it off now, and keep the segment as it is as ${last.name}.broken`,
        run: () => Wal.repair(disk, walDir, nullLogger).summary,
      },
    });
  }
}

/** The readable snapshots, oldest first. */
function examineSnapshots(disk: Disk, snapDir: string, findings: Finding[]): Snapshot[] {
  const names = disk.exists(snapDir) ? disk.readDir(snapDir).filter((name) => name.endsWith(".snap")) : [];
  const snapshots: Snapshot[] = [];
  for (const name of names.sort()) {
    try {
      snapshots.push(readSnapshotFile(disk, `${snapDir}/${name}`));
    } catch (error) {
      if (!(error instanceof SnapError)) throw error;
      findings.push({ severity: "warning", code: "snapshot-unreadable", subject: "snapshot", text: error.message });
    }
  }
  return snapshots;
}
