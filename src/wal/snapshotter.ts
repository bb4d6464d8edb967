/**
 * The snapshot files of raft: `<term>-<index>.snap`, a checksum around a raftpb.Snapshot, and `<index>.snap.db`, a
 * whole database received from the leader.
 *
 * Promises: a file has its final name only when its content is durable; a snapshot that fails its checksum is never
 * returned but renamed to `.broken`, and the one before it is tried. A file that cannot be read at all (no permission,
 * disk error) is an error and stays in place: it may be intact. Source: etcd server/etcdserver/api/snap
 */
import { crc32c } from "../base/crc32c.ts";
import type { Disk, DiskFile } from "../base/disk.ts";
import type { Logger } from "../base/log.ts";
import { ProtobufError } from "../base/protobuf.ts";
import { Snapshot } from "../proto/raftpb.ts";
import { SnapshotFile } from "../proto/snappb.ts";
import { errnoOf, SnapError, snapFileError, WalUsageError } from "./errors.ts";
import { hex16 } from "./names.ts";
import type { WalPosition } from "./replay.ts";

/** Gets the durations of what a Snapshotter does, in milliseconds. */
export interface SnapshotTiming {
  nowMs(): number;
  saved(encodeMs: number, syncMs: number, totalMs: number): void;
  received(syncMs: number, totalMs: number): void;
}

export interface SnapshotterOptions {
  readonly disk: Disk;
  /** Usually `<data-dir>/member/snap`. */
  readonly dir: string;
  readonly logger: Logger;
}

/** The messages hold membership and, from old members, the v2 store: far less than this. */
const SNAP_BYTES_MAX = 1024 * 1024 * 1024;

export class Snapshotter {
  readonly #disk: Disk;
  readonly #dir: string;
  readonly #logger: Logger;
  timing: SnapshotTiming | undefined;

  constructor(options: SnapshotterOptions) {
    this.#disk = options.disk;
    this.#dir = options.dir;
    this.#logger = options.logger;
  }

  /**
   * Writes the snapshot durably; an empty one (index 0) is ignored. Save it before its record in the log. Throws
   * SnapError.
   */
  save(snapshot: Snapshot): void {
    const { metadata } = snapshot;
    if (metadata === undefined || metadata.index === 0) return;
    const { timing } = this;
    const startMs = timing?.nowMs() ?? 0;
    const data = Snapshot.encode(snapshot);
    const bytes = SnapshotFile.encode({ crc: crc32c(data), data });
    const path = `${this.#dir}/${hex16(metadata.term)}-${hex16(metadata.index)}.snap`;
    const temporary = `${path}.tmp`;
    const encodedMs = timing?.nowMs() ?? 0;
    let file: DiskFile | undefined;
    try {
      file = this.#disk.open(temporary, "w", 0o600);
      file.write(bytes, 0);
      const writtenMs = timing?.nowMs() ?? 0;
      file.dataSync();
      const syncMs = timing === undefined ? 0 : timing.nowMs() - writtenMs;
      file.close();
      file = undefined;
      this.#disk.rename(temporary, path);
      this.#disk.syncDir(this.#dir);
      timing?.saved(encodedMs - startMs, syncMs, timing.nowMs() - startMs);
    } catch (cause) {
      file?.close();
      this.#tryRemove(temporary);
      throw snapFileError("write", path, cause);
    }
  }

  /** The newest intact snapshot; undefined when there is none. Throws SnapError when files cannot be read. */
  load(): Snapshot | undefined {
    return this.#loadMatching(() => true);
  }

