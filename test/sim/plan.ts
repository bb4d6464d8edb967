/**
 * The meaning of a seed: a cluster, its client requests and its faults. A plan is plain data, so that a failing one can
 * be reduced (shrink.ts). Choices that depend on the run (which revision, which leader) are numbers here, resolved at
 * their time.
 */
import { type Limits, limitsOf } from "./limits.ts";
import { FAIR, type Weather } from "./network.ts";
import { SimRandom } from "./random.ts";
import { type Scene, type SceneSettings, type SceneStep, sceneOf, sceneSettings, sceneSteps } from "./scenes.ts";
import { type Upkeep, upkeepOf } from "./upkeep.ts";

export interface Plan extends SceneSettings {
  readonly seed: number;
  readonly members: number;
  readonly snapshotCount: number;
  readonly snapshotCatchUpEntries: number;
  readonly compactionBatchLimit: number;
  readonly weather: Weather;
  /** When all faults end, in virtual milliseconds. */
  readonly healMs: number;
  /** Members' own background work. */
  readonly upkeep?: Upkeep;
  /** Batch limits. */
  readonly limits?: Limits;
  readonly steps: readonly Step[];
}

export type Step = { readonly atMs: number } & (ClientStep | SceneStep | FaultStep);

/** A machine by index, or the leader at the time of the step. */
export type Target = number | "leader";

export type ClientStep =
  | {
      readonly kind: "put";
      readonly target: Target;
      readonly key: string;
      readonly prevKv: boolean;
      readonly lease: number | undefined;
      readonly ignore: "" | "value" | "lease";
    }
  | {
      readonly kind: "delete";
      readonly target: Target;
      readonly key: string;
      readonly end: string;
      readonly prevKv: boolean;
    }
  | { readonly kind: "range"; readonly target: Target; readonly range: RangeShape }
  | {
      readonly kind: "txn";
      readonly target: Target;
      readonly compares: readonly CompareShape[];
      readonly success: readonly OpShape[];
      readonly failure: readonly OpShape[];
    }
  | { readonly kind: "compact"; readonly target: Target; readonly back: number; readonly physical: boolean }
  | {
      readonly kind: "watch";
      readonly target: Target;
      readonly key: string;
      readonly end: string;
      readonly back: number | undefined;
      readonly prevKv: boolean;
      readonly progress: boolean;
      readonly filter: "" | "put" | "delete";
      /** The client reads slowly. */
      readonly slow: boolean;
      readonly forMs: number;
    }
  | { readonly kind: "grant"; readonly target: Target; readonly ttl: number; readonly renewals: number }
  | { readonly kind: "revoke"; readonly target: Target; readonly lease: number }
  | { readonly kind: "timeToLive"; readonly target: Target; readonly lease: number }
  | { readonly kind: "hash"; readonly target: Target; readonly back: number }
  | { readonly kind: "defragment"; readonly target: Target }
  | { readonly kind: "backup"; readonly target: Target }
  | { readonly kind: "status"; readonly target: Target }
  | { readonly kind: "progress"; readonly pick: number }
  | { readonly kind: "moveLeader"; readonly to: number };

