/**
 * What a pod does next on its way to a member that runs. A pure function of what is known. After each step
 * everything is asked again, so every step may be interrupted and repeated.
 */
import { formatId } from "../membership/member.ts";
import { ordinalOf, peerUrlOf, podName } from "./names.ts";
import type { PodState } from "./neighbours.ts";
import { initialCluster, isNamed, type Plan } from "./plan.ts";
import type { PodSettings } from "./settings.ts";
import type { Data, Notes } from "./volume.ts";
import { includes, isScaledDown, type Wanted } from "./wanted.ts";

export interface MemberFacts {
  readonly id: bigint;
  /** Empty until it has started. */
  readonly name: string;
  readonly peerUrls: readonly string[];
  readonly clientUrls: readonly string[];
  readonly isLearner: boolean;
}

/** What the other members say. Without a majority they may know of members that are none any more. */
export type ClusterFacts =
  | { readonly kind: "answers"; readonly clusterId: bigint; readonly members: readonly MemberFacts[] }
  | { readonly kind: "no-majority"; readonly clusterId: bigint; readonly members: readonly MemberFacts[] }
  | { readonly kind: "silent" };

export interface Facts {
  readonly settings: PodSettings;
  readonly data: Data;
  readonly notes: Notes;
  /** A text says why it is not known. */
  readonly wanted: Wanted | string;
  readonly cluster: ClusterFacts;
  readonly pods: ReadonlyMap<string, PodState>;
}

export type Action =
  /** The member as its data says, with more flags for the engine. */
  | { readonly do: "start"; readonly flags: readonly string[]; readonly why: string; readonly recovered?: string }
  | { readonly do: "plan"; readonly plan: Plan }
  | { readonly do: "restore"; readonly backup: readonly string[] }
  | { readonly do: "add" }
  | { readonly do: "remove"; readonly member: MemberFacts; readonly why: string }
  | { readonly do: "update"; readonly member: MemberFacts }
  | { readonly do: "discard"; readonly why: string }
  /** `isForPerson`: nothing will change by itself. */
  | { readonly do: "wait"; readonly why: string; readonly isForPerson?: boolean };

/** @param newToken draws the token of a new cluster */
export function decide(facts: Facts, newToken: () => string): Action {
  const { settings, data, wanted } = facts;
  if (typeof wanted !== "string" && isScaledDown(wanted, settings.ordinal))
    return {
      do: "wait",
      why: `${settings.name} is not wanted: there are to be ${podsText(settings, wanted)}; it waits for its end`,
    };
  return data === undefined ? withoutData(facts, newToken) : withData(facts, data);
}

function withData(facts: Facts, data: NonNullable<Data>): Action {
  const { settings, cluster } = facts;
  if (data === "unreadable") return { do: "start", flags: [], why: "there is data, which only the engine can judge" };
  const recovery = recoveryOf(facts, data);
  if (recovery !== undefined) return recovery;
  if (cluster.kind !== "answers") return { do: "start", flags: [], why: "there is data, and no majority to ask" };
  if (cluster.clusterId !== data.clusterId)
    return {
      do: "wait",
      isForPerson: true,
      why:
        `the volume has data of cluster ${formatId(data.clusterId)}, and the other pods are cluster ${formatId(cluster.clusterId)}: ` +
        `two clusters were founded, or the volume is another's. Look at both (etcdctl get --prefix --keys-only ""), keep one, and give ` +
        `${settings.name} an empty volume if it is not this one`,
    };
  const mine = cluster.members.find(({ id }) => id === data.memberId);
  if (mine === undefined)
    return {
      do: "discard",
      why: `member ${formatId(data.memberId)} was removed from the cluster; its data is of no more use`,
    };
  if (!mine.peerUrls.includes(peerUrlOf(settings, settings.name))) return { do: "update", member: mine };
  return { do: "start", flags: [], why: `it is member ${formatId(mine.id)}` };
}

/** Carried out once, and only where all other pods are there and have nothing that could be lost. */
function recoveryOf(
  { settings, notes, cluster, pods, wanted }: Facts,
  data: Exclude<Data, string | undefined>,
): Action | undefined {
  const { recoverFrom, name } = settings;
  // What stands behind a slash makes it another word: `db-0/second time`.
  const word = `${recoverFrom} ${formatId(data.clusterId)}`;
  if (recoverFrom?.split("/")[0] !== name || notes.recovered === word || cluster.kind === "answers") return undefined;
  if (typeof wanted === "string") return { do: "wait", why: wanted };
  const others = othersOf(settings, wanted);
  const absent = others.filter((pod) => pods.get(pod) === undefined);
  if (absent.length > 0)
    return { do: "wait", why: `to go on from the data of ${name} alone, ${list(absent)} must run first` };
  const full = others.filter((pod) => pods.get(pod)?.hasData === true);
  if (full.length > 0)
    return {
      do: "wait",
      isForPerson: true,
      why: `--recover-from=${recoverFrom} gives up what the others hold, and ${list(full)} has data: delete its volume first if it is worthless`,
    };
  return {
    do: "start",
    flags: ["--force-new-cluster"],
    why: "a person has said that its data is all that is left",
    recovered: word,
  };
}

