/**
 * Memory that the server holds because of the pace of its clients: answers that are not read, or requests that are not
 * finished. Each connection has an account, and all together have one limit. When it is exceeded, those give up first who
 * have held most for longest (bytes times their mean age), until an eighth of the limit is free: a large answer that moves
 * on outranks many that stand still.
 *
 * Giving up happens at the end of the turn, so that nobody loses a stream from under the hand that writes to it.
 */
import type { Clock } from "../base/clock.ts";

export class HeldBytes {
  readonly bytesMax: number;
  /** Of all accounts. */
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

  /** For an account that holds something from now on. */
  opened(account: HeldAccount): void {
    this.#accounts.add(account);
  }

  /** For an account that holds nothing any more. */
  closed(account: HeldAccount): void {
    this.#accounts.delete(account);
  }

  /** For an account that has just added to a total above the limit. */
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

/** What is free again once the limit was exceeded: this part of it. */
const RELEASE_SHARE = 8;

/** What one connection holds. */
export class HeldAccount {
  bytes = 0;
  /** Must free at least so many bytes, or all it can. */
  readonly giveUp: (bytes: number) => void;
  readonly #pool: HeldBytes;
  /** When what is held came, on average. */
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