export type FaultStep =
  | { readonly kind: "kill"; readonly target: Target; readonly downMs: number }
  | { readonly kind: "power"; readonly target: Target; readonly downMs: number }
  | { readonly kind: "powerAll"; readonly downMs: number }
  | { readonly kind: "stop"; readonly target: Target; readonly downMs: number }
  | { readonly kind: "pause"; readonly target: Target; readonly forMs: number }
  | {
      readonly kind: "isolate";
      readonly target: Target;
      readonly forMs: number;
      readonly direction: "both" | "in" | "out";
    }
  | { readonly kind: "split"; readonly mask: number; readonly forMs: number }
  | { readonly kind: "link"; readonly from: number; readonly to: number; readonly forMs: number }
  | { readonly kind: "clock"; readonly target: Target; readonly byMs: number }
  | { readonly kind: "slowDisk"; readonly target: Target; readonly forMs: number; readonly syncMaxMs: number }
  | { readonly kind: "fullDisk"; readonly target: Target; readonly forMs: number }
  | { readonly kind: "failSync"; readonly target: Target }
  | { readonly kind: "replace"; readonly target: Target; readonly lost: boolean; readonly asLearner: boolean }
  | { readonly kind: "weather"; readonly forMs: number; readonly weather: Weather }
  | {
      /** The disk returns data different from what was written. */
      readonly kind: "rot";
      readonly target: Target;
      readonly what: "log" | "snapshot" | "database";
      readonly pick: number;
      /** The damage: a bit, a byte, a whole sector, or a sector of zeros. */
      readonly how: "bit" | "byte" | "sector" | "zeros";
      /** Delay before the member restarts. */
      readonly afterMs: number;
    }
  /** All members are restarted in order, one at a time. */
  | { readonly kind: "rolling"; readonly downMs: number }
  /** The cluster is downgraded by a version, at least this many members of it, and upgraded again. */
  | { readonly kind: "downgrade"; readonly members: number; readonly downMs: number };

export interface RangeShape {
  readonly key: string;
  readonly end: string;
  /** Read this many revisions ago. */
  readonly back: number | undefined;
  readonly limit: number;
  readonly serializable: boolean;
  readonly keysOnly: boolean;
  readonly countOnly: boolean;
  readonly sort: number;
  readonly target: number;
  readonly minMod: boolean;
}

export interface CompareShape {
  readonly key: string;
  readonly end: string;
  readonly target: number;
  readonly result: number;
  readonly pick: number;
}

export type OpShape =
  | { readonly kind: "put"; readonly key: string; readonly prevKv: boolean; readonly lease: number | undefined }
  | { readonly kind: "delete"; readonly key: string; readonly end: string; readonly prevKv: boolean }
  | { readonly kind: "range"; readonly key: string; readonly end: string; readonly back: number | undefined }
  | {
      readonly kind: "txn";
      readonly compares: readonly CompareShape[];
      readonly success: readonly OpShape[];
      readonly failure: readonly OpShape[];
    };

export interface PlanSettings {
  readonly members?: number;
  readonly durationMs?: number;
  readonly operations?: number;
  readonly faults?: boolean;
  /** Only these kinds of faults. */
  readonly only?: readonly FaultStep["kind"][];
  readonly faultEveryMs?: number;
  readonly weather?: Weather;
  /** Client work besides keys and leases; by default the seed's choice. */
  readonly scene?: Scene;
  /** By default the seed's choice. */
  readonly upkeep?: Upkeep;
  /** By default the seed's choice. */
  readonly limits?: Limits;
  /** By default the seed's choice: applied entries per snapshot, and entries kept in the log. */
  readonly snapshots?: { readonly count: number; readonly catchUp: number };
  /** More frequent defragmentations than usual. */
  readonly defragmentEveryMs?: number;
  /** More frequent deletions than usual of many keys, which were put before. */
  readonly deleteAllEveryMs?: number;
}

export const isFault = ({ kind }: Step): boolean => FAULTS.has(kind);

const FAULTS: ReadonlySet<string> = new Set<FaultStep["kind"]>([
  "kill",
  "power",
  "powerAll",
  "stop",
  "pause",
  "isolate",
  "split",
  "link",
  "clock",
  "slowDisk",
  "fullDisk",
  "failSync",
  "replace",
  "weather",
  "rot",
  "rolling",
  "downgrade",
]);

/** Kinds that a seed has or not, independently of the others: their choices have their own random stream. */
const SPECIAL: ReadonlySet<string> = new Set<FaultStep["kind"]>(["rot", "rolling", "downgrade"]);

/** Clients start after the cluster has had time to elect a leader. */
const CLIENTS_MS = 3000;

