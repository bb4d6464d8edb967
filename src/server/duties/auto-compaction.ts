import { inBackground } from "../../base/background.ts";
import type { Clock, Timer } from "../../base/clock.ts";
import { goDuration } from "../../base/duration.ts";
import { isFatal } from "../../base/fatal.ts";
import type { Logger } from "../../base/log.ts";

/** Compacts up to the revision; false when it failed and should be retried. */
export type CompactFunction = (revision: number) => Promise<boolean>;

export interface AutoCompactor {
  stop(): void;
}

interface Options {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly revision: () => number;
  readonly compact: CompactFunction;
}

const HOUR_MS = 3_600_000;
const REVISION_INTERVAL_MS = 5 * 60_000;

/**
 * `--auto-compaction-mode=periodic`: keeps the history of the last `periodMs`. The revision is recorded ten times an
 * hour, or per period when that is shorter; the first compaction comes after one period, then one every hour or period.
 * Source: etcd `server/etcdserver/api/v3compactor/periodic.go`.
 */
export function startPeriodicCompaction(options: Options & { readonly periodMs: number }): AutoCompactor {
  const { clock, logger, periodMs } = options;
  const compactIntervalMs = Math.min(periodMs, HOUR_MS);
  const retryIntervalMs = compactIntervalMs / 10;
  const retained = Math.floor(periodMs / retryIntervalMs) + 1;
  const revisions: number[] = [];
  let lastRevision = 0;
  let lastSuccessMs = clock.nowMs();
  let waitMs = periodMs;
  let timer: Timer;
  let stopped = false;

  const record = (): void => {
    if (stopped) return;
    revisions.push(options.revision());
    if (revisions.length > retained) revisions.shift();
    timer = clock.after(retryIntervalMs, () => inBackground(tick(), "compact automatically", logger));
  };
  const tick = async (): Promise<void> => {
    const revision = revisions[0]!;
    if (clock.nowMs() - lastSuccessMs >= waitMs && revision !== lastRevision) {
      waitMs = compactIntervalMs;
      const fields = { revision, "compact-period": goDuration(periodMs) };
      logger.info("starting auto periodic compaction", fields);
      if (await compact(options, revision)) {
        logger.info("completed auto periodic compaction", fields);
        lastRevision = revision;
        lastSuccessMs = clock.nowMs();
      } else
        logger.warn("failed auto periodic compaction", { ...fields, "retry-interval": goDuration(retryIntervalMs) });
    }
    record();
  };
  record();
  return {
    stop() {
      stopped = true;
      timer.cancel();
    },
  };
}

/**
 * `--auto-compaction-mode=revision`: keeps the last `retention` revisions, checked every five minutes. Source: etcd
 * `server/etcdserver/api/v3compactor/revision.go`.
 */
export function startRevisionCompaction(options: Options & { readonly retention: number }): AutoCompactor {
  const { clock, logger, retention } = options;
  let previous = 0;
  let running = false;
  const timer = clock.every(REVISION_INTERVAL_MS, () => {
    const revision = options.revision() - retention;
    if (running || revision <= 0 || revision === previous) return;
    const fields = { revision, "revision-compaction-retention": retention };
    logger.info("starting auto revision compaction", fields);
    running = true;
    void compact(options, revision).then((done) => {
      running = false;
      if (done) {
        previous = revision;
        logger.info("completed auto revision compaction", fields);
      } else
        logger.warn("failed auto revision compaction", {
          ...fields,
          "retry-interval": goDuration(REVISION_INTERVAL_MS),
        });
    });
  });
  return { stop: () => timer.cancel() };
}

/** Whether it succeeded; any error is a reason to retry. */
async function compact({ compact, logger }: Options, revision: number): Promise<boolean> {
  try {
    return await compact(revision);
  } catch (error) {
    if (isFatal(error)) throw error;
    logger.error("failed to compact automatically", { revision, error: `${error}` });
    return false;
  }
}
