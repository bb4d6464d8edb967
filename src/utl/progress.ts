/** Prints the progress of long work on standard error: bytes, rate, and remaining time. Silent for short work. */
import { goDuration } from "../base/duration.ts";
import { humanBytes } from "../base/table.ts";
import type { UtlIo } from "./utl.ts";

const FIRST_AFTER_MS = 2000;
const TERMINAL_EVERY_MS = 500;
const LINES_EVERY_MS = 10_000;
/** Bytes between two reads of the clock. */
const LOOK_BYTES = 1024 * 1024;

export class Progress {
  readonly #io: UtlIo;
  readonly #what: string;
  readonly #total: number;
  readonly #startMs: number;
  #done = 0;
  #lookedAt = 0;
  #toldMs: number;
  #hasTold = false;

  constructor(io: UtlIo, what: string, totalBytes: number) {
    this.#io = io;
    this.#what = what;
    this.#total = totalBytes;
    this.#startMs = io.clock.nowMs();
    this.#toldMs = this.#startMs + FIRST_AFTER_MS - this.#everyMs;
  }

  add(bytes: number): void {
    this.#done += bytes;
    if (this.#done - this.#lookedAt < LOOK_BYTES) return;
    this.#lookedAt = this.#done;
    const nowMs = this.#io.clock.nowMs();
    if (nowMs - this.#toldMs >= this.#everyMs) this.#tell(nowMs);
  }

  /** Ends the line on a terminal. */
  end(): void {
    if (this.#hasTold && this.#io.errIsTerminal) this.#io.err("\n");
  }

  get #everyMs(): number {
    return this.#io.errIsTerminal ? TERMINAL_EVERY_MS : LINES_EVERY_MS;
  }

  #tell(nowMs: number): void {
    this.#toldMs = nowMs;
    this.#hasTold = true;
    const rate = (this.#done * 1000) / (nowMs - this.#startMs);
    const left = Math.max(0, this.#total - this.#done);
    const percent = Math.min(100, Math.floor((this.#done / this.#total) * 100));
    const seconds = Math.ceil(left / rate);
    const line = `${this.#what}: ${percent} % of ${humanBytes(this.#total)}, ${humanBytes(rate)}/s, ${goDuration(seconds * 1000)} left`;
    this.#io.err(this.#io.errIsTerminal ? `\r\x1b[K${line}` : `${line}\n`);
  }
}
