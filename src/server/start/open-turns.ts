import { goDuration } from "../../base/duration.ts";
import { TURNS_DEFAULTS, Turns } from "../../base/turns.ts";
import type { ServerOptions } from "../contract/options.ts";

/** Long work of one member; what takes too long in one piece is told. */
export function openTurns({ clock, logger, turns }: ServerOptions): Turns {
  return new Turns({
    ...TURNS_DEFAULTS,
    ...turns,
    clock,
    onLongSlice: ({ name }, tookMs) =>
      logger.warn("a slice of long work held up the others", { request: name, took: goDuration(tookMs) }),
  });
}
