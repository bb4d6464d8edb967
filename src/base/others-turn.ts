import type { Clock } from "./clock.ts";

/** While a request goes through so many turns (it arrives, is logged, is applied), one slice of the background delays it. */
const TURNS_BETWEEN = 3;

/**
 * For long work of the member's own, such as a hash, a backup or a compaction, which is done in slices of about a millisecond:
 * resolves when others have had a few turns of the loop. When they have nothing to do, these are over at once.
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
