import { isFatal } from "./fatal.ts";
import type { Logger } from "./log.ts";

/**
 * Lets something run that nobody waits for. What it fails with is logged and fails this attempt alone; what must end the process
 * (see fatal.ts) is thrown on, to whoever ends it.
 */
export function inBackground(work: Promise<unknown>, what: string, logger: Logger): void {
  work.catch((error: unknown) => failedAlone(error, what, logger));
}

/** The same for what is done at once: true when it was done. */
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
