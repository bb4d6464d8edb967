import { isFatal } from "./fatal.ts";
import type { Logger } from "./log.ts";

/**
 * Runs work that no caller awaits. An ordinary error is logged and fails this attempt only; a fatal one (see fatal.ts)
 * is rethrown, to end the process.
 */
export function inBackground(work: Promise<unknown>, what: string, logger: Logger): void {
  work.catch((error: unknown) => failedAlone(error, what, logger));
}

/** The same for synchronous work. Returns true if it succeeded. */
export function attempt(work: () => void, what: string, logger: Logger): boolean {
  try {
    work();
    return true;
  } catch (error) {
    failedAlone(error, what, logger);
    return false;
  }
}

function failedAlone(error: unknown, what: string, logger: Logger): void {
  if (isFatal(error)) throw error;
  logger.error(`failed to ${what}`, {
    error: error instanceof Error ? error : `${error}`,
    stacktrace: error instanceof Error ? error.stack : undefined,
  });
}
