/**
 * What the clients of a plan do besides keys, watches and leases: a seed has one such scene, or none. Its choices have a
 * stream of their own, so that the rest of a seed's plan is the same with and without it.
 */
import type { Target } from "./plan.ts";
import { SimRandom } from "./random.ts";

export const SCENES = ["plain", "sessions"] as const;
export type Scene = (typeof SCENES)[number];

export type SceneStep = SessionStep;

/** Somebody with a lease who wants a lock, or to be elected, or to know who is. */
export type SessionStep =
  | {
      readonly kind: "lock";
      readonly target: Target;
      readonly name: string;
      readonly ttl: number;
      readonly renew: boolean;
      readonly holdMs: number;
      readonly end: "unlock" | "abandon" | "revoke";
    }
  | {
      readonly kind: "campaign";
      readonly target: Target;
      readonly name: string;
      readonly ttl: number;
      readonly renew: boolean;
      readonly holdMs: number;
      readonly proclaims: number;
      readonly end: "resign" | "abandon" | "revoke";
    }
  | { readonly kind: "observe"; readonly target: Target; readonly name: string; readonly forMs: number }
  | { readonly kind: "leaderOf"; readonly target: Target; readonly name: string };

export const isSession = (step: { readonly kind: string }): step is SessionStep => SESSIONS.has(step.kind);

const SESSIONS: ReadonlySet<string> = new Set<SessionStep["kind"]>(["lock", "campaign", "observe", "leaderOf"]);

/** The scene that a seed has of itself. */
export function sceneOf(seed: number): Scene {
  return SimRandom.of(seed, "which scene").pick<Scene>(["plain", "plain", "sessions"]);
}

/** Steps of a scene, between `fromMs` and `toMs`. */
export function sceneSteps(
  seed: number,
  scene: Scene,
  members: number,
  fromMs: number,
  toMs: number,
): ({ readonly atMs: number } & SceneStep)[] {
  const random = SimRandom.of(seed, "scene");
  if (scene === "plain") return [];
  return Array.from({ length: random.between(10, 40) }, () => ({
    atMs: random.between(fromMs, toMs),
    ...sessionStep(random, members),
  }));
}

function sessionStep(random: SimRandom, members: number): SessionStep {
  const target = random.below(members);
  const dice = random.below(100);
  const session = {
    target,
    ttl: random.between(2, 10),
    renew: random.chance(0.7),
    holdMs: random.pick([10, 300, 2000, 8000]),
  };
  if (dice < 40) {
    const end = random.pick(["unlock", "unlock", "abandon", "revoke"] as const);
    return { kind: "lock", ...session, name: random.pick(["lock/x", "lock/y"]), end };
  }
  const name = random.pick(["vote/x", "vote/y"]);
  if (dice < 75) {
    const end = random.pick(["resign", "resign", "abandon", "revoke"] as const);
    return { kind: "campaign", ...session, name, proclaims: random.below(4), end };
  }
  if (dice < 85) {
    return { kind: "observe", target, name, forMs: random.chance(0.6) ? 1_000_000 : random.between(1000, 20_000) };
  }
  return { kind: "leaderOf", target, name };
}
