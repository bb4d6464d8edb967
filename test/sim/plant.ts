/** What a planted bug is, and how one replaces a method of the running server. */
import type { PlanSettings } from "./plan.ts";
import type { Simulation } from "./simulation.ts";

export interface Bug {
  readonly name: string;
  /** What is broken; with etcd's issue number where it is one. */
  readonly about: string;
  readonly settings?: PlanSettings;
  /** Plants the bug; the returned function removes it. */
  plant(simulation: Simulation): () => void;
}

/** Replaces a method; returns a function that undoes it. */
export function replace<T extends object, K extends keyof T>(
  target: T,
  name: K,
  make: (original: T[K]) => T[K],
): () => void {
  const original = target[name];
  target[name] = make(original);
  return () => {
    target[name] = original;
  };
}

/** Syncs of these files do nothing. */
export function withoutSyncs(isMeant: (path: string) => boolean): Bug["plant"] {
  return (simulation) => {
    simulation.onStarting = ({ disk }) => {
      disk.syncLies = isMeant;
    };
    return () => {};
  };
}
