import { closeSync, openSync, readSync } from "node:fs";
import { PerformanceObserver } from "node:perf_hooks";

/** What a process can observe of its own event loop. Production uses `systemLoop`; tests pass their own. */
export interface LoopProbe {
  /** Calls `callback` once in every turn, until the returned function is called. Does not wake the loop. */
  everyTurn(callback: () => void): () => void;
  /** Milliseconds that the loop has waited for events, in total. */
  idleMs(): number;
  /** Milliseconds that its thread has waited for a processor, in total; 0 where the system does not report it. */
  queuedMs(): number;
  /**
   * Calls `callback` for each garbage collection, some turns after it, with its start (as `Clock.nowMs`) and its
   * duration.
   */
  everyCollection(callback: (startMs: number, tookMs: number) => void): () => void;
}

export const systemLoop: LoopProbe = {
  everyTurn(callback) {
    // An unreferenced immediate runs in each turn, but lets the loop sleep first.
    let next = setImmediate(run).unref();
    function run(): void {
      next = setImmediate(run).unref();
      callback();
    }
    return () => clearImmediate(next);
  },
  idleMs: () => performance.nodeTiming.idleTime,
  queuedMs() {
    const text = readSchedulerText();
    const from = text.indexOf(" ") + 1;
    return from === 0 ? 0 : Number(text.slice(from, text.indexOf(" ", from))) / 1e6;
  },
  everyCollection(callback) {
    const observer = new PerformanceObserver((list) => {
      for (const { startTime, duration } of list.getEntries()) callback(startTime, duration);
    });
    observer.observe({ entryTypes: ["gc"] });
    return () => observer.disconnect();
  },
};

/**
 * Nanoseconds on a processor, nanoseconds waiting for one, number of time slices: of the first thread, which runs the
 * loop.
 */
const SCHEDULER_FILE = "/proc/self/schedstat";
const buffer = Buffer.alloc(128);
let file: number | undefined;

function readSchedulerText(): string {
  if (file === -1) return "";
  try {
    file ??= openSync(SCHEDULER_FILE, "r");
    return buffer.toString("latin1", 0, readSync(file, buffer, 0, buffer.length, 0));
  } catch {
    if (file !== undefined) closeSync(file);
    file = -1;
    return "";
  }
}
