import type { Clock, Timer } from "../../base/clock.ts";

/**
 * Revisions needed by reads in progress. A long answer is read in slices at one revision, some of them only when the
 * client has taken the earlier ones. A compaction that overtakes it makes the revision unreadable for new requests at
 * once, but deletes nothing that a pin needs.
 *
 * A pin cannot delay a compaction indefinitely: it is revoked when its read has made no progress for `PIN_IDLE_MS`, or
 * when the compaction has waited for `PIN_WAIT_MAX_MS`.
 */
export class Pins {
  readonly #clock: Clock;
  readonly #pins = new Set<Pin>();
  #waiting: { readonly revision: number; readonly sinceMs: number; readonly resolve: () => void } | null = null;
  #timer: Timer | undefined;
  #closed = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Number of pins. */
  get count(): number {
    return this.#pins.size;
  }

  /** Keeps `revision`, and all after it, readable until it is released. */
  add(revision: number): Pin {
    const pin = new Pin(this, revision);
    this.#pins.add(pin);
    return pin;
  }

  /** For a Pin. */
  touched(pin: Pin): void {
    pin.usedMs = this.#clock.nowMs();
  }

  /** For a Pin. */
  released(pin: Pin): void {
    this.#pins.delete(pin);
    this.#check();
  }

  /** Resolves when no pin needs a revision below `revision`. One caller at a time. */
  clearedBelow(revision: number): Promise<void> {
    if (this.#closed || !this.#isPinnedBelow(revision)) return Promise.resolve();
    return new Promise((resolve) => {
      this.#waiting = { revision, sinceMs: this.#clock.nowMs(), resolve };
      this.#timer = this.#clock.every(CHECK_MS, () => this.#revoke());
    });
  }

  /** Revokes all pins, and releases those who wait. */
  close(): void {
    this.#closed = true;
    for (const pin of this.#pins) pin.revoked = true;
    this.#pins.clear();
    this.#check();
  }

  #isPinnedBelow(revision: number): boolean {
    for (const pin of this.#pins) if (pin.revision < revision) return true;
    return false;
  }

  #revoke(): void {
    const { revision, sinceMs } = this.#waiting!;
    const nowMs = this.#clock.nowMs();
    const tooLong = nowMs - sinceMs >= PIN_WAIT_MAX_MS;
    for (const pin of this.#pins) {
      if (pin.revision >= revision || (!tooLong && nowMs - pin.usedMs < PIN_IDLE_MS)) continue;
      this.#pins.delete(pin);
      pin.revoked = true;
      pin.onRevoked?.();
    }
    this.#check();
  }

  #check(): void {
    const waiting = this.#waiting;
    if (waiting === null || this.#isPinnedBelow(waiting.revision)) return;
    this.#waiting = null;
    this.#timer?.cancel();
    waiting.resolve();
  }
}

/** A pinned revision of a read in progress. */
export class Pin {
  readonly revision: number;
  /** Clock time of the last progress; a read waiting for its start has made none and is not idle. */
  usedMs = Number.POSITIVE_INFINITY;
  /** A compaction could wait no longer: the pinned rows may be gone. */
  revoked = false;
  /** Called on revocation, for a reader that waits for its client. */
  onRevoked: (() => void) | null = null;
  readonly #pins: Pins;

  constructor(pins: Pins, revision: number) {
    this.#pins = pins;
    this.revision = revision;
  }

  /** The read made progress. */
  touch(): void {
    this.#pins.touched(this);
  }

  /** The read has ended. Idempotent. */
  release(): void {
    this.#pins.released(this);
  }
}

export const PIN_IDLE_MS = 30_000;
export const PIN_WAIT_MAX_MS = 600_000;
const CHECK_MS = 1000;
