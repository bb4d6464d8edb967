/**
 * Rate limit for warnings that a client or peer can provoke at will. Each is logged at once, then at most once a
 * minute, with the number of suppressed repeats (`times-suppressed`). Two are the same when message and fields are.
 * Varying them, for example by connecting from many addresses, gains no more than a fixed number of lines a minute in
 * total; the next line reports what was suppressed of all kinds.
 */
import type { Clock } from "./clock.ts";
import type { LogFields, Logger } from "./log.ts";

const PERIOD_MS = 60_000;
/** Different warnings remembered, and logged, in one period. */
const DIFFERENT_MAX = 256;

export class Complaints {
  readonly #logger: Logger;
  readonly #clock: Clock;
  readonly #differentMax: number;
  /** By message and fields, in the order in which they were last logged. */
  readonly #said = new Map<string, { atMs: number; suppressed: number }>();
  /** Warnings suppressed because their period had too many kinds. */
  #othersSuppressed = 0;

  constructor(logger: Logger, clock: Clock, differentMax = DIFFERENT_MAX) {
    this.#logger = logger;
    this.#clock = clock;
    this.#differentMax = differentMax;
  }

  /**
   * `details` vary between repeats; the line shows those of the repeat that is logged. `about` distinguishes warnings
   * without being logged.
   */
  warn(message: string, fields: LogFields, details: LogFields = {}, about = ""): void {
    this.#complain("warn", message, fields, details, about);
  }

  error(message: string, fields: LogFields, details: LogFields = {}, about = ""): void {
    this.#complain("error", message, fields, details, about);
  }

  #complain(level: "warn" | "error", message: string, fields: LogFields, details: LogFields, about: string): void {
    const key = `${message}\n${about}\n${JSON.stringify(fields)}`;
    const nowMs = this.#clock.nowMs();
    const last = this.#said.get(key);
    if (last !== undefined && nowMs - last.atMs < PERIOD_MS) {
      last.suppressed++;
      return;
    }
    if (last === undefined && !this.#hasRoom(nowMs)) {
      this.#othersSuppressed++;
      return;
    }
    this.#said.delete(key);
    this.#said.set(key, { atMs: nowMs, suppressed: 0 });
    this.#logger[level](message, {
      ...fields,
      ...details,
      ...(last !== undefined && last.suppressed > 0 ? { "times-suppressed": last.suppressed } : {}),
      ...(this.#othersSuppressed > 0 ? { "other-complaints-suppressed": this.#othersSuppressed } : {}),
    });
    this.#othersSuppressed = 0;
  }

  /** Drops the oldest, if its period is over. */
  #hasRoom(nowMs: number): boolean {
    if (this.#said.size < this.#differentMax) return true;
    for (const [key, { atMs }] of this.#said) {
      if (nowMs - atMs < PERIOD_MS) return false;
      this.#said.delete(key);
      return true;
    }
    return false;
  }
}
