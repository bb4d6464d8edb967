/**
 * The write-ahead log of one member: hard states, entries and snapshot records, in etcd's on-disk format.
 *
 * Promises: data that `sync`, a `syncAsync` started after the append, or `saveSnapshot` reported as done survives a
 * crash; a failed write or sync stops the log for good (a second fdatasync would report success for data that is lost);
 * a full disk shows when the next segment is reserved, before the log depends on it. A log is either being read or
 * being appended to: `open`, then `readAll` once, then `append`.
 *
 * May not decide what is written or when it is synced, and reads no clock but the one given, for warnings about slow
 * syncs. Source: etcd server/storage/wal
 */
import type { Clock } from "../base/clock.ts";
import type { Disk, DiskFile } from "../base/disk.ts";
import type { Logger } from "../base/log.ts";
import type { Entry, HardState } from "../proto/raftpb.ts";
import { Snapshot } from "../proto/walpb.ts";
import { Encoder } from "./encoder.ts";
import { WalError, WalUsageError, walFileError } from "./errors.ts";
import { LogReader } from "./log-reader.ts";
import { listSegments, type SegmentName, selectSegments, walExists, walName } from "./names.ts";
import { SEGMENT_SIZE_BYTES } from "./record.ts";
import { lastNonZero, type RepairReport, repair, writeZeros } from "./repair.ts";
import { type Replayed, replay, validSnapshotEntries, verify, type WalPosition } from "./replay.ts";
import { SegmentAllocator } from "./segment-allocator.ts";
import { checkEntries, checkHardState } from "./succession.ts";

export interface WalOptions {
  readonly disk: Disk;
  /** Usually `<data-dir>/member/wal`. */
  readonly dir: string;
  readonly logger: Logger;
  /** For durations of syncs; without it none are measured. */
  readonly clock?: Clock | undefined;
  /** Gets the duration of every sync, in milliseconds, if there is a clock. */
  readonly onSync?: ((durationMs: number) => void) | undefined;
  /** A segment is closed by the first append after it has reached this size. Default 64 MB. */
  readonly segmentSizeBytes?: number | undefined;
  /** `--unsafe-no-fsync`: syncs report success at once. A crash of the machine then loses acknowledged writes. */
  readonly unsafeNoSync?: boolean | undefined;
}

export interface WalCreateOptions extends WalOptions {
  /** Encoded etcdserverpb.Metadata: the log's owner. */
  readonly metadata: Uint8Array;
  /** The snapshot that the log begins after. Default index 0, term 0. */
  readonly firstSnapshot?: Snapshot | undefined;
}

export interface WalOpenOptions extends WalOptions {
  /** The snapshot that was loaded; zeros for none. */
  readonly snapshot: WalPosition;
}

export interface WalContent extends Replayed {
  /** Bytes after the end of the log that were overwritten with zeros: parts of a write torn by a crash. */
  readonly cleared: { readonly file: string; readonly offset: number; readonly bytes: number } | undefined;
}

/** A larger batch is written in pieces of about this size. */
const WRITE_BYTES_MAX = 4 * 1024 * 1024;
const SLOW_SYNC_MS = 1000;

export class Wal {
  readonly #options: WalOptions;
  readonly #segmentSizeBytes: number;
  readonly #allocator: SegmentAllocator;
  readonly #encoder = new Encoder(0);
  /** Selected by `open`, not yet read by `readAll`. */
  #unread:
    | { readonly segments: readonly SegmentName[]; readonly snapshot: WalPosition; readonly writable: boolean }
    | undefined;
  /** The segments that this log still needs, oldest first; the last one is the tail. */
  #segments: HeldSegment[] = [];
  #tail: Tail | undefined;
  #metadata: Uint8Array = new Uint8Array(0);
  #hardState: HardState | undefined;
  #lastIndex = 0;
  /** The tail whose sync is on the thread pool. */
  #syncing: Tail | undefined;
  #closed = false;
  #writtenBytes = 0;
  #failure: WalError | undefined;

