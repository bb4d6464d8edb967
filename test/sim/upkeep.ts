/**
 * Members' own background work in some seeds: leaders compact and checkpoint leases; members compare their data. Its
 * choices have their own random stream, so that the rest of a seed's plan is the same with and without it.
 */
import { CHECK_DEFAULTS, type ServerOptions } from "../../src/server/contract/options.ts";
import { SimRandom } from "./random.ts";

export interface Upkeep {
  /** Retention of automatic compaction, in milliseconds. */
  readonly compactMs?: number;
  /** Interval of lease checkpoints; `persist`: in the backend too. */
  readonly checkpoints?: { readonly everyMs: number; readonly persist: boolean };
  readonly checks?: {
    /** Members compare their data with the others before they serve. */
    readonly initial: boolean;
    /** Interval of the leader's comparisons of data, and of compaction hashes; 0 for never. */
    readonly everyMs: number;
    readonly compactionsMs: number;
  };
  /** At the end a row of a member's database is damaged: it must be noticed. */
  readonly damagesRow?: boolean;
}

export function upkeepOf(seed: number, members: number): Upkeep {
  const random = SimRandom.of(seed, "upkeep");
  const compactMs = random.chance(0.2) ? { compactMs: random.pick([1000, 5000, 15_000]) } : {};
  const everyMs = random.pick([500, 1000, 3000]);
  const persist = random.chance(0.5);
  const checkpoints = random.chance(0.2) ? { checkpoints: { everyMs, persist } } : {};
  if (members < 3 || !random.chance(0.25)) return { ...compactMs, ...checkpoints };
  const kinds = random.pick(["initial", "data", "compactions", "all"] as const);
  const has = (kind: typeof kinds): boolean => kinds === kind || kinds === "all";
  const checks = {
    initial: has("initial"),
    everyMs: has("data") ? random.pick([1000, 4000]) : 0,
    compactionsMs: has("compactions") ? random.pick([1000, 4000]) : 0,
  };
  return { ...compactMs, ...checkpoints, checks, damagesRow: random.chance(0.5) };
}

export function upkeepOptions({ compactMs, checkpoints, checks }: Upkeep): Partial<ServerOptions> {
  return {
    ...(compactMs !== undefined && { autoCompactionMode: "periodic", autoCompactionRetention: compactMs }),
    ...(checkpoints !== undefined && {
      leaseCheckpoint: true,
      leaseCheckpointPersist: checkpoints.persist,
      leaseCheckpointIntervalMs: checkpoints.everyMs,
    }),
    ...(checks !== undefined && {
      checks: {
        ...CHECK_DEFAULTS,
        initialCorruptCheck: checks.initial,
        corruptCheckMs: checks.everyMs,
        compactHashCheckMs: checks.compactionsMs,
      },
    }),
  };
}
