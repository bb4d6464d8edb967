import type { Clock } from "./clock.ts";

/**
 * More would delay requests less (each takes about four turns), but would make a backup of a busy member take minutes.
 */
const TURNS_BETWEEN = 2;

/**
 * Yields between slices of the member's own long work, such as a hash, a backup or a compaction: resolves after two
 * turns of the event loop for other work. An idle loop finishes them at once.
 */
export function othersTurn(clock: Clock): Promise<void> {
  return new Promise((resolve) => {
    let left = TURNS_BETWEEN;
    const turn = (): void => {
      if (--left === 0) resolve();
      else clock.defer(turn);
    };
    clock.defer(turn);
  });
}
