/**
 * How many pods there are to be. Only a source that follows changes (the API, a file) can tell that a pod is scaled down; a
 * number that the pod was started with can not, and then a pod that ends keeps its place.
 */
import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import { DeployError } from "../deploy/common/context.ts";
import { readText } from "../deploy/common/files.ts";
import { apiFromEnvironment, type KubernetesApi } from "./kubernetes.ts";
import type { PodSettings } from "./settings.ts";

export interface Wanted {
  readonly first: number;
  readonly replicas: number;
  /** Read just now from what follows changes. */
  readonly isLive: boolean;
  /** The set itself is deleted: its pods end, and nobody is scaled down. */
  readonly isDeleted: boolean;
}

export interface WantedSource {
  /** Rejects with DeployError when it cannot be known now. */
  read(): Promise<Wanted>;
  readonly name: string;
}

export const includes = ({ first, replicas }: Wanted, ordinal: number): boolean =>
  ordinal >= first && ordinal < first + replicas;

/** Scaled down, and not to zero: then all stay members, so that all are when the set grows again. */
export const isScaledDown = (wanted: Wanted, ordinal: number): boolean =>
  wanted.isLive && !wanted.isDeleted && wanted.replicas > 0 && !includes(wanted, ordinal);

/** Throws DeployError when nothing tells. */
export function wantedSource(
  settings: PodSettings,
  env: Readonly<Record<string, string | undefined>>,
  clock: Clock,
): WantedSource {
  const { replicas, replicasFile, api } = settings;
  if (replicasFile !== undefined) return fileSource(settings, replicasFile);
  const kubernetes = api === "off" ? undefined : apiFromEnvironment(settings.serviceAccountDir, env, clock);
  if (api === "on" && kubernetes === undefined)
    throw new DeployError(
      "--statefulset-api=on, but there is no token of a service account, or no KUBERNETES_SERVICE_HOST",
    );
  if (kubernetes !== undefined) return apiSource(settings, kubernetes);
  if (replicas === undefined)
    throw new DeployError(
      "nothing tells how many pods there are to be: mount a service account that may get the StatefulSet, or give --replicas-file or --replicas",
    );
  return { name: "--replicas", read: async () => fixed(settings, replicas) };
}

const fixed = ({ firstOrdinal }: PodSettings, replicas: number): Wanted => ({
  first: firstOrdinal,
  replicas,
  isLive: false,
  isDeleted: false,
});

function fileSource({ firstOrdinal }: PodSettings, path: string): WantedSource {
  return {
    name: path,
    async read() {
      const text = readText(path)?.trim();
      if (text === undefined || !/^\d+$/.test(text))
        throw new DeployError(
          `${path} ${text === undefined ? "does not exist" : `says "${text}"`}: it must hold the number of pods`,
        );
      return { first: firstOrdinal, replicas: Number(text), isLive: true, isDeleted: false };
    },
  };
}

function apiSource(settings: PodSettings, kubernetes: KubernetesApi): WantedSource {
  const { namespace, set, replicas } = settings;
  return {
    name: `StatefulSet ${namespace}/${set}`,
    async read() {
      try {
        const found = await kubernetes.statefulSet(namespace, set);
        if (found === undefined) return { first: 0, replicas: replicas ?? 0, isLive: true, isDeleted: true };
        return { ...found, isLive: true };
      } catch (error) {
        // What the pod was started with is enough to find the others by.
        if (replicas !== undefined) return fixed(settings, replicas);
        throw new DeployError(`StatefulSet ${namespace}/${set} cannot be read: ${messageOf(error)}`);
      }
    },
  };
}
