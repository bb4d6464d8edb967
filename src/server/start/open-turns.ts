import { goDuration } from "../../base/duration.ts";
import { TURNS_DEFAULTS, Turns } from "../../base/turns.ts";
import type { ServerOptions } from "../contract/options.ts";

/** The scheduler for one member's long work; logs slices that take too long. */
export function openTurns({ clock, logger, turns }: ServerOptions): Turns {
  return new Turns({
    ...TURNS_DEFAULTS,
    ...turns,
    clock,
    onLongSlice: ({ name }, tookMs) =>
      logger.warn("a slice of long work held up the others", { request: name, took: goDuration(tookMs) }),
  });
}