  private constructor(options: WalOptions) {
    this.#options = options;
    this.#segmentSizeBytes = options.segmentSizeBytes ?? SEGMENT_SIZE_BYTES;
    this.#allocator = new SegmentAllocator(options.disk, options.dir, this.#segmentSizeBytes, options.logger);
  }

  /** True when the directory holds a log. Throws WalError if it cannot be listed. */
  static exists(disk: Disk, dir: string): boolean {
    return walExists(disk, dir);
  }

  /** Creates a log, synced and ready for `append`. Until it is complete `exists` stays false. Throws WalError. */
  static create(options: WalCreateOptions): Wal {
    const { disk, dir } = options;
    if (walExists(disk, dir)) {
      throw new WalError("WAL_EXISTS", `wal: ${dir} holds a log already. Use another --data-dir, or move it away.`, {
        file: dir,
      });
    }
    const first = options.firstSnapshot ?? Snapshot.create();
    checkSnapshot(first);
    const wal = new Wal(options);
    wal.#metadata = options.metadata;
    wal.#lastIndex = first.index;
    try {
      disk.makeDir(dir, 0o700);
    } catch (cause) {
      throw walFileError("create", dir, cause);
    }
    const file = wal.#allocator.take();
    wal.#encoder.segmentHeader(options.metadata);
    wal.#encoder.snapshot(first);
    wal.#publish(file, 0, 0);
    try {
      disk.syncDir(parentOf(dir));
    } catch (cause) {
      throw walFileError("sync", parentOf(dir), cause);
    }
    return wal;
  }

  /**
   * Opens the log for `readAll` and then `append`. Throws WAL_NOT_FOUND or WAL_SEGMENT_MISSING if segments that
   * continue from the snapshot are missing.
   */
  static open(options: WalOpenOptions): Wal {
    return Wal.#select(options, true);
  }

  /** Opens the log for `readAll` only: nothing is changed, and a torn tail counts as the end. */
  static openForRead(options: WalOpenOptions): Wal {
    return Wal.#select(options, false);
  }

