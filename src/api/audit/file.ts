/**
 * The file of an audit log: sealed blocks, written one after the other on the thread pool, and files that are renamed when
 * they are full. What waits to be written is bounded: beyond it `append` refuses.
 */
import * as fs from "node:fs";
import { basename, dirname, extname, join } from "node:path";
import type { Clock } from "../../base/clock.ts";
import { messageOf } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { makeDirs } from "../../base/make-dir.ts";
import { headLine, NO_SEAL, readHead, readSeal, type Seal, sealLine, sealOf } from "./chain.ts";

const WAITING_BYTES_MAX = 64 * 1024 * 1024;
/** Sealed and written together, so that no turn takes long. */
const WRITE_BYTES_MAX = 1024 * 1024;
/** Read from the end of a file to find its last seal: blocks are not much larger than `append` is given. */
const TAIL_BYTES = 4 * 1024 * 1024;
const MODE = 0o600;

export interface AuditFileOptions {
  readonly path: string;
  /** At which a file is renamed and another begun. */
  readonly bytesMax: number;
  /** Full files that are kept; 0 for all. */
  readonly keep: number;
  readonly clock: Clock;
  readonly logger: Logger;
}

export class AuditFile {
  readonly #options: AuditFileOptions;
  #fd: number;
  #size: number;
  #seal: Seal;
  /** Behind the last seal, of a process that ended while it wrote: part of the next block. */
  #unsealed: Buffer;
  #waiting: { readonly block: Buffer; readonly records: number }[] = [];
  #waitingBytes = 0;
  #isWriting = false;
  #idle: (() => void)[] = [];
  #failed = false;