  /**
   * The newest intact snapshot among those named in the log (`Wal.validSnapshotEntries`); undefined when there is none.
   */
  loadNewestAvailable(walSnapshots: readonly WalPosition[]): Snapshot | undefined {
    return this.#loadMatching(({ metadata }) =>
      walSnapshots.some(({ index, term }) => index === (metadata?.index ?? 0) && term === (metadata?.term ?? 0)),
    );
  }

  /** Index of the oldest snapshot file, whether intact or not; undefined when there is none. */
  oldestIndex(): number | undefined {
    let oldest: number | undefined;
    for (const name of this.#snapNames()) {
      // A file with another name may hold any snapshot.
      const index = Number.parseInt(/^[0-9a-f]{16}-([0-9a-f]{16})\.snap$/.exec(name)?.[1] ?? "0", 16);
      oldest = Math.min(oldest ?? index, index);
    }
    return oldest;
  }

  /** Removes received databases older than the snapshot at `index`; they are installed or superseded. */
  releaseSnapDbs(index: number): void {
    for (const name of this.#names()) {
      const dbIndex = parseSnapDbName(name);
      if (dbIndex === undefined || dbIndex >= index) continue;
      this.#logger.info("found orphaned .snap.db file; deleting", { path: `${this.#dir}/${name}` });
      this.#tryRemove(`${this.#dir}/${name}`);
    }
  }

  /** Removes leftovers of interrupted writes, transfers and defragmentations. Call before any transfer begins. */
  removeOrphans(): void {
    for (const name of this.#names()) {
      if (!name.startsWith("db.tmp") && !name.endsWith(".snap.tmp") && !/^tmp[0-9]+$/.test(name)) continue;
      this.#logger.info("found orphaned temporary file; deleting", { path: `${this.#dir}/${name}` });
      this.#tryRemove(`${this.#dir}/${name}`);
    }
  }

  /** Path of the database received with the snapshot at `index`, present or not. */
  dbPath(index: number): string {
    return `${this.#dir}/${hex16(index)}.snap.db`;
  }

  /** The same, if the file exists. Throws SNAP_DB_NOT_FOUND. */
  existingDbPath(index: number): string {
    const path = this.dbPath(index);
    if (this.#disk.exists(path)) return path;
    throw new SnapError(
      "SNAP_DB_NOT_FOUND",
      `snap: the database of the snapshot at index ${index} is not at ${path}. Remove this member, delete its data directory ` +
        "and add it again as a new member; it then receives the database from the leader.",
      { file: path },
    );
  }

  /** Starts storing a database received for the snapshot at `index`. Throws SnapError. */
  receiveDb(index: number): SnapDbWriter {
    return new SnapDbWriter(this.#disk, this.#dir, this.dbPath(index), this.#logger, this.timing);
  }

  #loadMatching(matches: (snapshot: Snapshot) => boolean): Snapshot | undefined {
    for (const name of this.#snapNames()) {
      const path = `${this.#dir}/${name}`;
      let snapshot: Snapshot;
      try {
        snapshot = readSnapshotFile(this.#disk, path);
      } catch (error) {
        if (!(error instanceof SnapError) || !error.code.startsWith("SNAP_")) throw error;
        this.#setAside(path, error);
        continue;
      }
      if (matches(snapshot)) return snapshot;
    }
    return undefined;
  }

  /** Names of snapshot files, newest first. */
  #snapNames(): string[] {
    return this.#names()
      .filter((name) => name.endsWith(".snap"))
      .sort()
      .reverse();
  }

  #names(): string[] {
    try {
      return this.#disk.readDir(this.#dir);
    } catch (cause) {
      throw snapFileError("list", this.#dir, cause);
    }
  }

  #setAside(path: string, error: SnapError): void {
    const broken = `${path}.broken`;
    try {
      this.#disk.rename(path, broken);
    } catch (cause) {
      throw snapFileError("set aside the damaged", path, cause);
    }
    this.#logger.warn("renamed to a broken snap file", { path, "broken-path": broken, error: error.message });
  }

  #tryRemove(path: string): void {
    tryRemove(this.#disk, path, this.#logger);
  }
}

/**
 * Reads one `.snap` file. Throws SNAP_EMPTY, SNAP_CRC_MISMATCH or SNAP_CORRUPT, or the error that prevented reading the
 * file.
 */
export function readSnapshotFile(disk: Disk, path: string): Snapshot {
  const bytes = readWhole(disk, path);
  const damaged = (code: "SNAP_EMPTY" | "SNAP_CRC_MISMATCH" | "SNAP_CORRUPT", what: string, cause?: unknown) =>
    new SnapError(
      code,
      `snap: ${path} ${what}. An older snapshot is used if there is one that the log continues from; otherwise remove this ` +
        "member, delete its data directory and add it again as a new member.",
      { file: path, cause },
    );
  if (bytes.length === 0) throw damaged("SNAP_EMPTY", "is empty");
  try {
    const file = SnapshotFile.decode(bytes);
    if (file.data.length === 0 || file.crc === 0) throw damaged("SNAP_EMPTY", "holds no snapshot");
    const crc = crc32c(file.data);
    if (crc !== file.crc) {
      throw damaged(
        "SNAP_CRC_MISMATCH",
        `fails its checksum (stored ${file.crc.toString(16)}, computed ${crc.toString(16)})`,
      );
    }
    const snapshot = Snapshot.decode(file.data);
    const { index = 0, term = 0 } = snapshot.metadata ?? {};
    if (!Number.isSafeInteger(index) || !Number.isSafeInteger(term)) {
      throw damaged("SNAP_CORRUPT", `has index ${index} and term ${term}, beyond 2^53`);
    }
    return snapshot;
  } catch (cause) {
    if (cause instanceof ProtobufError) throw damaged("SNAP_CORRUPT", `cannot be decoded (${cause.message})`, cause);
    throw cause;
  }
}

/** Writes a database from the leader to its `.snap.db` file. Use: `write` each part, then `commit`, or `abort`. */
export class SnapDbWriter {
  readonly #disk: Disk;
  readonly #dir: string;
  readonly #path: string;
  readonly #temporary: string;
  readonly #logger: Logger;
  #file: DiskFile | undefined;
  #bytes = 0;
  #committing = false;
  #writing = false;
  #aborted = false;
  readonly #timing: SnapshotTiming | undefined;
  readonly #startMs: number;

