import * as fs from "node:fs";
import { basename, dirname, join } from "node:path";
import { codeOf } from "../../base/errors.ts";
import { BackendError, type BackendErrorCode } from "./backend.ts";

/**
 * The LMDB file from outside: which process has it open, whether it can be an LMDB file, what a library error means to
 * an operator. This code does not read or write the database itself.
 */

/**
 * Claims the file for this process, with a file beside it that names the owner. Takes over a file left by a dead
 * process. Throws ERR_BACKEND_IN_USE.
 */
export function acquireOwnership(path: string): void {
  const ownerPath = ownerPathOf(path);
  const self = describeProcess(process.pid);
  for (let attempt = 0; attempt < 3; attempt++) {
    try {
      const fd = fs.openSync(ownerPath, "wx", 0o600);
      fs.writeSync(fd, self);
      fs.closeSync(fd);
      return;
    } catch (error) {
      if (codeOf(error) !== "EEXIST") throw toBackendError(error, path, "open");
    }
    const other = otherOwnerOf(path);
    if (other !== undefined || ownedHere.has(path)) {
      throw new BackendError(
        "ERR_BACKEND_IN_USE",
        `the database ${path} is in use by process ${other ?? process.pid}: stop that process first (its mark is ${ownerPath})`,
      );
    }
    fs.rmSync(ownerPath, { force: true });
  }
  throw new BackendError("ERR_BACKEND_IN_USE", `the database ${path} is being opened by another process`);
}

/** Another live process that has the file open; undefined when there is none. */
export function otherOwnerOf(path: string): number | undefined {
  const owner = readOwner(ownerPathOf(path)).trim();
  const pid = Number.parseInt(owner, 10);
  return owner !== "" && pid !== process.pid && describeProcess(pid) === owner ? pid : undefined;
}

export function markOwned(path: string): void {
  ownedHere.add(path);
}

export function releaseOwnership(path: string): void {
  ownedHere.delete(path);
  fs.rmSync(ownerPathOf(path), { force: true });
}

/** Files opened by this process, because the owner file cannot distinguish them. */
const ownedHere = new Set<string>();

function ownerPathOf(path: string): string {
  return `${path}-owner`;
}

function readOwner(ownerPath: string): string {
  try {
    return fs.readFileSync(ownerPath, "utf8");
  } catch {
    return "";
  }
}

/** The process id and, where available, the process's start time: process ids are reused. */
function describeProcess(pid: number): string {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, "latin1");
    const bootId = fs.readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim();
    // The second field is the program's name in parentheses and may hold anything; the start time is the 22nd.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    // An ended process stays in the table until its parent has reaped it.
    if (fields[0] === "Z" || fields[0] === "X") return "";
    return `${pid} ${bootId} ${fields[19]}`;
  } catch {
    return isAlive(pid) ? `${pid}` : "";
  }
}

function isAlive(pid: number): boolean {
  if (!Number.isInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return codeOf(error) === "EPERM";
  }
}

/** Removes leftovers of a defragmentation interrupted by a crash. */
export function removeLeftovers(path: string): void {
  const prefix = `${basename(path)}${DEFRAG_INFIX}`;
  for (const name of fs.readdirSync(dirname(path))) {
    if (name.startsWith(prefix)) fs.rmSync(join(dirname(path), name), { force: true });
  }
}

let defragCount = 0;

/** A new name each time: LMDB must not see a name under which it still has another file open. */
export function defragPathOf(path: string): string {
  return `${path}${DEFRAG_INFIX}${process.pid}-${++defragCount}`;
}

const DEFRAG_INFIX = ".defrag-";

/**
 * Checks what LMDB does not check: that both copies of the header are its own, and that the file is as long as they say
 * (reading a mapped page past the end would kill the process). Throws ERR_BACKEND_CORRUPT. An absent or empty file, as
 * left by a crash during the very first start, is fine.
 */
export function checkFile(path: string): void {
  let fd: number;
  try {
    fd = fs.openSync(path, "r+");
  } catch (error) {
    if (codeOf(error) === "ENOENT") return;
    throw toBackendError(error, path, "open");
  }
  try {
    const size = fs.fstatSync(fd).size;
    if (size === 0) return;
    const first = readHeader(fd, 0);
    const second = first === undefined ? undefined : readHeader(fd, first.pageSize);
    if (first === undefined || second === undefined)
      throw isBolt(fd) ? foreign(path) : corrupt(path, "it is not an LMDB database");
    const latest = first.txnId > second.txnId ? first : second;
    const expected = (latest.lastPage + 1) * latest.pageSize;
    // LMDB does not write free pages at the end, so an intact file may be slightly short. The missing part reads as
    // zeros.
    if (size < expected) fs.ftruncateSync(fd, expected);
  } finally {
    fs.closeSync(fd);
  }
}

/**
 * Briefly opens LMDB's lock file, if there is one: if the library cannot, it ends the process instead of reporting it.
 * Only call it while this process does not have the database open, because closing would release its locks. Throws the
 * system's error.
 */
export function checkLockFile(path: string): void {
  try {
    fs.closeSync(fs.openSync(`${path}-lock`, "r+"));
  } catch (error) {
    if (codeOf(error) !== "ENOENT") throw error;
  }
}

