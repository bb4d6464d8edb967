import * as fs from "node:fs";
import type { LogLevel } from "./log.ts";

/**
 * Where finished log lines go: a file descriptor (stderr, stdout) or a file that grows. The kernel has the line when
 * `write` returns, so the last lines of a dying process are not lost. A sink never throws once opened: a log that
 * cannot be written must not stop a working store.
 */
export interface LogSink {
  /** `line` ends in a newline. */
  write(line: string, level: LogLevel): void;
  /** Makes what was written durable, where that means something. */
  sync(): void;
  close(): void;
}

/** How long the last lines of a process may wait for the reader of a full pipe. */
const SYNC_WAIT_MS = 1000;
const SYNC_STEP_MS = 5;

/** Bytes buffered while a slow reader's pipe is full; what comes after them is counted and dropped. */
const PENDING_BYTES_MAX = 1024 * 1024;

/** Writes to a descriptor that it does not own (1 or 2). */
export class DescriptorSink implements LogSink {
  readonly #fd: number;
  /** Lines that a non-blocking pipe did not take, in order. */
  #pending: Buffer[] = [];
  #pendingBytes = 0;
  #linesLost = 0;

  constructor(fd: number) {
    this.#fd = fd;
  }

  write(line: string): void {
    const bytes = Buffer.from(line);
    this.#drain();
    if (this.#pending.length > 0) return this.#keep(bytes);
    this.#noteLoss();
    const rest = writeSome(this.#fd, bytes);
    if (rest !== undefined && rest.length > 0) this.#keep(rest);
  }

  /** Waits a while for a slow reader: the process may be about to end. */
  sync(): void {
    this.#drain();
    const cell = new Int32Array(new SharedArrayBuffer(4));
    for (let waited = 0; this.#pending.length > 0 && waited < SYNC_WAIT_MS; waited += SYNC_STEP_MS) {
      Atomics.wait(cell, 0, 0, SYNC_STEP_MS);
      this.#drain();
    }
  }

  close(): void {
    this.sync();
  }

  #keep(bytes: Buffer): void {
    if (this.#pendingBytes + bytes.length > PENDING_BYTES_MAX) {
      this.#linesLost++;
      return;
    }
    this.#pending.push(bytes);
    this.#pendingBytes += bytes.length;
  }

  #drain(): void {
    if (this.#pending.length === 0) return;
    const rest = writeSome(this.#fd, this.#pending.length === 1 ? this.#pending[0]! : Buffer.concat(this.#pending));
    this.#pending = rest === undefined || rest.length === 0 ? [] : [rest];
    this.#pendingBytes = rest?.length ?? 0;
  }

  #noteLoss(): void {
    if (this.#linesLost === 0) return;
    const note = `{"level":"warn","msg":"log lines were dropped because the reader of the log is too slow","lines":${this.#linesLost}}\n`;
    const rest = writeSome(this.#fd, Buffer.from(note));
    this.#linesLost = 0;
    if (rest !== undefined && rest.length > 0) this.#keep(rest);
  }
}

/**
 * Appends to a file, created with mode 0666 less the umask when absent, as zap does. The directory must exist. When
 * the disk is full the lines are lost and the first failure is reported on stderr.
 */
export class FileSink implements LogSink {
  readonly path: string;
  readonly #fd: number;
  #failed = false;

  constructor(path: string) {
    this.path = path;
    this.#fd = fs.openSync(path, "a", 0o666);
  }

  write(line: string): void {
    try {
      writeAll(this.#fd, Buffer.from(line));
      this.#failed = false;
    } catch (error) {
      if (!this.#failed) reportWriteError(this.path, error);
      this.#failed = true;
    }
  }

  sync(): void {
    try {
      fs.fsyncSync(this.#fd);
    } catch {
      // A pipe or a device has nothing to sync.
    }
  }

  close(): void {
    fs.closeSync(this.#fd);
  }
}

/** Reports on stderr that a log could not be written: the only place left. */
export function reportWriteError(path: string, error: unknown): void {
  writeSome(2, Buffer.from(`write error: cannot write the log ${path}: ${(error as Error).message}\n`));
}

export function writeAll(fd: number, bytes: Buffer): void {
  for (let done = 0; done < bytes.length; ) done += fs.writeSync(fd, bytes, done);
}

/** Writes what the descriptor takes now. Returns the rest, or undefined when the descriptor is unusable. */
function writeSome(fd: number, bytes: Buffer): Buffer | undefined {
  let done = 0;
  while (done < bytes.length) {
    try {
      done += fs.writeSync(fd, bytes, done);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "EAGAIN") return bytes.subarray(done);
      if (code === "EINTR") continue;
      return undefined;
    }
  }
  return bytes.subarray(done);
}
