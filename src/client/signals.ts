/** Listening to the signals of users. */
import { setMaxListeners } from "node:events";

/** Calls `onAbort` when the signal fires. One signal may end any number of calls: that is no leak to warn of. */
export function listen(signal: AbortSignal, onAbort: () => void): void {
  setMaxListeners(0, signal);
  signal.addEventListener("abort", onAbort, { once: true });
}
