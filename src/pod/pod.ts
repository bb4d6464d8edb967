/** What all parts of a pod share: who it is, its volume, and what it can know of the others right now. */
import type { Clock } from "../base/clock.ts";
import { messageOf } from "../base/errors.ts";
import type { Random } from "../base/random.ts";
import type { Facts } from "./decide.ts";
import { wantedPods } from "./decide.ts";
import { lookAtCluster } from "./members.ts";
import { podName } from "./names.ts";
import { askPods } from "./neighbours.ts";
import type { Says } from "./says.ts";
import type { PodSettings } from "./settings.ts";
import type { Volume } from "./volume.ts";
import type { Wanted, WantedSource } from "./wanted.ts";

export interface Pod {
  readonly settings: PodSettings;
  readonly clock: Clock;
  readonly random: Random;
  readonly source: WantedSource;
  readonly says: Says;
}

/** Where nothing tells how many pods there are, these are asked at least. */
const PODS_ASKED_MIN = 3;

/** A text says why it is not known. */
export const wantedNow = (source: WantedSource): Promise<Wanted | string> =>
  source.read().catch((error: unknown) => messageOf(error));

/** Does not reject. */
export async function factsNow({ settings, clock, source }: Pod, volume: Volume): Promise<Facts> {
  const wanted = await wantedNow(source);
  const others = othersOf(settings, wanted);
  const [cluster, pods] = await Promise.all([lookAtCluster(settings, others), askPods(settings, others, clock)]);
  return { settings, data: volume.data(), notes: volume.notes, wanted, cluster, pods };
}

/** All pods that there may be, but this one. */
export function othersOf(settings: PodSettings, wanted: Wanted | string): readonly string[] {
  const pods =
    typeof wanted === "string"
      ? Array.from({ length: Math.max(PODS_ASKED_MIN, settings.ordinal) }, (_, i) => podName(settings, i))
      : wantedPods(settings, wanted);
  return pods.filter((pod) => pod !== settings.name);
}
