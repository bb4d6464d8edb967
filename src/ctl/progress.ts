/** How far a long command is, on a terminal: one line of standard error that is written again and again, and gone at the end. */
import type { Io } from "./io.ts";

const PERIOD_MS = 200;

/** `share` gives how much is done, 0 to 1. Returns how to end it. Without a terminal nothing is shown. */
export function showProgress(io: Pick<Io, "clock" | "err" | "errIsTerminal">, share: () => number): () => void {
  if (!io.errIsTerminal) return () => {};
  let shown = -1;
  const show = (): void => {
    const percent = Math.floor(100 * Math.min(1, Math.max(0, share())));
    if (percent === shown) return;
    shown = percent;
    io.err(`\r${String(percent).padStart(3)} %`);
  };
  show();
  const timer = io.clock.every(PERIOD_MS, show);
  return () => {
    timer.cancel();
    io.err("\r     \r");
  };
}
