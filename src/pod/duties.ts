/**
 * What a pod does while its member runs: makes it a voter when it has caught up, keeps its peer URL true, says when the cluster
 * has no majority, and, as the leader, removes members of pods that were scaled down and could not leave themselves.
 */
import { messageOf } from "../base/errors.ts";
import { formatId } from "../membership/member.ts";
import { Backoff, sleep } from "./backoff.ts";
import { list, type MemberFacts, surplus } from "./decide.ts";
import { isObject, parsed, textIn } from "./json.ts";
import {
  lookAtCluster,
  type MemberView,
  promoteMember,
  removeMember,
  updateMember,
  viewOf,
  votersOf,
} from "./members.ts";
import { peerUrlOf } from "./names.ts";
import { askPods, fetchPeer } from "./neighbours.ts";
import { othersOf, type Pod, wantedNow } from "./pod.ts";

const ROUND_MS = 5_000;
/** How long a pod that is not wanted must be silent before its member is removed for it. */
const SILENCE_MS = 15_000;
/** An election is no news. */
const NO_MAJORITY_MS = 10_000;

export interface DutyState {
  /** A learner serves no clients. */
  isVoter: boolean;
}

/** Until the signal fires. Does not reject. */
export async function doDuties(pod: Pod, state: DutyState, signal: AbortSignal): Promise<void> {
  await becomeVoter(pod, state, signal);
  const silentSince = new Map<bigint, number>();
  let missingSinceMs: number | undefined;
  while (!signal.aborted) {
    const cluster = await lookAtCluster(pod.settings, [pod.settings.name]);
    const nowMs = pod.clock.nowMs();
    if (cluster.kind === "answers") {
      if (missingSinceMs !== undefined) pod.says.now("the cluster has a majority");
      missingSinceMs = undefined;
      await keepTrue(pod, cluster.members, silentSince).catch((error: unknown) =>
        pod.says.waiting(`is refused for now: ${messageOf(error)}`),
      );
    } else {
      missingSinceMs ??= nowMs;
      if (nowMs > missingSinceMs + NO_MAJORITY_MS) await sayWhoIsMissing(pod, "no majority answers");
    }
    await sleep(pod.clock, ROUND_MS, signal);
  }
}

async function becomeVoter(pod: Pod, state: DutyState, signal: AbortSignal): Promise<void> {
  const { settings, says, clock } = pod;
  const backoff = new Backoff(clock);
  let silentSinceMs: number | undefined;
  while (!signal.aborted) {
    try {
      const view = await viewOf(settings, settings.name).catch((error: unknown) => messageOf(error));
      if (typeof view === "string") {
        silentSinceMs ??= clock.nowMs();
        if (clock.nowMs() > silentSinceMs + NO_MAJORITY_MS) await sayWhoIsMissing(pod, view);
        await backoff.pause(signal);
        continue;
      }
      silentSinceMs = undefined;
      if (!view.isLearner) {
        state.isVoter = true;
        says.now(`runs as member ${formatId(view.memberId)}`);
        return;
      }
      await promote(pod, view);
      backoff.reset();
      continue;
    } catch (error) {
      if (signal.aborted) return;
      says.waiting(`is not a voter yet: ${messageOf(error)}`);
    }
    await backoff.pause(signal);
  }
}

/** Rejects while it has not caught up. A learner does not know who the members are: the others are asked. */
async function promote({ settings, says, source }: Pod, { memberId }: MemberView): Promise<void> {
  const cluster = await lookAtCluster(settings, othersOf(settings, await wantedNow(source)));
  if (cluster.kind !== "answers") throw new Error("the other members have no majority, or do not answer");
  await promoteMember(settings, votersOf(cluster.members, memberId), memberId);
  says.now(`learner ${formatId(memberId)} has caught up and is a voter`);
}

async function keepTrue(pod: Pod, members: readonly MemberFacts[], silentSince: Map<bigint, number>): Promise<void> {
  const { settings, says, clock, source } = pod;
  const view = await viewOf(settings, settings.name);
  const mine = members.find(({ id }) => id === view.memberId);
  const url = peerUrlOf(settings, settings.name);
  if (mine !== undefined && !mine.peerUrls.includes(url)) {
    await updateMember(settings, votersOf(members), mine.id, url);
    says.now(`member ${formatId(mine.id)} is now known at ${url}`);
  }
  if (view.leader !== view.memberId) return silentSince.clear();
  const wanted = await wantedNow(source);
  const left = typeof wanted === "string" ? [] : surplus(settings, wanted, members);
  const answering = await askPods(
    settings,
    left.map(({ name }) => name),
    clock,
  );
  for (const { id, name } of left) {
    const sinceMs = silentSince.get(id) ?? clock.nowMs();
    if (answering.has(name)) silentSince.delete(id);
    else silentSince.set(id, sinceMs);
    if (answering.has(name) || clock.nowMs() < sinceMs + SILENCE_MS) continue;
    await removeMember(settings, votersOf(members, id), id);
    silentSince.delete(id);
    says.now(`removed member ${formatId(id)}: ${name} was scaled down, and is gone`);
  }
}

/** A member without a majority serves no clients, but tells other members whom it knows. */
async function sayWhoIsMissing({ settings, says, clock, source }: Pod, trouble: string): Promise<void> {
  const voters = await votersOnPeerPort(settings, clock).catch(() => undefined);
  // Without an answer the engine is still reading its data, and its own lines say so.
  if (voters === undefined) return says.waiting(`the engine does not serve yet: ${trouble}`);
  const needed = Math.floor(voters.length / 2) + 1;
  const others = voters.filter((name) => name !== settings.name);
  const pods = await askPods(settings, others, clock);
  const absent = others.filter((name) => !pods.has(name));
  const empty = others.filter((name) => pods.get(name)?.hasData === false);
  const wanted = await wantedNow(source);
  const isTooFew = typeof wanted !== "string" && wanted.isLive && wanted.replicas > 0 && wanted.replicas < needed;
  if (absent.length + empty.length === 0)
    return says.waiting(`the engine does not serve, though all members run: ${trouble}`);
  const parts = [
    `no majority: ${needed} of ${voters.length} members are needed`,
    ...(absent.length > 0 ? [`${list(absent)} does not answer`] : []),
    ...(empty.length > 0 ? [`the volume of ${list(empty)} is empty`] : []),
    ...(isTooFew
      ? [`the set is to have ${wanted.replicas}: scale it to ${needed} at least, and down again later`]
      : []),
  ];
  says.waiting(parts.join("; "), isTooFew || voters.length - empty.length < needed);
}

/** Names, as the data of this member has them. */
async function votersOnPeerPort(settings: Pod["settings"], clock: Pod["clock"]): Promise<readonly string[]> {
  const members = parsed(await fetchPeer(settings, `${peerUrlOf(settings, settings.name)}/members`, clock));
  if (!Array.isArray(members)) throw new Error("no list of members");
  return members.flatMap((member: unknown) => {
    const name = textIn(member, "name");
    return name === undefined || (isObject(member) && member["isLearner"] === true) ? [] : [name];
  });
}