interface Header {
  readonly pageSize: number;
  readonly lastPage: number;
  readonly txnId: number;
  /** The used part of the page. */
  readonly bytes: Buffer;
}

/** The newer of the two headers; undefined when the file is absent, empty, or not LMDB's. */
export function latestMeta(path: string): Header | undefined {
  let fd: number;
  try {
    fd = fs.openSync(path, "r");
  } catch {
    return undefined;
  }
  try {
    const first = readHeader(fd, 0);
    const second = first === undefined ? undefined : readHeader(fd, first.pageSize);
    return first !== undefined && second !== undefined && second.txnId > first.txnId ? second : first;
  } finally {
    fs.closeSync(fd);
  }
}

/** Layout of LMDB's MDB_meta after the page header, 64 bits, little endian. */
function readHeader(fd: number, position: number): Header | undefined {
  const bytes = Buffer.alloc(168);
  if (fs.readSync(fd, bytes, 0, bytes.length, position) < bytes.length) return undefined;
  if (bytes.readUInt32LE(24) !== 0xbeefc0de) return undefined;
  const pageSize = bytes.readUInt32LE(48);
  if (pageSize < 256 || pageSize > 65536 || (pageSize & (pageSize - 1)) !== 0) return undefined;
  return { pageSize, lastPage: Number(bytes.readBigUInt64LE(144)), txnId: Number(bytes.readBigUInt64LE(152)), bytes };
}

/** Whether the file is of this engine. */
export function isLmdbFile(path: string): boolean {
  return latestMeta(path) !== undefined;
}

/** Both metas of a bbolt file begin with its magic number; the first follows a page header of 16 bytes. */
function isBolt(fd: number): boolean {
  const bytes = Buffer.alloc(20);
  return fs.readSync(fd, bytes, 0, bytes.length, 0) === bytes.length && bytes.readUInt32LE(16) === 0xed0cdaed;
}

function foreign(path: string): BackendError {
  return new BackendError(
    "ERR_BACKEND_CORRUPT",
    `the database ${path} is a bbolt file, of stock etcd: nothing is wrong with it, but this server cannot open it. ` +
      "Start it with an empty --data-dir; the directory stays usable for stock etcd",
  );
}

export function corrupt(path: string, reason: string, cause?: unknown): BackendError {
  return new BackendError(
    "ERR_BACKEND_CORRUPT",
    `the database ${path} is damaged: ${reason}. Move the member's data directory away and add the member again, ` +
      "or restore a snapshot with etcdutl",
    { cause },
  );
}

export function closedError(path: string): BackendError {
  return new BackendError("ERR_BACKEND_CLOSED", `the database ${path} is closed`);
}

/** Converts an error of the file system or LMDB to one that says what to do. */
export function toBackendError(
  error: unknown,
  path: string,
  action: "open" | "read" | "commit" | "copy",
): BackendError {
  if (error instanceof BackendError) return error;
  const text = error instanceof Error ? error.message : String(error);
  // LMDB has its own error numbers.
  const code = typeof error === "object" && error !== null && "code" in error ? error.code : undefined;
  let kind = kindOf(code, text);
  // LMDB reports a short write as an input/output error.
  if (kind === "ERR_BACKEND_IO" && action !== "read" && diskIsFull(path)) kind = "ERR_BACKEND_NO_SPACE";
  if (kind === "ERR_BACKEND_CORRUPT") return corrupt(path, text, error);
  const reason = kind === "ERR_BACKEND_NO_SPACE" ? "no space left on device" : text;
  const advice = {
    ERR_BACKEND_NOT_WRITABLE: "make the file and its directory writable for this user",
    ERR_BACKEND_NO_SPACE: "free space on its disk and start again: nothing that was acknowledged is lost",
    ERR_BACKEND_IO: "check the disk and the kernel log",
  }[kind];
  return new BackendError(kind, `cannot ${action} the database ${path}: ${reason}; ${advice}`, { cause: error });
}

function diskIsFull(path: string): boolean {
  try {
    const { bavail, bsize } = fs.statfsSync(dirname(path));
    return bavail * bsize < 1024 * 1024;
  } catch {
    return false;
  }
}

function kindOf(
  code: unknown,
  text: string,
): BackendErrorCode & ("ERR_BACKEND_CORRUPT" | "ERR_BACKEND_NOT_WRITABLE" | "ERR_BACKEND_NO_SPACE" | "ERR_BACKEND_IO") {
  if (typeof code === "number" && lmdbCorruptCodes.has(code)) return "ERR_BACKEND_CORRUPT";
  if (code === 13 || code === 1 || code === 30 || code === "EACCES" || code === "EPERM" || code === "EROFS") {
    return "ERR_BACKEND_NOT_WRITABLE";
  }
  if (code === 28 || code === 122 || code === "ENOSPC" || code === "EDQUOT" || /No space left|quota/i.test(text)) {
    return "ERR_BACKEND_NO_SPACE";
  }
  return "ERR_BACKEND_IO";
}

/** MDB_PAGE_NOTFOUND, MDB_CORRUPTED, MDB_PANIC, MDB_VERSION_MISMATCH, MDB_INVALID. */
const lmdbCorruptCodes = new Set([-30797, -30796, -30795, -30794, -30793]);
