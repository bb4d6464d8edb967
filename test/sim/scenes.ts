/**
 * The clients' work besides keys, watches and leases: a seed has one scene, or none. Its choices have their own random
 * stream, so that the rest of a seed's plan is the same with and without it.
 */
import type { Target } from "./plan.ts";
import { SimRandom } from "./random.ts";

export const SCENES = ["plain", "sessions", "users", "quota"] as const;
export type Scene = (typeof SCENES)[number];

/** A scene's server settings. */
export interface SceneSettings {
  /** Authentication is enabled, with tokens of this kind. */
  readonly tokens?: "simple" | "jwt";
  /** Quota of the backend. */
  readonly quotaBytes?: number;
}

export type SceneStep = SessionStep | UserStep | QuotaStep;

/** A client writes much, and the operator makes room. */
export type QuotaStep =
  | { readonly kind: "fill"; readonly target: Target; readonly key: string; readonly bytes: number }
  | { readonly kind: "makeRoom" };

/** Changes of users and permissions. `enableAuth` creates the user root first. */
export type UserStep =
  | { readonly kind: "enableAuth" | "disableAuth" | "authStatus"; readonly target: Target }
  | { readonly kind: "login"; readonly target: Target; readonly user: string }
  | {
      readonly kind: "user";
      readonly target: Target;
      readonly change: "add" | "delete" | "password" | "grant" | "revoke";
      readonly user: string;
      readonly role: string;
      readonly password: string;
    }
  | {
      readonly kind: "role";
      readonly target: Target;
      readonly change: "add" | "delete" | "grant" | "revoke";
      readonly role: string;
      readonly type: 0 | 1 | 2;
      readonly key: string;
      readonly end: string;
    };

/** A client with a lease that wants a lock, wants to be elected, or observes the leader. */
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

export const isUser = (step: { readonly kind: string }): step is UserStep => USERS.has(step.kind);

const USERS: ReadonlySet<string> = new Set<UserStep["kind"]>([
  "enableAuth",
  "disableAuth",
  "authStatus",
  "login",
  "user",
  "role",
]);

export const isQuota = (step: { readonly kind: string }): step is QuotaStep =>
  step.kind === "fill" || step.kind === "makeRoom";

export function sceneSettings(seed: number, scene: Scene): SceneSettings {
  const random = SimRandom.of(seed, "scene settings");
  if (scene === "quota") return { quotaBytes: random.pick([96, 160, 256]) * 1024 };
  return scene === "users" ? { tokens: random.pick(["simple", "jwt"] as const) } : {};
}

/** The seed's default scene. */
export function sceneOf(seed: number): Scene {
  const scene = SimRandom.of(seed, "which scene").pick<Scene>(["plain", "plain", "sessions", "users"]);
  return scene === "plain" && SimRandom.of(seed, "has a quota").chance(0.3) ? "quota" : scene;
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
  if (scene === "users") return userSteps(random, members, fromMs, toMs);
  if (scene === "quota") return quotaSteps(random, members, fromMs, toMs);
  return Array.from({ length: random.between(10, 40) }, () => ({
    atMs: random.between(fromMs, toMs),
    ...sessionStep(random, members),
  }));
}

function quotaSteps(
  random: SimRandom,
  members: number,
  fromMs: number,
  toMs: number,
): ({ readonly atMs: number } & QuotaStep)[] {
  const fills = Array.from({ length: random.between(40, 120) }, () => ({
    atMs: random.between(fromMs, toMs),
    kind: "fill" as const,
    target: random.below(members),
    key: `${FILL.key}${random.below(30)}`,
    bytes: random.pick([500, 4000, 12_000]),
  }));
  const rooms = Array.from({ length: random.below(4) }, () => ({
    atMs: random.between(fromMs, toMs),
    kind: "makeRoom" as const,
  }));
  return [...fills, ...rooms];
}

/** The keys written to fill the backend. */
export const FILL = { key: "f/", end: "f0" };

function userSteps(
  random: SimRandom,
  members: number,
  fromMs: number,
  toMs: number,
): ({ readonly atMs: number } & UserStep)[] {
  const target = (): number => random.below(members);
  const step = { password: "p", key: "a", end: "b", type: 2 as const };
  // At first every user has some permission.
  const first: UserStep[] = [0, 1, 2].flatMap((i) => [
    { kind: "role", target: target(), change: "add", ...step, role: `r${i}` },
    { kind: "role", target: target(), change: "grant", ...step, role: `r${i}`, ...random.pick(SPANS) },
    { kind: "user", target: target(), change: "add", ...step, user: `u${i}`, role: `r${i}` },
    { kind: "user", target: target(), change: "grant", ...step, user: `u${i}`, role: `r${i}` },
  ]);
  const steps = first.map((each, i) => ({ atMs: fromMs + 50 * i, ...each }));
  steps.push({ atMs: fromMs + 50 * first.length + random.below(3000), kind: "enableAuth", target: target() });
  for (let i = random.between(20, 80); i > 0; i--) {
    steps.push({ atMs: random.between(fromMs + 1000, toMs), ...userStep(random, target()) });
  }
  return steps;
}

const SPANS = [
  { key: "a", end: "b" },
  { key: "b", end: "c" },
  { key: "a", end: "" },
  { key: "a/1", end: "b/1" },
  { key: "\0", end: "\0" },
  { key: "b/2", end: "" },
  { key: "c", end: "\0" },
] as const;

function userStep(random: SimRandom, target: number): UserStep {
  const dice = random.below(100);
  if (dice < 8) return { kind: "enableAuth", target };
  if (dice < 11) return { kind: "disableAuth", target };
  if (dice < 20) return { kind: "authStatus", target };
  const role = random.pick(["r0", "r1", "r2"]);
  const user = random.pick(["u0", "u1", "u2"]);
  if (dice < 30) return { kind: "login", target, user };
  if (dice < 65) {
    const change = random.pick(["add", "grant", "grant", "grant", "revoke", "revoke", "delete"] as const);
    return { kind: "role", target, change, role, type: random.pick([0, 1, 2, 2]), ...random.pick(SPANS) };
  }
  const change = random.pick(["add", "add", "grant", "grant", "grant", "revoke", "password", "delete"] as const);
  return { kind: "user", target, change, user, role, password: random.pick(["p", "q"]) };
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
