/**
 * For complaints that somebody else can provoke as often as they like: each is logged at once, and again no sooner than a
 * minute later, then with the number of times it was not (`times-suppressed`). Two are the same when message and fields are.
 */
import type { Clock } from "./clock.ts";
import type { LogFields, Logger } from "./log.ts";

const PERIOD_MS = 60_000;
/** Different complaints remembered. When there are more, all are forgotten: whoever varies them gains one line a piece. */
const REMEMBERED_MAX = 256;

export class Complaints {
  readonly #logger: Logger;
  readonly #clock: Clock;
  readonly #said = new Map<string, { atMs: number; suppressed: number }>();

  constructor(logger: Logger, clock: Clock) {
    this.#logger = logger;
    this.#clock = clock;
  }

  warn(message: string, fields: LogFields): void {
    const key = `${message}\n${JSON.stringify(fields)}`;
    const nowMs = this.#clock.nowMs();
    const last = this.#said.get(key);
    if (last === undefined) {
      if (this.#said.size >= REMEMBERED_MAX) this.#said.clear();
      this.#said.set(key, { atMs: nowMs, suppressed: 0 });
      this.#logger.warn(message, fields);
    } else if (nowMs - last.atMs < PERIOD_MS) last.suppressed++;
    else {
      this.#logger.warn(message, last.suppressed > 0 ? { ...fields, "times-suppressed": last.suppressed } : fields);
      last.atMs = nowMs;
      last.suppressed = 0;
    }
  }
}
