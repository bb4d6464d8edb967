/**
 * For complaints that somebody else can provoke as often as they like: each is logged at once, and again no sooner than a
 * minute later, then with the number of times it was not (`times-suppressed`). Two are the same when message and fields are.
 * Whoever varies them, as by coming from many addresses, gains no more than a fixed number of lines a minute altogether;
 * what was kept back of all kinds is told with the next line.
 */
import type { Clock } from "./clock.ts";
import type { LogFields, Logger } from "./log.ts";

const PERIOD_MS = 60_000;
/** Different complaints remembered, and logged, in one period. */
const DIFFERENT_MAX = 256;

export class Complaints {
  readonly #logger: Logger;
  readonly #clock: Clock;
  readonly #differentMax: number;
  /** By message and fields; in the order in which they were last logged. */
  readonly #said = new Map<string, { atMs: number; suppressed: number }>();
  /** Complaints that were one kind too many for their period. */
  #othersSuppressed = 0;

  constructor(logger: Logger, clock: Clock, differentMax = DIFFERENT_MAX) {
    this.#logger = logger;
    this.#clock = clock;
    this.#differentMax = differentMax;
  }

  /**
   * `details` differ from time to time; those of the time that is logged are shown. `about` tells complaints apart without
   * being shown.
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

  /** Forgets the oldest, if its period is over. */
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
