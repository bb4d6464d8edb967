/**
 * Memory held because clients are slow: unread answers or incomplete requests. Each connection has an account; all
 * share one limit. When it is exceeded, the accounts that have held most for longest (bytes times their mean age) are
 * released first, until an eighth of the limit is free: a large answer that progresses outranks many that stand still.
 *
 * The release runs at the end of the turn, so that no stream ends while its writer is using it.
 */
import type { Clock } from "../base/clock.ts";

export class HeldBytes {
  readonly bytesMax: number;
  /** Total of all accounts. */
  total = 0;
  /** How often the limit was exceeded. */
  exceeded = 0;

  readonly clock: Clock;
  readonly #onExceeded: (pool: HeldBytes) => void;
  readonly #accounts = new Set<HeldAccount>();
  #scheduled = false;

  constructor(clock: Clock, bytesMax: number, onExceeded: (pool: HeldBytes) => void) {
    this.clock = clock;
    this.bytesMax = bytesMax;
    this.#onExceeded = onExceeded;
  }

  /** An account holds bytes from now on. */
  opened(account: HeldAccount): void {
    this.#accounts.add(account);
  }

  /** An account holds nothing any more. */
  closed(account: HeldAccount): void {
    this.#accounts.delete(account);
  }

  /** An account has just exceeded the total limit. */
  scheduleRelease(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.clock.defer(this.#release);
  }

  readonly #release = (): void => {
    this.#scheduled = false;
    if (this.total <= this.bytesMax) return;
    this.exceeded++;
    this.#onExceeded(this);
    const target = this.bytesMax - this.bytesMax / RELEASE_SHARE;
    const nowMs = this.clock.nowMs();
    const ranked = [...this.#accounts].map((account) => ({ account, rank: account.rank(nowMs) }));
    ranked.sort((a, b) => b.rank - a.rank);
    for (const { account } of ranked) {
      if (this.total <= target) return;
      account.giveUp(Math.min(account.bytes, Math.max(this.total - target, account.bytes / 2)));
    }
  };
}

/** Fraction of the limit to free once it was exceeded. */
const RELEASE_SHARE = 8;

/** The bytes held for one connection. */
export class HeldAccount {
  bytes = 0;
  /** Must free at least this many bytes, or all it can. */
  readonly giveUp: (bytes: number) => void;
  readonly #pool: HeldBytes;
  /** Mean arrival time of the held bytes. */
  #sinceMs = 0;

  constructor(pool: HeldBytes, giveUp: (bytes: number) => void) {
    this.#pool = pool;
    this.giveUp = giveUp;
  }

  add(bytes: number): void {
    if (bytes === 0) return;
    const pool = this.#pool;
    const before = this.bytes;
    const nowMs = pool.clock.nowMs();
    if (before === 0) {
      pool.opened(this);
      this.#sinceMs = nowMs;
    } else this.#sinceMs += ((nowMs - this.#sinceMs) * bytes) / (before + bytes);
    this.bytes = before + bytes;
    pool.total += bytes;
    if (pool.total > pool.bytesMax) pool.scheduleRelease();
  }

  remove(bytes: number): void {
    if (bytes === 0) return;
    const pool = this.#pool;
    pool.total -= bytes;
    const before = this.bytes;
    this.bytes = before - bytes;
    if (this.bytes === 0) pool.closed(this);
    else this.#sinceMs += ((pool.clock.nowMs() - this.#sinceMs) * bytes) / before;
  }

  rank(nowMs: number): number {
    return this.bytes * (nowMs - this.#sinceMs + 1);
  }
}
