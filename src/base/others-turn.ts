import type { Clock } from "./clock.ts";

/** More would be kinder to requests, which take some four turns each, and make a backup of a busy member last for minutes. */
const TURNS_BETWEEN = 2;

/**
 * For long work of the member's own, such as a hash, a backup or a compaction, which is done in slices of about a millisecond:
 * resolves when others have had two turns of the loop. When they have nothing to do, these are over at once.
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