export function planOf(seed: number, settings: PlanSettings = {}): Plan {
  const random = SimRandom.of(seed, "plan");
  const members = settings.members ?? random.pick([3, 3, 3, 5, 5, 7]);
  const durationMs = settings.durationMs ?? random.between(20_000, 60_000);
  const healMs = CLIENTS_MS + durationMs;
  const operations = settings.operations ?? random.between(100, 400);
  const maker = new StepMaker(random, members, settings);
  const steps: Step[] = [];
  for (let i = 0; i < operations; i++) {
    steps.push({ atMs: CLIENTS_MS + random.below(durationMs), ...maker.clientStep() });
  }
  const { defragmentEveryMs = Number.POSITIVE_INFINITY, deleteAllEveryMs = Number.POSITIVE_INFINITY } = settings;
  for (let atMs = CLIENTS_MS; atMs < healMs; atMs += defragmentEveryMs) {
    if (atMs > CLIENTS_MS) steps.push({ atMs, kind: "defragment", target: random.below(members) });
  }
  for (let atMs = CLIENTS_MS; atMs + deleteAllEveryMs < healMs; atMs += deleteAllEveryMs) {
    const put = { kind: "put", prevKv: false, lease: undefined, ignore: "" } as const;
    for (const key of KEYS) steps.push({ ...put, atMs, target: random.below(members), key });
    const all = { key: "\0", end: "\0", prevKv: false };
    steps.push({ atMs: atMs + deleteAllEveryMs / 2, kind: "delete", target: random.below(members), ...all });
  }
  if (settings.faults !== false) {
    const everyMs = settings.faultEveryMs ?? random.pick([500, 1500, 3000, 6000]);
    const isOrdinary = settings.only?.every((kind) => SPECIAL.has(kind)) !== true;
    for (
      let atMs = CLIENTS_MS + random.below(everyMs);
      isOrdinary && atMs < healMs;
      atMs += 1 + random.below(2 * everyMs)
    ) {
      steps.push({ atMs, ...maker.faultStep() });
    }
    if (members > 1) steps.push(...specialSteps(SimRandom.of(seed, "special troubles"), members, durationMs, settings));
  }
  const scene = settings.scene ?? sceneOf(seed);
  steps.push(...sceneSteps(seed, scene, members, CLIENTS_MS, healMs));
  steps.sort((a, b) => a.atMs - b.atMs);
  return {
    seed,
    members,
    ...snapshotSettings(random, settings),
    compactionBatchLimit: random.pick([2, 10, 1000]),
    weather: settings.weather ?? (settings.faults === false ? FAIR : weatherOf(random)),
    healMs,
    upkeep: settings.upkeep ?? upkeepOf(seed, members),
    limits: settings.limits ?? limitsOf(seed),
    ...sceneSettings(seed, scene),
    steps,
  };
}

function snapshotSettings(
  random: SimRandom,
  { snapshots }: PlanSettings,
): Pick<Plan, "snapshotCount" | "snapshotCatchUpEntries"> {
  const [count, catchUp] = [random.pick([10, 50, 200, 10_000]), random.pick([5, 20, 5000])];
  return { snapshotCount: snapshots?.count ?? count, snapshotCatchUpEntries: snapshots?.catchUp ?? catchUp };
}

function specialSteps(random: SimRandom, members: number, durationMs: number, { only }: PlanSettings): Step[] {
  const steps: Step[] = [];
  const has = (kind: FaultStep["kind"], probability: number): boolean => {
    const isChosen = random.chance(probability);
    return only === undefined ? isChosen : only.includes(kind);
  };
  const target = (): Target => (random.chance(0.35) ? "leader" : random.below(members));
  const atMs = (): number => CLIENTS_MS + random.below(durationMs);
  if (has("rot", 0.25)) {
    for (let count = random.between(1, 5); count > 0; count--) {
      steps.push({
        atMs: atMs(),
        kind: "rot",
        target: target(),
        what: random.pick(["log", "log", "snapshot", "database", "database"] as const),
        pick: random.below(1e6),
        how: random.pick(["bit", "bit", "byte", "sector", "zeros"] as const),
        afterMs: random.pick([0, 10, 3000]),
      });
    }
  }
  const downMs = (): number => random.pick([1, 500, 3000]);
  if (has("rolling", 0.15)) steps.push({ atMs: atMs(), kind: "rolling", downMs: downMs() });
  if (has("downgrade", 0.15)) {
    const downgraded = random.chance(0.6) ? members : random.below(members);
    steps.push({ atMs: atMs(), kind: "downgrade", members: downgraded, downMs: downMs() });
  }
  return steps;
}

