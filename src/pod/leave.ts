/**
 * The end of a pod that is scaled down: its member leaves the cluster. Everything else that ends a pod (a restart, a new version,
 * a drained node, a set that is deleted) is not known to be for good, and leaves it a member.
 */
import { messageOf } from "../base/errors.ts";
import { formatId } from "../membership/member.ts";
import { Backoff, sleep } from "./backoff.ts";
import type { MemberFacts } from "./decide.ts";
import { lookAtCluster, moveLeader, removeMember, viewOf, votersOf } from "./members.ts";
import { peerUrlOf } from "./names.ts";
import { othersOf, type Pod, wantedNow } from "./pod.ts";
import { isScaledDown, type Wanted } from "./wanted.ts";

/** Whether this pod ends for good; says why it is taken for a restart otherwise. */
export async function mustLeave({ settings, source, says }: Pod): Promise<Wanted | undefined> {
  const wanted = await wantedNow(source);
  if (typeof wanted === "string") says.now(`ends and stays a member: ${wanted}`);
  else if (isScaledDown(wanted, settings.ordinal)) return wanted;
  else if (wanted.isDeleted) says.now(`ends and stays a member: ${source.name} is deleted or is not there`);
  else if (!wanted.isLive) says.now(`ends and stays a member: ${source.name} does not follow changes`);
  else says.now(`ends and stays a member: there are to be ${wanted.replicas} pods`);
  return undefined;
}

/** Resolves with whether it is no member any more, after `leaveTimeoutMs` at the latest. */
export async function leave(pod: Pod, wanted: Wanted): Promise<boolean> {
  const { settings, says, clock } = pod;
  const deadline = new AbortController();
  void sleep(clock, settings.leaveTimeoutMs, deadline.signal).then(() => deadline.abort());
  const backoff = new Backoff(clock);
  says.now(`leaves the cluster: there are to be ${wanted.replicas} pods`);
  try {
    while (!deadline.signal.aborted) {
      const cluster = await lookAtCluster(settings, othersOf(settings, wanted));
      if (cluster.kind === "answers") {
        const mine = ownMember(pod, cluster.members);
        if (mine === undefined) {
          says.now("it is no member any more");
          return true;
        }
        try {
          await giveLeadershipAway(pod, wanted, mine, cluster.members);
          await removeMember(settings, votersOf(cluster.members, mine.id), mine.id);
          says.now(`removed member ${formatId(mine.id)}`);
          continue;
        } catch (error) {
          says.waiting(`it may not leave yet: ${messageOf(error)}`);
        }
      } else says.waiting("it cannot leave: the pods that stay have no majority, or do not answer");
      await backoff.pause(deadline.signal);
    }
    says.now("did not leave in time; the leader removes its member later");
    return false;
  } finally {
    deadline.abort();
  }
}

const ownMember = ({ settings }: Pod, members: readonly MemberFacts[]): MemberFacts | undefined =>
  members.find(({ name, peerUrls }) => name === settings.name || peerUrls.includes(peerUrlOf(settings, settings.name)));

/** Without it, the others would need an election. */
async function giveLeadershipAway(
  { settings, says }: Pod,
  wanted: Wanted,
  mine: MemberFacts,
  members: readonly MemberFacts[],
): Promise<void> {
  const view = await viewOf(settings, settings.name).catch(() => undefined);
  if (view?.leader !== mine.id) return;
  const staying = new Set(othersOf(settings, wanted));
  for (const { id, name } of votersOf(members, mine.id).filter((member) => staying.has(member.name))) {
    try {
      await moveLeader(settings, settings.name, id);
      says.now(`${name} leads now`);
      return;
    } catch (error) {
      says.waiting(`${name} does not take the leadership over: ${messageOf(error)}`);
    }
  }
}
