/**
 * Time, as everything above raft/ sees it. Production uses `systemClock`; the simulator passes virtual time.
 * Nothing but this file and the programs may call Date.now, performance.now or setTimeout.
 */
export interface Clock {
  /** Monotonic milliseconds since an arbitrary start, with a fraction. Never jumps. */
  nowMs(): number;
  /** Wall-clock milliseconds since the Unix epoch. May jump. */
  wallMs(): number;
  /** Calls `callback` once, no earlier than `delayMs` from now. */
  after(delayMs: number, callback: () => void): Timer;
  /** Calls `callback` every `periodMs` until cancelled. */
  every(periodMs: number, callback: () => void): Timer;
  /** Calls `callback` after the I/O events of this turn: use it to process the batch that this turn collected. */
  defer(callback: () => void): void;
}

export interface Timer {
  cancel(): void;
}

export const systemClock: Clock = {
  nowMs: () => performance.now(),
  wallMs: () => Date.now(),
  after(delayMs, callback) {
    const handle = setTimeout(callback, delayMs);
    return { cancel: () => clearTimeout(handle) };
  },
  every(periodMs, callback) {
    const handle = setInterval(callback, periodMs);
    return { cancel: () => clearInterval(handle) };
  },
  defer: (callback) => void setImmediate(callback),
};