function withoutData(facts: Facts, newToken: () => string): Action {
  const { settings, notes, pods, cluster } = facts;
  const plan = [notes.plan, ...[...pods.values()].map((pod) => pod.plan)].find(
    (each) => each !== undefined && isNamed(each, settings.name, notes.uid),
  );
  if (plan !== undefined) {
    if (notes.plan === undefined) return { do: "plan", plan };
    return {
      do: "start",
      flags: foundingFlags(initialCluster(plan), "new", plan.token),
      why: `the cluster is new, of ${list(plan.founders.map(({ name }) => name))}`,
    };
  }
  if (cluster.kind === "answers") return joining(facts, cluster.members);
  return founding(facts, newToken);
}

function joining({ settings, notes }: Facts, members: readonly MemberFacts[]): Action {
  const peerUrl = peerUrlOf(settings, settings.name);
  const mine = members.find(({ name, peerUrls }) => name === settings.name || peerUrls.includes(peerUrl));
  if (mine === undefined) return { do: "add" };
  if (mine.name !== "")
    return {
      do: "remove",
      member: mine,
      why: `the volume is empty, and member ${formatId(mine.id)} has run before: its volume was lost`,
    };
  if (notes.joining !== formatId(mine.id))
    return {
      do: "remove",
      member: mine,
      why: `member ${formatId(mine.id)} was added and never started, for a volume that is not this one`,
    };
  const list = members.map((member) => {
    const name = member === mine ? settings.name : member.name || `unstarted-${formatId(member.id)}`;
    return member.peerUrls.map((url) => `${name}=${url}`).join(",");
  });
  return {
    do: "start",
    flags: foundingFlags(list.join(","), "existing", settings.token),
    why: `it joins as member ${formatId(mine.id)}`,
  };
}

const foundingFlags = (cluster: string, state: string, token: string): readonly string[] => [
  `--initial-cluster=${cluster}`,
  `--initial-cluster-state=${state}`,
  `--initial-cluster-token=${token}`,
];

function founding({ settings, notes, wanted, cluster, pods }: Facts, newToken: () => string): Action {
  if (typeof wanted === "string") return { do: "wait", why: wanted };
  if (!includes(wanted, settings.ordinal))
    return { do: "wait", why: `a cluster of ${podsText(settings, wanted)} comes first, and does not answer yet` };
  const others = othersOf(settings, wanted);
  const full = others.filter((pod) => pods.get(pod)?.hasData === true);
  const absent = others.filter((pod) => pods.get(pod) === undefined);
  if (full.length > 0 || cluster.kind === "no-majority") return majorityIsMissing(settings, wanted, full, absent);
  if (absent.length > 0)
    return {
      do: "wait",
      why: `a new cluster is founded when all of ${podsText(settings, wanted)} run; ${list(absent)} does not answer yet`,
    };
  if (!settings.mayFound)
    return {
      do: "wait",
      isForPerson: true,
      why: "the volumes of all pods are empty, and --may-found=false says that a cluster exists: bring volumes back, or restore a backup (--may-found with --restore-from)",
    };
  const first = podName(settings, wanted.first);
  if (first !== settings.name)
    return { do: "wait", why: `the volumes of all pods are empty; ${first} plans the new cluster` };
  if (settings.restore !== undefined) return { do: "restore", backup: settings.restore };
  const founder = (name: string, uid: string) => ({ name, uid, peerUrl: peerUrlOf(settings, name) });
  const founders = [founder(settings.name, notes.uid), ...others.map((pod) => founder(pod, pods.get(pod)?.uid ?? ""))];
  return { do: "plan", plan: { token: `${settings.token}-${newToken()}`, founders } };
}

function majorityIsMissing(
  settings: PodSettings,
  wanted: Wanted,
  full: readonly string[],
  absent: readonly string[],
): Action {
  const empty = `${settings.name} has an empty volume, and the cluster has no majority that could take it in`;
  if (absent.length > 0)
    return { do: "wait", why: `${empty}: ${list(full)} has data, ${list(absent)} does not answer yet` };
  // With one volume lost of two, or two of three, those that are left are no majority, now or later.
  const isLost = full.length <= Math.floor(wanted.replicas / 2);
  if (!isLost) return { do: "wait", why: `${empty} yet: ${list(full)} is starting` };
  return {
    do: "wait",
    isForPerson: true,
    why:
      `${empty}: only ${full.length === 0 ? "pods that are not wanted" : list(full)} of ${podsText(settings, wanted)} has data. Bring the lost ` +
      `volumes back; or, if they are gone for good, let one pod go on from its data alone with --recover-from=${full[0] ?? "POD"} (what it ` +
      "does not have is lost); or restore a backup into empty volumes",
  };
}

const othersOf = (settings: PodSettings, wanted: Wanted): readonly string[] =>
  wantedPods(settings, wanted).filter((pod) => pod !== settings.name);

/** In their order. */
export const wantedPods = (settings: PodSettings, { first, replicas }: Wanted): readonly string[] =>
  Array.from({ length: replicas }, (_, i) => podName(settings, first + i));

const podsText = (settings: PodSettings, wanted: Wanted): string =>
  wanted.replicas === 0 ? "no pods" : list(wantedPods(settings, wanted));

export const list = (names: readonly string[]): string => names.join(", ");

/** Members of pods that are not wanted any more. */
export const surplus = (
  settings: PodSettings,
  wanted: Wanted,
  members: readonly MemberFacts[],
): readonly MemberFacts[] =>
  members.filter(({ name, peerUrls }) => {
    const ordinal = ordinalOf(settings, name);
    return ordinal !== undefined && isScaledDown(wanted, ordinal) && peerUrls.length > 0;
  });
