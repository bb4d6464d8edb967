import * as fs from "node:fs";
import { makeDirs } from "./make-dir.ts";

/**
 * The few file calls that the log and the snapshot files need. Production uses `systemDisk`; the simulator passes a disk
 * that loses what was not synced and tears what was half written. Paths are absolute. Errors are node's (`code` set).
 */
export interface Disk {
  readDir(path: string): string[];
  exists(path: string): boolean;
  /** Permission bits; undefined when it does not exist. */
  modeOf(path: string): number | undefined;
  /** What two paths share exactly when they are the same file or directory. It must exist. */
  identityOf(path: string): string;
  /** Creates the directory and its parents; `mode` applies to each that is new. */
  makeDir(path: string, mode: number): void;
  readFile(path: string): Buffer;
  rename(from: string, to: string): void;
  remove(path: string): void;
  removeDir(path: string): void;
  /** Makes creations, renames and removals in the directory durable. */
  syncDir(path: string): void;
  open(path: string, flags: "r" | "r+" | "w" | "wx", mode?: number): DiskFile;
  /** True where a sync takes so long that it must not hold the thread meanwhile; absent where it is usually quick. */
  readonly isSlow?: boolean;
}

export interface DiskFile {
  readonly path: string;
  size(): number;
  /** Reads up to `buffer.length` bytes at `position`; returns how many. */
  read(buffer: Uint8Array, position: number): number;
  /** The same on the thread pool; `buffer` belongs to the call until `done`. */
  readAsync(buffer: Uint8Array, position: number, done: (error: Error | null, count: number) => void): void;
  /** Writes all of `buffer` at `position`; returns when the kernel has it. */
  write(buffer: Uint8Array, position: number): void;
  /** The same on the thread pool; `buffer` belongs to the call until `done`, which gets the error if there was one. */
  writeAsync(buffer: Uint8Array, position: number, done: (error: Error | null) => void): void;
  /** fdatasync, blocking the thread: the fastest way when there is nothing else to do. */
  dataSync(): void;
  /** fdatasync on the thread pool; `done` gets the error if there was one. */
  dataSyncAsync(done: (error: Error | null) => void): void;
  truncate(size: number): void;
  close(): void;
  /** The same on the thread pool, for a large file that has lost its name: the kernel frees its space meanwhile. */
  closeAsync(): void;
}

class SystemFile implements DiskFile {
  readonly path: string;
  readonly #fd: number;

  constructor(path: string, fd: number) {
    this.path = path;
    this.#fd = fd;
  }

  size(): number {
    return fs.fstatSync(this.#fd).size;
  }

  read(buffer: Uint8Array, position: number): number {
    let total = 0;
    while (total < buffer.length) {
      const count = fs.readSync(this.#fd, buffer, total, buffer.length - total, position + total);
      if (count === 0) break;
      total += count;
    }
    return total;
  }

  readAsync(buffer: Uint8Array, position: number, done: (error: Error | null, count: number) => void): void {
    const goOn = (total: number): void =>
      fs.read(this.#fd, buffer, total, buffer.length - total, position + total, (error, count) => {
        if (error !== null || count === 0 || total + count === buffer.length) done(error, total + count);
        else goOn(total + count);
      });
    goOn(0);
  }

  write(buffer: Uint8Array, position: number): void {
    for (let total = 0; total < buffer.length; ) {
      total += fs.writeSync(this.#fd, buffer, total, buffer.length - total, position + total);
    }
  }

  writeAsync(buffer: Uint8Array, position: number, done: (error: Error | null) => void): void {
    fs.write(this.#fd, buffer, 0, buffer.length, position, (error, count) => {
      if (error !== null || count === buffer.length) done(error);
      else this.writeAsync(buffer.subarray(count), position + count, done);
    });
  }

  dataSync(): void {
    fs.fdatasyncSync(this.#fd);
  }

  dataSyncAsync(done: (error: Error | null) => void): void {
    fs.fdatasync(this.#fd, done);
  }

  truncate(size: number): void {
    fs.ftruncateSync(this.#fd, size);
  }

  close(): void {
    fs.closeSync(this.#fd);
  }

  closeAsync(): void {
    fs.close(this.#fd, () => {});
  }
}

export const systemDisk: Disk = {
  readDir: (path) => fs.readdirSync(path),
  exists: (path) => fs.existsSync(path),
  modeOf(path) {
    const stat = fs.statSync(path, { throwIfNoEntry: false });
    return stat === undefined ? undefined : stat.mode & 0o777;
  },
  identityOf(path) {
    const { dev, ino } = fs.statSync(path, { bigint: true });
    return `${dev}:${ino}`;
  },
  makeDir: makeDirs,
  readFile: (path) => fs.readFileSync(path),
  rename: (from, to) => fs.renameSync(from, to),
  remove: (path) => fs.unlinkSync(path),
  removeDir: (path) => fs.rmSync(path, { recursive: true, force: true }),
  syncDir(path) {
    const fd = fs.openSync(path, "r");
    try {
      fs.fsyncSync(fd);
    } finally {
      fs.closeSync(fd);
    }
  },
  open: (path, flags, mode) => new SystemFile(path, fs.openSync(path, flags, mode)),
};