  static #select(options: WalOpenOptions, writable: boolean): Wal {
    const { disk, dir, logger, snapshot } = options;
    const segments = selectSegments(dir, listSegments(disk, dir, logger), snapshot.index);
    const wal = new Wal(options);
    wal.#unread = { segments, snapshot, writable };
    wal.#segments = segments.map((segment) => ({ ...segment, bytes: 0 }));
    return wal;
  }

  /** Cuts a tail torn by a crash, keeping a copy. Throws the WalError that describes any other damage. */
  static repair(disk: Disk, dir: string, logger: Logger): RepairReport {
    return repair(disk, dir, logger);
  }

  /**
   * Snapshots that may be loaded: named in the log and covered by its commit index, oldest first. Without older ones than
   * `fromIndex` less of the log may have to be read.
   */
  static validSnapshotEntries(disk: Disk, dir: string, logger: Logger, fromIndex = 0): Snapshot[] {
    return validSnapshotEntries(disk, dir, logger, fromIndex);
  }

  /** Reads and checks the whole log from `snapshot` on without opening it; returns its last hard state. */
  static verify(disk: Disk, dir: string, snapshot: WalPosition, logger: Logger): HardState | undefined {
    return verify(disk, dir, snapshot, logger);
  }

  /**
   * Reads everything after the snapshot; call once. After `open` the log is then ready for `append`. Throws WalError;
   * WAL_TORN_TAIL (never after `openForRead`) means: `Wal.repair`, then open again.
   */
  readAll(): WalContent {
    const unread = this.#unread;
    if (unread === undefined) throw new WalUsageError("the log has been read already");
    this.#unread = undefined;
    const { disk, dir } = this.#options;
    const reader = new LogReader(disk, dir, unread.segments);
    try {
      const { lastIndex, ...content } = replay(reader, dir, unread.snapshot, !unread.writable);
      if (!unread.writable) return { ...content, cleared: undefined };
      this.#metadata = content.metadata;
      this.#hardState = content.hardState;
      this.#lastIndex = lastIndex;
      this.#encoder.crc = reader.crc;
      return { ...content, cleared: this.#openTail(unread.segments, reader.validEnd) };
    } finally {
      reader.close();
    }
  }

  /**
   * Writes the entries, then the hard state, without syncing: one write per batch. Begins a new segment first if the last one
   * is full; if there is no space for one (NO_SPACE), nothing has been written and the call may be repeated.
   */
  append(hardState: HardState | undefined, entries: readonly Entry[]): void {
    const tail = this.#writable();
    const hasState =
      hardState !== undefined && (hardState.term !== 0 || hardState.vote !== 0n || hardState.commit !== 0);
    if (entries.length === 0 && !hasState) return;
    const first = entries[0];
    if (first !== undefined && !(first.index <= this.#lastIndex + 1)) {
      throw new WalUsageError(`entry ${first.index} would leave a gap after entry ${this.#lastIndex}`);
    }
    checkEntries(entries);
    if (hasState) checkHardState(this.#hardState, hardState);
    if (tail.offset >= this.#segmentSizeBytes) this.#rotate(tail);

    const encoder = this.#encoder;
    for (let i = 0; i < entries.length; i++) {
      encoder.entry(entries[i]!);
      if (encoder.length >= WRITE_BYTES_MAX) this.#write();
    }
    if (entries.length > 0) this.#lastIndex = entries[entries.length - 1]!.index;
    if (hasState) {
      encoder.state(hardState);
      this.#hardState = hardState;
    }
    this.#write();
    if (this.#tail!.offset * 2 > this.#segmentSizeBytes) this.#allocator.start();
  }

  /** Makes everything appended durable, blocking. Throws WAL_SYNC_FAILED; after that the log accepts nothing more. */
  sync(): void {
    this.#syncFile(this.#writable().file);
  }

  /**
   * Makes everything appended before this call durable, on the thread pool; at most one at a time. `done` is called later and
   * gets the error if there was one.
   */
  syncAsync(done: (error: Error | null) => void): void {
    const tail = this.#writable();
    if (this.#syncing !== undefined) throw new WalUsageError("a sync is in flight already");
    this.#syncing = tail;
    const startMs = this.#options.clock?.nowMs();
    const finish = (error: Error | null): void => {
      this.#syncing = undefined;
      if (tail.retired) tail.syncFile.close();
      if (error === null) this.#reportSync(startMs);
      else this.#failSync(tail.syncFile.path, error);
      done(this.#failure ?? null);
    };
    // This file has its own descriptor: the kernel reports a lost write once per descriptor, and a blocking sync that
    // overtakes this one must see the error too.
    if (this.#options.unsafeNoSync === true) queueMicrotask(() => finish(null));
    else tail.syncFile.dataSyncAsync(finish);
  }

  /** True from `syncAsync` until its `done`. */
  get syncing(): boolean {
    return this.#syncing !== undefined;
  }

  /**
   * Records that the snapshot file exists, synced. The file must already be durable. A snapshot above index 0 needs its
   * ConfState.
   */
  saveSnapshot(snapshot: Snapshot): void {
    const tail = this.#writable();
    checkSnapshot(snapshot);
    this.#encoder.snapshot(snapshot);
    if (snapshot.index > this.#lastIndex) this.#lastIndex = snapshot.index;
    this.#write();
    this.#syncFile(tail.file);
  }

  /**
   * Releases the segments that are not needed to continue from a snapshot at `index`, so that `purgeFiles` may remove
   * them.
   */
  releaseTo(index: number): void {
    let keep = this.#segments.length - 1;
    while (keep > 0 && this.#segments[keep]!.index >= index) keep--;
    this.#segments.splice(0, keep);
  }

  /** True for a segment that the log still needs. */
  isHeld(name: string): boolean {
    return this.#segments.some((segment) => segment.name === name);
  }

  /** Index of the last entry appended, or of a later snapshot. */
  get lastIndex(): number {
    return this.#lastIndex;
  }

  /** Names of the segments that are still needed, oldest first. */
  get segmentNames(): string[] {
    return this.#segments.map((segment) => segment.name);
  }

  /** Bytes of records in the segments that are still needed, without reserved space. */
  get totalSizeBytes(): number {
    return this.#segments.reduce((sum, segment) => sum + segment.bytes, this.#tail?.offset ?? 0);
  }

  /** Bytes of records written since the log was opened. */
  get writtenBytes(): number {
    return this.#writtenBytes;
  }

  /** Syncs and closes. A failed log is only closed. Throws WAL_SYNC_FAILED. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#unread = undefined;
    this.#allocator.close();
    const tail = this.#tail;
    if (tail === undefined) return;
    try {
      if (this.#failure === undefined) this.#syncFile(tail.file);
    } finally {
      this.#retire(tail);
    }
  }

  /** The tail, if the log is writable. */
  #writable(): Tail {
    if (this.#failure !== undefined) {
      throw new WalError("WAL_FAILED", `wal: the log stopped after an earlier failure: ${this.#failure.message}`, {
        file: this.#failure.file,
        offset: this.#failure.offset,
        cause: this.#failure,
      });
    }
    if (this.#closed) throw new WalUsageError("the log is closed");
    if (this.#tail === undefined)
      throw new WalUsageError("the log has to be opened for writing and read before it is written");
    return this.#tail;
  }

  #write(): void {
    const tail = this.#tail!;
    const encoder = this.#encoder;
    try {
      tail.file.write(encoder.bytes(), tail.offset);
    } catch (cause) {
      throw this.#fail(walFileError(`write (at offset ${tail.offset})`, tail.file.path, cause));
    }
    tail.offset += encoder.length;
    this.#writtenBytes += encoder.length;
    encoder.clear();
  }

  #syncFile(file: DiskFile): void {
    if (this.#options.unsafeNoSync === true) return;
    const startMs = this.#options.clock?.nowMs();
    try {
      file.dataSync();
    } catch (cause) {
      throw this.#failSync(file.path, cause);
    }
    this.#reportSync(startMs);
  }

  #reportSync(startMs: number | undefined): void {
    if (startMs === undefined) return;
    const durationMs = this.#options.clock!.nowMs() - startMs;
    this.#options.onSync?.(durationMs);
    if (durationMs > SLOW_SYNC_MS) {
      this.#options.logger.warn("slow fdatasync", { "took-ms": durationMs, "expected-ms": SLOW_SYNC_MS });
    }
  }

  #failSync(file: string, cause: unknown): WalError {
    const text = cause instanceof Error ? cause.message : String(cause);
    return this.#fail(
      new WalError(
        "WAL_SYNC_FAILED",
        `wal: fdatasync of ${file} failed: ${text}. Writes since the last sync may be lost; none of them was acknowledged. The ` +
          "member has to stop: the kernel may report the next sync as done although the data is gone. Check the disk and the " +
          "kernel log before starting it again.",
        { file, cause },
      ),
    );
  }

  #fail(error: WalError): WalError {
    this.#failure ??= error;
    this.#allocator.close();
    this.#options.logger.error("WAL failed", { code: error.code, path: error.file, error: error.message });
    return error;
  }

  /**
   * Closes the tail and begins the next segment, unless its file is still being prepared and waiting for it is cheap.
   */
  #rotate(tail: Tail): void {
    if (!this.#allocator.ready && tail.offset < 2 * this.#segmentSizeBytes) return;
    const file = this.#allocator.take();
    try {
      // Readers take zeros for the end of the log, and unused reserved space is wasted.
      tail.file.truncate(tail.offset);
    } catch (cause) {
      throw this.#fail(walFileError("truncate", tail.file.path, cause));
    }
    this.#syncFile(tail.file);
    const last = this.#segments[this.#segments.length - 1]!;
    last.bytes = tail.offset;

    this.#encoder.segmentHeader(this.#metadata);
    if (this.#hardState !== undefined) this.#encoder.state(this.#hardState);
    this.#publish(file, last.seq + 1, this.#lastIndex + 1);
    this.#retire(tail);
  }

  /** Writes the encoded bytes as the beginning of a new segment and gives it its name only when they are durable. */
  #publish(file: DiskFile, seq: number, index: number): void {
    const { disk, dir, logger } = this.#options;
    const name = walName(seq, index);
    const path = `${dir}/${name}`;
    const offset = this.#encoder.length;
    try {
      file.write(this.#encoder.bytes(), 0);
      if (this.#options.unsafeNoSync !== true) file.dataSync();
      disk.rename(file.path, path);
      disk.syncDir(dir);
      file.close();
      this.#tail = openTail(disk, path, offset);
    } catch (cause) {
      throw this.#fail(walFileError("create segment", path, cause));
    }
    this.#encoder.clear();
    this.#segments.push({ name, seq, index, bytes: 0 });
    logger.info("created a new WAL segment", { path });
  }

  #openTail(segments: readonly SegmentName[], offset: number): WalContent["cleared"] {
    const { disk, dir, logger } = this.#options;
    const path = `${dir}/${segments[segments.length - 1]!.name}`;
    try {
      // Left by a stopped process.
      for (const name of disk.readDir(dir)) if (/^[01]\.tmp$/.test(name)) disk.remove(`${dir}/${name}`);
      for (const segment of this.#segments.slice(0, -1)) {
        const file = disk.open(`${dir}/${segment.name}`, "r");
        segment.bytes = file.size();
        file.close();
      }
      const tail = openTail(disk, path, offset);
      this.#tail = tail;
      // A torn write may have left later sectors after an unwritten first one. New records over only some of them would
      // make the rest look like damage.
      const end = lastNonZero(tail.file, offset);
      if (end > offset) writeZeros(tail.file, offset, end);
      // What a killed process wrote without syncing was read from the page cache. New records build on it, so a power
      // loss must not take it back.
      if (this.#options.unsafeNoSync !== true || end > offset) {
        tail.file.dataSync();
        disk.syncDir(dir);
      }
      if (end === offset) return undefined;
      logger.warn("cleared the rest of a torn write after the end of the WAL", { path, offset, bytes: end - offset });
      return { file: path, offset, bytes: end - offset };
    } catch (cause) {
      throw this.#fail(walFileError("open", path, cause));
    }
  }

  #retire(tail: Tail): void {
    tail.retired = true;
    tail.file.close();
    if (this.#syncing !== tail) tail.syncFile.close();
  }
}

interface HeldSegment extends SegmentName {
  /** Size in bytes once it is closed; zero for the tail. */
  bytes: number;
}

/** The segment that is being appended to. */
interface Tail {
  readonly file: DiskFile;
  /** The same file, opened once more for syncs on the thread pool. */
  readonly syncFile: DiskFile;
  /** Where the next record goes. */
  offset: number;
  /** Closed, except for `syncFile` if a sync is in flight. */
  retired: boolean;
}

function openTail(disk: Disk, path: string, offset: number): Tail {
  const file = disk.open(path, "r+");
  try {
    return { file, syncFile: disk.open(path, "r"), offset, retired: false };
  } catch (cause) {
    file.close();
    throw cause;
  }
}

function checkSnapshot(snapshot: Snapshot): void {
  if (snapshot.index > 0 && snapshot.confState === undefined) {
    throw new WalUsageError(`the snapshot record at index ${snapshot.index} has no ConfState`);
  }
}

function parentOf(dir: string): string {
  return dir.slice(0, Math.max(1, dir.lastIndexOf("/")));
}