  constructor(disk: Disk, dir: string, path: string, logger: Logger, timing: SnapshotTiming | undefined) {
    this.#timing = timing;
    this.#startMs = timing?.nowMs() ?? 0;
    this.#disk = disk;
    this.#dir = dir;
    this.#path = path;
    this.#logger = logger;
    // Transfers of one snapshot may overlap when the leader retries.
    let number = 0;
    while (disk.exists(`${dir}/tmp${number}`)) number++;
    this.#temporary = `${dir}/tmp${number}`;
    try {
      this.#file = disk.open(this.#temporary, "wx", 0o600);
    } catch (cause) {
      throw snapFileError("create", this.#temporary, cause);
    }
  }

  /** Bytes written so far. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Path of the file until it is committed. */
  get temporaryPath(): string {
    return this.#temporary;
  }

  /** Throws SnapError, after removing what was written. */
  write(part: Uint8Array): void {
    const file = this.#opened();
    try {
      file.write(part, this.#bytes);
    } catch (cause) {
      this.abort();
      throw snapFileError("write", this.#path, cause);
    }
    this.#bytes += part.length;
  }

  /** The same on the thread pool, one part at a time; `part` belongs to the call until it is over. */
  async writeAsync(part: Uint8Array): Promise<void> {
    await this.#busy((file, done) => file.writeAsync(part, this.#bytes, done));
    this.#bytes += part.length;
  }

  /** Makes what was written durable, on the thread pool, so that `commit` has little left to do. */
  sync(): Promise<void> {
    return this.#busy((file, done) => file.dataSyncAsync(done));
  }

  /** The file stays open until `action` is over, and is removed then if it was aborted or failed. */
  #busy(action: (file: DiskFile, done: (error: Error | null) => void) => void): Promise<void> {
    const file = this.#opened();
    this.#writing = true;
    return new Promise((resolve, reject) => {
      action(file, (error) => {
        this.#writing = false;
        if (error !== null || this.#aborted) this.abort();
        if (error === null) resolve();
        else reject(snapFileError("write", this.#path, error));
      });
    });
  }

  #opened(): DiskFile {
    if (this.#file !== undefined && !this.#committing && !this.#writing && !this.#aborted) return this.#file;
    throw new WalUsageError(`${this.#path} is no longer being written`);
  }

  /**
   * Makes the file durable under its final name and calls `done` with null, or with the error after removing what was
   * written. Databases are large, so the sync runs on the thread pool. If another transfer finished first, its file
   * stays.
   */
  commit(done: (error: SnapError | null) => void): void {
    const file = this.#opened();
    this.#committing = true;
    const timing = this.#timing;
    const writtenMs = timing?.nowMs() ?? 0;
    file.dataSyncAsync((syncError) => {
      this.#committing = false;
      const syncedMs = timing?.nowMs() ?? 0;
      let failure: SnapError | null = null;
      try {
        if (syncError !== null) throw syncError;
        if (!this.#disk.exists(this.#path)) {
          this.#disk.rename(this.#temporary, this.#path);
          this.#disk.syncDir(this.#dir);
          timing?.received(syncedMs - writtenMs, timing.nowMs() - this.#startMs);
          this.#logger.info("saved database snapshot to disk", { path: this.#path, bytes: this.#bytes });
        }
      } catch (cause) {
        failure = snapFileError("write", this.#path, cause);
      }
      this.abort();
      done(failure);
    });
  }

  /** Removes what was written and not committed, after a write in flight. A commit in flight completes. */
  abort(): void {
    if (this.#file === undefined || this.#committing) return;
    this.#aborted = true;
    if (this.#writing) return;
    this.#file.close();
    this.#file = undefined;
    if (this.#disk.exists(this.#temporary)) tryRemove(this.#disk, this.#temporary, this.#logger);
  }
}

/** Index in the name of a received database, or undefined for another file. */
function parseSnapDbName(name: string): number | undefined {
  const match = /^([0-9a-f]{16})\.snap\.db$/.exec(name);
  if (match === null) return undefined;
  const index = Number.parseInt(match[1]!, 16);
  return Number.isSafeInteger(index) ? index : undefined;
}

function readWhole(disk: Disk, path: string): Buffer {
  let file: DiskFile | undefined;
  try {
    file = disk.open(path, "r");
    const size = file.size();
    if (size > SNAP_BYTES_MAX) {
      throw new SnapError("SNAP_CORRUPT", `snap: ${path} has ${size} bytes, more than the limit of ${SNAP_BYTES_MAX}`, {
        file: path,
      });
    }
    const bytes = Buffer.allocUnsafeSlow(size);
    return bytes.subarray(0, file.read(bytes, 0));
  } catch (cause) {
    throw snapFileError("read", path, cause);
  } finally {
    file?.close();
  }
}

function tryRemove(disk: Disk, path: string, logger: Logger): void {
  try {
    disk.remove(path);
  } catch (cause) {
    if (errnoOf(cause) !== "ENOENT") {
      logger.warn("failed to remove a file", { path, error: cause instanceof Error ? cause.message : String(cause) });
    }
  }
}
