import { cpus, loadavg } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";

/**
 * How much longer than on a quiet machine an action may take: `KVORUM_SLOWNESS`, or the load per processor, at least 3.
 * A bound only ends a test that will never pass: a generous one costs nothing.
 */
const slowness = (): number =>
  Number(process.env["KVORUM_SLOWNESS"]) || Math.max(3, (2 * loadavg()[0]!) / cpus().length);

/** Milliseconds that an action of at most `quietMs` on a quiet machine may take on this one at its current load. */
export const patience = (quietMs: number): number => Math.ceil(quietMs * slowness());

/**
 * Polls until `condition` returns something truthy and returns it; fails with a message that `what` did not happen.
 * `timeoutMs` is for a quiet machine, and is extended on a busy one.
 */
export async function waitFor<T>(
  what: string,
  condition: () => T | Promise<T>,
  timeoutMs = 10_000,
): Promise<Exclude<T, undefined | null | false>> {
  const began = performance.now();
  for (;;) {
    const value = await condition();
    if (value) return value as Exclude<T, undefined | null | false>;
    const waitedMs = performance.now() - began;
    if (waitedMs > patience(timeoutMs))
      throw new Error(`not within ${Math.round(waitedMs)} ms, ${busyness()}: ${what}`);
    await sleep(10);
  }
}

const busyness = (): string => `on ${cpus().length} processors with a load of ${loadavg()[0]!.toFixed(1)}`;