function weatherOf(random: SimRandom): Weather {
  return random.pick([
    FAIR,
    { delayMinMs: 0.1, delayMaxMs: 1, loss: 0, duplication: 0, straggling: 0.01 },
    { delayMinMs: 1, delayMaxMs: 60, loss: 0.01, duplication: 0.02, straggling: 0.01 },
    { delayMinMs: 20, delayMaxMs: 200, loss: 0.05, duplication: 0.05, straggling: 0.02 },
    { delayMinMs: 1, delayMaxMs: 20, loss: 0.2, duplication: 0.1, straggling: 0.1 },
  ]);
}

const KEYS = ["a", "a/1", "a/2", "b", "b/1", "b/2", "c", "d"] as const;

class StepMaker {
  readonly #random: SimRandom;
  readonly #members: number;

  /** A few kinds of faults at a time: more seeds then reach states that only a combination of few causes. */
  readonly #kinds: ReadonlySet<string>;

  constructor(random: SimRandom, members: number, { only }: PlanSettings) {
    this.#random = random;
    this.#members = members;
    const possible = [...FAULTS].filter((kind) => !SPECIAL.has(kind) && (kind !== "replace" || members > 1));
    const some = possible.filter(() => random.chance(0.6));
    this.#kinds = new Set(only ?? (some.length > 0 ? some : possible));
  }

