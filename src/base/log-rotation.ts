import * as fs from "node:fs";
import { basename, dirname, extname, join } from "node:path";
import { pipeline } from "node:stream/promises";
import { createGzip } from "node:zlib";
import type { Clock } from "./clock.ts";
import { type LogSink, reportWriteError, writeAll } from "./log-sink.ts";
import { makeDirs } from "./make-dir.ts";

/**
 * `--enable-log-rotation`: a log file that is renamed when it would exceed its size, with the names and the rules of
 * lumberjack, which etcd uses: `etcd.log` becomes `etcd-2026-01-02T15-04-05.000.log` (and `.gz` when compressed); old
 * files are removed by count and by age.
 */
export interface LogRotation {
  /** Megabytes (2^20 bytes) at which the file is rotated; 0 means 100. */
  readonly maxSizeMb: number;
  /** Days to keep an old file; 0 keeps it whatever its age. */
  readonly maxAgeDays: number;
  /** How many old files to keep; 0 keeps all that are young enough. */
  readonly maxBackups: number;
  /** Names old files by local time instead of UTC. */
  readonly localTime: boolean;
  /** Compresses old files with gzip. */
  readonly compress: boolean;
}

const MEGABYTE = 1024 * 1024;
const DEFAULT_MAX_SIZE_MB = 100;
const DAY_MS = 24 * 3600 * 1000;

export class RotatingFileSink implements LogSink {
  readonly path: string;
  readonly #rotation: LogRotation;
  readonly #clock: Clock;
  readonly #maxBytes: number;
  #fd = -1;
  #size = 0;
  #failed = false;
  /** Cleanup of old files runs one at a time, off the path of the line being written. */
  #cleaning: Promise<void> | undefined;
  #cleanAgain = false;

  constructor(path: string, rotation: LogRotation, clock: Clock) {
    this.path = path;
    this.#rotation = rotation;
    this.#clock = clock;
    this.#maxBytes = (rotation.maxSizeMb === 0 ? DEFAULT_MAX_SIZE_MB : rotation.maxSizeMb) * MEGABYTE;
    makeDirs(dirname(path), 0o755);
    this.#open(0o600);
    this.#clean();
  }

  write(line: string): void {
    const bytes = Buffer.from(line);
    try {
      if (this.#size > 0 && this.#size + bytes.length > this.#maxBytes) this.#rotate();
      if (this.#fd < 0) this.#open(0o600);
      writeAll(this.#fd, bytes);
      this.#size += bytes.length;
      this.#failed = false;
    } catch (error) {
      if (!this.#failed) reportWriteError(this.path, error);
      this.#failed = true;
    }
  }

  sync(): void {
    if (this.#fd >= 0) fs.fsyncSync(this.#fd);
  }

  close(): void {
    if (this.#fd >= 0) fs.closeSync(this.#fd);
    this.#fd = -1;
  }

  /** Resolves when no old file is being compressed or removed. */
  async settled(): Promise<void> {
    while (this.#cleaning !== undefined) await this.#cleaning;
  }

  #open(mode: number): void {
    this.#fd = fs.openSync(this.path, "a", mode);
    this.#size = fs.fstatSync(this.#fd).size;
  }

  #rotate(): void {
    const { mode } = fs.fstatSync(this.#fd);
    this.close();
    fs.renameSync(this.path, this.#backupPath());
    this.#open(mode & 0o777);
    this.#clean();
  }

  /** A free name: a second rotation within a millisecond takes the next one. */
  #backupPath(): string {
    const extension = extname(this.path);
    const stem = join(dirname(this.path), basename(this.path, extension));
    for (let wallMs = this.#clock.wallMs(); ; wallMs++) {
      const path = `${stem}-${backupTime(wallMs, this.#rotation.localTime)}${extension}`;
      if (!fs.existsSync(path) && !fs.existsSync(`${path}.gz`)) return path;
    }
  }

  #clean(): void {
    if (this.#cleaning !== undefined) {
      this.#cleanAgain = true;
      return;
    }
    this.#cleaning = this.#cleanOnce()
      .catch((error) => reportWriteError(this.path, error))
      .finally(() => {
        this.#cleaning = undefined;
        if (this.#cleanAgain) {
          this.#cleanAgain = false;
          this.#clean();
        }
      });
  }

  async #cleanOnce(): Promise<void> {
    const { maxBackups, maxAgeDays, compress } = this.#rotation;
    if (maxBackups === 0 && maxAgeDays === 0 && !compress) return;
    const oldest = maxAgeDays === 0 ? Number.NEGATIVE_INFINITY : this.#clock.wallMs() - maxAgeDays * DAY_MS;
    const keep: string[] = [];
    for (const { name, wallMs } of await this.#backups()) {
      const surplus = maxBackups > 0 && keep.length >= maxBackups;
      if (surplus || wallMs < oldest) await fs.promises.rm(join(dirname(this.path), name), { force: true });
      else keep.push(name);
    }
    if (!compress) return;
    for (const name of keep) if (!name.endsWith(".gz")) await compressFile(join(dirname(this.path), name));
  }

  /** Old files of this log, newest first. */
  async #backups(): Promise<{ name: string; wallMs: number }[]> {
    const extension = extname(this.path);
    const prefix = `${basename(this.path, extension)}-`;
    const found: { name: string; wallMs: number }[] = [];
    for (const name of await fs.promises.readdir(dirname(this.path))) {
      const plain = name.endsWith(".gz") ? name.slice(0, -3) : name;
      if (!plain.startsWith(prefix) || !plain.endsWith(extension)) continue;
      const wallMs = parseBackupTime(plain.slice(prefix.length, plain.length - extension.length), this.#rotation);
      if (wallMs !== undefined) found.push({ name, wallMs });
    }
    return found.sort((a, b) => b.wallMs - a.wallMs);
  }
}

/** Compresses beside the original and removes it last: a crash in between leaves the original. */
async function compressFile(path: string): Promise<void> {
  const { mode } = await fs.promises.stat(path);
  const target = `${path}.gz`;
  const partial = `${target}.partial`;
  await pipeline(fs.createReadStream(path), createGzip(), fs.createWriteStream(partial, { mode: mode & 0o777 }));
  await fs.promises.rename(partial, target);
  await fs.promises.rm(path, { force: true });
}

const TIME = /^(\d{4})-(\d\d)-(\d\d)T(\d\d)-(\d\d)-(\d\d)\.(\d{3})$/;

function backupTime(wallMs: number, localTime: boolean): string {
  const shifted = localTime ? wallMs - new Date(wallMs).getTimezoneOffset() * 60_000 : wallMs;
  return new Date(shifted).toISOString().slice(0, 23).replaceAll(":", "-");
}

function parseBackupTime(text: string, rotation: LogRotation): number | undefined {
  const parts = TIME.exec(text)?.slice(1).map(Number);
  if (parts === undefined) return undefined;
  const [year, month, day, hour, minute, second, ms] = parts as [
    number,
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  return rotation.localTime
    ? new Date(year, month - 1, day, hour, minute, second, ms).getTime()
    : Date.UTC(year, month - 1, day, hour, minute, second, ms);
}