  /** Throws what the file system says. */
  constructor(options: AuditFileOptions) {
    this.#options = options;
    makeDirs(dirname(options.path), 0o700);
    this.#fd = fs.openSync(options.path, "a+", MODE);
    this.#size = fs.fstatSync(this.#fd).size;
    const { seal, unsealed } = this.#size > 0 ? lastOf(this.#fd, this.#size) : { seal: undefined, unsealed: NO_BYTES };
    this.#seal = seal ?? this.#lastOfOlder() ?? { hash: NO_SEAL, records: 0 };
    this.#unsealed = unsealed;
    if (this.#size === 0) this.#begin();
    options.logger.info("the audit log goes on", { path: options.path, ...this.#seal });
  }

  /** The last one in the file, or on its way there. */
  get seal(): Seal {
    return this.#seal;
  }

  /** Writes whole lines, and a seal behind them. False when too much waits already: they are not taken. */
  append(block: Buffer, records: number): boolean {
    if (this.#waitingBytes + block.length > WAITING_BYTES_MAX) return false;
    this.#waiting.push({ block, records });
    this.#waitingBytes += block.length;
    this.#write();
    return true;
  }

  /** Writes what waits, and closes the file. */
  async close(): Promise<void> {
    if (this.#isWriting) await new Promise<void>((resolve) => this.#idle.push(resolve));
    this.#options.logger.info("the audit log ends", { path: this.#options.path, ...this.#seal });
    fs.closeSync(this.#fd);
  }

  #write(): void {
    if (this.#isWriting || this.#waiting.length === 0) return;
    this.#isWriting = true;
    const blocks: Buffer[] = [];
    let [bytes, records, count] = [0, this.#seal.records, 0];
    for (const each of this.#waiting) {
      if (bytes > 0 && bytes + each.block.length > WRITE_BYTES_MAX) break;
      blocks.push(each.block);
      bytes += each.block.length;
      records += each.records;
      count++;
    }
    this.#waiting.splice(0, count);
    this.#seal = { hash: sealOf(this.#seal.hash, [this.#unsealed, ...blocks]), records };
    this.#unsealed = NO_BYTES;
    this.#writeAll(Buffer.concat([...blocks, Buffer.from(sealLine(this.#seal))]), 0, bytes);
  }

  #writeAll(bytes: Buffer, start: number, taken: number): void {
    fs.write(this.#fd, bytes, start, bytes.length - start, null, (error, written) => {
      if (error !== null) {
        if (!this.#failed) {
          this.#options.logger.error("failed to write the audit log, trying again", { error: messageOf(error) });
        }
        this.#failed = true;
        this.#options.clock.after(RETRY_MS, () => this.#writeAll(bytes, start, taken));
        return;
      }
      if (start + written < bytes.length) return this.#writeAll(bytes, start + written, taken);
      this.#failed = false;
      this.#waitingBytes -= taken;
      this.#written(bytes.length);
    });
  }

  #written(bytes: number): void {
    this.#isWriting = false;
    this.#size += bytes;
    if (this.#size >= this.#options.bytesMax) this.#rotate();
    this.#write();
    if (!this.#isWriting) for (const tell of this.#idle.splice(0)) tell();
  }

  #rotate(): void {
    const { path, clock, logger } = this.#options;
    try {
      fs.renameSync(path, olderName(path, clock.wallMs()));
      const fd = fs.openSync(path, "a+", MODE);
      fs.closeSync(this.#fd);
      this.#fd = fd;
      this.#size = 0;
      this.#begin();
      logger.info("the audit log goes on in another file", { path, ...this.#seal });
      this.#removeOld();
    } catch (error) {
      logger.error("failed to begin another audit file; going on with this one", { error: messageOf(error) });
    }
  }

  #begin(): void {
    const line = Buffer.from(headLine(this.#seal));
    fs.writeSync(this.#fd, line);
    this.#size = line.length;
    // The first block of a file has its head line too.
    this.#unsealed = line;
  }

  #removeOld(): void {
    const { path, keep, logger } = this.#options;
    if (keep === 0) return;
    for (const name of olderFiles(path).slice(0, -keep)) {
      fs.rm(name, (error) => {
        if (error !== null) logger.warn("failed to remove an old audit file", { path: name, error: messageOf(error) });
      });
    }
  }

  #lastOfOlder(): Seal | undefined {
    const newest = olderFiles(this.#options.path).at(-1);
    if (newest === undefined) return undefined;
    const fd = fs.openSync(newest, "r");
    try {
      return lastOf(fd, fs.fstatSync(fd).size).seal;
    } finally {
      fs.closeSync(fd);
    }
  }
}

const RETRY_MS = 1000;
const NO_BYTES = Buffer.alloc(0);

function olderName(path: string, wallMs: number): string {
  for (let ms = wallMs; ; ms++) {
    const time = new Date(ms).toISOString().slice(0, 23).replaceAll(":", "-");
    const name = `${stemOf(path)}-${time}${extname(path)}`;
    if (!fs.existsSync(name)) return name;
  }
}

const stemOf = (path: string): string => join(dirname(path), basename(path, extname(path)));

/** Full files of an audit log, the oldest first. */
export function olderFiles(path: string): string[] {
  const prefix = `${basename(stemOf(path))}-`;
  const extension = extname(path);
  return fs
    .readdirSync(dirname(path))
    .filter((name) => name.startsWith(prefix) && name.endsWith(extension))
    .filter((name) =>
      /^\d{4}-\d\d-\d\dT[\d-]{8}\.\d{3}$/.test(name.slice(prefix.length, name.length - extension.length)),
    )
    .sort()
    .map((name) => join(dirname(path), name));
}

/** The last seal of a file, and the bytes behind it. */
function lastOf(fd: number, size: number): { seal: Seal | undefined; unsealed: Buffer } {
  const length = Math.min(size, TAIL_BYTES);
  const tail = Buffer.alloc(length);
  fs.readSync(fd, tail, 0, length, size - length);
  for (let end = tail.length; end > 0; ) {
    const newline = tail.lastIndexOf(0x0a, end - 1);
    if (newline < 0) break;
    const start = tail.lastIndexOf(0x0a, newline - 1) + 1;
    const seal = newline === 0 ? undefined : readSeal(tail.toString("utf8", start, newline));
    if (seal !== undefined) return { seal, unsealed: ended(fd, tail.subarray(newline + 1)) };
    if (start === 0) {
      const head = readHead(tail.toString("utf8", 0, newline));
      return { seal: head, unsealed: ended(fd, tail) };
    }
    end = start;
  }
  return { seal: undefined, unsealed: ended(fd, tail) };
}

/** A line that was cut off is ended, so that the next one stands alone. */
function ended(fd: number, bytes: Buffer): Buffer {
  if (bytes.length === 0 || bytes.at(-1) === 0x0a) return Buffer.from(bytes);
  fs.writeSync(fd, "\n");
  return Buffer.concat([bytes, Buffer.from("\n")]);
}