  clientStep(): ClientStep {
    const random = this.#random;
    const target = random.below(this.#members);
    const dice = random.below(100);
    if (dice < 28) {
      return {
        kind: "put",
        target,
        key: this.#key(),
        prevKv: random.chance(0.3),
        lease: this.#maybeLease(),
        ignore: random.chance(0.08) ? random.pick(["value", "lease"] as const) : "",
      };
    }
    if (dice < 35) return { kind: "delete", target, ...this.#span(), prevKv: random.chance(0.5) };
    if (dice < 57) return { kind: "range", target, range: this.#range() };
    if (dice < 73) {
      return {
        kind: "txn",
        target,
        compares: this.#compares(),
        success: this.#ops(2),
        failure: this.#ops(2),
      };
    }
    if (dice < 76) return { kind: "compact", target, back: random.below(20), physical: random.chance(0.5) };
    if (dice < 82) {
      return {
        kind: "watch",
        target,
        ...this.#span(),
        // A negative value is a future revision.
        back: random.chance(0.6) ? random.below(35) - 5 : undefined,
        prevKv: random.chance(0.4),
        progress: random.chance(0.5),
        filter: random.pick(["", "", "", "put", "delete"] as const),
        slow: random.chance(0.2),
        forMs: random.chance(0.6) ? 1_000_000 : random.between(1000, 20_000),
      };
    }
    if (dice < 87) return { kind: "grant", target, ttl: random.between(2, 12), renewals: random.pick([0, 0, 2, 5]) };
    if (dice < 89) return { kind: "revoke", target, lease: random.below(1e6) };
    if (dice < 91) return { kind: "timeToLive", target, lease: random.below(1e6) };
    if (dice < 95) return { kind: "hash", target, back: random.below(10) };
    if (dice < 96) return { kind: "defragment", target };
    if (dice < 97) return { kind: "backup", target };
    if (dice < 98) return { kind: "moveLeader", to: random.below(this.#members) };
    return random.chance(0.5) ? { kind: "status", target } : { kind: "progress", pick: random.below(1e6) };
  }

  /** One of this seed's kinds of faults. */
  faultStep(): FaultStep {
    for (;;) {
      const step = this.#anyFault();
      if (this.#kinds.has(step.kind)) return step;
    }
  }

  #anyFault(): FaultStep {
    const random = this.#random;
    const target = random.chance(0.35) ? ("leader" as const) : random.below(this.#members);
    const forMs = random.pick([200, 1000, 3000, 10_000]) + random.below(1000);
    const dice = random.below(100);
    if (dice < 16) return { kind: "kill", target, downMs: random.pick([1, 100, 2000, 8000]) };
    if (dice < 32) return { kind: "power", target, downMs: random.pick([1, 100, 2000, 8000]) };
    if (dice < 37) return { kind: "powerAll", downMs: random.pick([1, 1000]) };
    if (dice < 41) return { kind: "stop", target, downMs: random.pick([1, 1000]) };
    if (dice < 50) return { kind: "pause", target, forMs };
    if (dice < 62) {
      return { kind: "isolate", target, forMs, direction: random.pick(["both", "both", "in", "out"] as const) };
    }
    if (dice < 71) return { kind: "split", mask: random.below(2 ** this.#members), forMs };
    if (dice < 76) return { kind: "link", from: random.below(this.#members), to: random.below(this.#members), forMs };
    if (dice < 80) return { kind: "clock", target, byMs: random.pick([-3_600_000, -5000, 5000, 86_400_000]) };
    if (dice < 85) return { kind: "slowDisk", target, forMs, syncMaxMs: random.pick([50, 500, 2000]) };
    if (dice < 88) return { kind: "fullDisk", target, forMs };
    if (dice < 90) return { kind: "failSync", target };
    if (dice < 95) return { kind: "replace", target, lost: random.chance(0.5), asLearner: random.chance(0.5) };
    return { kind: "weather", forMs, weather: weatherOf(random) };
  }

  #key(): string {
    return this.#random.pick(KEYS);
  }

  #span(): { key: string; end: string } {
    const dice = this.#random.below(10);
    if (dice < 5) return { key: this.#key(), end: "" };
    if (dice < 7) return { key: "a", end: "b" };
    if (dice < 8) return { key: "b", end: "c" };
    if (dice < 9) return { key: "\0", end: "\0" };
    return { key: this.#key(), end: "\0" };
  }

  #maybeLease(): number | undefined {
    return this.#random.chance(0.25) ? this.#random.below(1e6) : undefined;
  }

  #range(): RangeShape {
    const random = this.#random;
    return {
      ...this.#span(),
      back: random.chance(0.2) ? random.below(25) : undefined,
      limit: random.chance(0.2) ? random.between(1, 3) : 0,
      serializable: random.chance(0.2),
      keysOnly: random.chance(0.1),
      countOnly: random.chance(0.1),
      sort: random.chance(0.2) ? random.below(3) : 0,
      target: random.chance(0.2) ? random.below(5) : 0,
      minMod: random.chance(0.1),
    };
  }

  #compares(): CompareShape[] {
    const random = this.#random;
    return Array.from({ length: random.below(3) }, () => ({
      key: this.#key(),
      end: random.chance(0.2) ? "\0" : "",
      target: random.below(5),
      result: random.below(4),
      pick: random.below(1e6),
    }));
  }

  /** Operations of one branch; each key is written at most once. */
  #ops(depth: number): OpShape[] {
    const free = [...KEYS] as string[];
    const random = this.#random;
    const take = (): string => free.splice(random.below(free.length), 1)[0]!;
    const ops = (count: number, level: number): OpShape[] =>
      Array.from({ length: count }, () => {
        const dice = random.below(10);
        if (dice < 5)
          return { kind: "put" as const, key: take(), prevKv: random.chance(0.3), lease: this.#maybeLease() };
        if (dice < 7) return { kind: "delete" as const, key: take(), end: "", prevKv: random.chance(0.5) };
        if (dice < 9 || level === 0)
          return { kind: "range" as const, ...this.#span(), back: random.chance(0.2) ? random.below(20) : undefined };
        return {
          kind: "txn" as const,
          compares: this.#compares(),
          success: ops(1, level - 1),
          failure: ops(1, level - 1),
        };
      });
    return ops(random.below(4), depth - 1);
  }
}
