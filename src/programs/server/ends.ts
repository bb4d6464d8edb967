import { isFatal } from "../../base/fatal.ts";

/**
 * Every error that may end a member: each kind with its log line and, where the error's text does not say it, the
 * advice. Any other error is caught where it happens and fails one call, one connection or one attempt. An uncaught
 * error of any other kind also ends the process, as the last entry: its unfinished work is unknown, and the log
 * restores everything that was acknowledged.
 */
export interface End {
  readonly message: string;
  readonly advice?: string;
}

/** For a running member. The exit code is 1. */
export function endOf(error: unknown): End {
  return ENDS.get(nameOf(error)) ?? (isFatal(error) ? BROKEN : UNKNOWN);
}

/** For a member that failed to start. Entries with etcd's label concern initial membership or addresses. */
export function failedStartOf(error: unknown): End {
  if (STORED.has(nameOf(error))) return { message: "the data directory cannot be used" };
  return isFatal(error) ? BROKEN : { message: "discovery failed" };
}

const BEGIN_ANEW =
  "keep a copy of the data directory, and replace the member (etcdctl member remove, then member add): the leader then " +
  "sends it everything";

const ENDS: ReadonlyMap<string, End> = new Map([
  ["WalError", { message: "the log cannot be written" }],
  ["SnapError", { message: "a snapshot cannot be written" }],
  ["BoltError", { message: "a received database cannot be installed", advice: BEGIN_ANEW }],
  ["BackendError", { message: "the database cannot be used" }],
  ["LostLogError", { message: "this member has lost a part of its log" }],
  ["LogEntryError", { message: "the log holds what this version cannot apply" }],
  ["ServerTooOldError", { message: "the cluster has become newer than this server" }],
  ["CorruptionError", { message: "the data of this member differs from the others'" }],
]);

/** Errors found while opening stored data. */
const STORED: ReadonlySet<string> = new Set([
  "DataDirError",
  "BackendError",
  "WalError",
  "SnapError",
  "LogEntryError",
  "ServerTooOldError",
  "StorageVersionError",
]);

const BROKEN: End = {
  message: "something that must hold does not; ending before anything more is written",
  advice:
    "start the member again. If it ends in the same way, its stored state is damaged: keep a copy of the data directory, " +
    "replace the member (etcdctl member remove, then member add), and report the stack",
};

const UNKNOWN: End = {
  message: "uncaught exception",
  advice: "this is a mistake in the server: start the member again, and report the stack. Nothing acknowledged is lost",
};

function nameOf(error: unknown): string {
  return error instanceof Error ? error.name : "";
}
