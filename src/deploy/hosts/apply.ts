/**
 * Makes the hosts what the inventory says: all members that do not run are prepared and started together, then those that
 * must see a change get it one by one, each only while all others are healthy, and the leader last. Each step is taken only
 * where something differs, so that a run that was interrupted is simply repeated.
 */
import { messageOf } from "../../base/errors.ts";
import { Cluster, peerUrl } from "../cluster/access.ts";
import { type Context, DeployError } from "../common/context.ts";
import type { Look } from "../common/look.ts";
import type { Inventory, Member } from "../inventory/inventory.ts";
import { factsOf } from "./facts.ts";
import { type HostPlan, makeChanges, planFor } from "./plan.ts";
import { probe } from "./probes.ts";
import { giveUpLead, refuseUnlessHealthy, restartMember, startMember, untilHealthy } from "./service.ts";

/** How long members may not answer before that counts. */
const PATIENCE_MS = 10_000;

export async function makePlans(
  context: Context,
  inventory: Inventory,
  members: readonly Member[] = inventory.members,
): Promise<HostPlan[]> {
  const outcomes = await Promise.allSettled(
    members.map(async (member) => {
      const facts = await factsOf(context, inventory, member);
      return planFor(inventory, facts, facts.isActive ? undefined : await probe(context, inventory, member));
    }),
  );
  const failed = outcomes.flatMap((outcome) => (outcome.status === "rejected" ? [messageOf(outcome.reason)] : []));
  if (failed.length > 0)
    throw new DeployError(
      `not every host can be reached:\n${failed.map((text) => `  ${text}\n`).join("")}Nothing was changed.`,
    );
  return outcomes.flatMap((outcome) => (outcome.status === "fulfilled" ? [outcome.value] : []));
}

/**
 * Why the cluster that answers is not the one of the inventory; undefined when it is, or when none answers. A cluster
 * that runs is given time to answer: its members must be known before anything is changed.
 */
export async function membershipProblem(
  context: Context,
  inventory: Inventory,
  plans: readonly HostPlan[],
): Promise<string | undefined> {
  const { clock } = context;
  const cluster = new Cluster(context, inventory);
  const isRunning = plans.some(({ facts }) => facts.isActive && facts.hasData);
  const endMs = clock.nowMs() + (isRunning ? PATIENCE_MS : 0);
  let there = await cluster.members();
  while (there === undefined && clock.nowMs() < endMs) there = await cluster.members();
  if (there === undefined) {
    if (isRunning)
      context.err("warning: members run, but none says who the members are; they are taken to be the inventory's\n");
    return undefined;
  }
  const urls = there.flatMap(({ peerUrls }) => peerUrls);
  const wanted = inventory.members.map((member) => peerUrl(inventory, member));
  const extra = wanted.filter((url) => !urls.includes(url));
  const gone = urls.filter((url) => !wanted.includes(url));
  if (extra.length === 0 && gone.length === 0) return undefined;
  const words = [
    ...(extra.length > 0 ? [`it does not have ${extra.join(", ")}`] : []),
    ...(gone.length > 0 ? [`it has ${gone.join(", ")} besides`] : []),
  ];
  return `the cluster that runs has other members than the inventory: ${words.join(", and ")}. "kvorum cluster scale" and "replace" change members and the inventory together`;
}

/** Resolves with the last look at every member. Throws DeployError. */
export async function applyPlans(context: Context, inventory: Inventory, plans: readonly HostPlan[]): Promise<Look[]> {
  const cluster = new Cluster(context, inventory);
  const tell = (text: string) => context.out(text);
  // A member that runs and must be restarted gets its changes at its turn: until then its next start is the old one.
  const together = plans.filter(({ then }) => then !== "restart");
  await Promise.all(together.map((plan) => makeChanges(context, plan, tell)));
  const starting = plans.filter(({ then }) => then === "start").map(({ facts }) => facts.member);
  await Promise.all(
    starting.map((member) => {
      tell(`${member.name}: start\n`);
      return startMember(context, inventory, member);
    }),
  );
  if (starting.length > 0) await Promise.all(inventory.members.map((member) => untilHealthy(context, cluster, member)));
  const turns = plans.filter(({ then }) => then === "restart");
  const leader = turns.length > 0 ? await cluster.leader() : undefined;
  const isLeader = ({ facts }: HostPlan) => facts.member === leader;
  for (const plan of [...turns.filter((each) => !isLeader(each)), ...turns.filter(isLeader)]) {
    const { member } = plan.facts;
    await refuseUnlessHealthy(context, cluster, member, "restarted");
    await makeChanges(context, plan, tell);
    await giveUpLead(cluster, member, tell);
    tell(`${member.name}: restart\n`);
    await restartMember(context, inventory, member);
    await untilHealthy(context, cluster, member);
  }
  await forgetFounding(
    context,
    inventory,
    starting.map(({ name }) => name),
  );
  return cluster.looks();
}

/**
 * Members that have data know their cluster. Should one lose it, its files must not found another cluster in its name: so
 * they say "existing" from now on.
 */
async function forgetFounding(context: Context, inventory: Inventory, names: readonly string[]): Promise<void> {
  const members = inventory.members.filter(({ name }) => names.includes(name));
  await Promise.all(
    members.map(async (member) =>
      makeChanges(context, planFor(inventory, await factsOf(context, inventory, member)), () => {}),
    ),
  );
}
