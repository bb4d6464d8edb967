/**
 * What operations are made of: a member's turn (its files, then its restart, the lead given up before), a member that joins,
 * and one that leaves. Each as steps.
 */
import { Cluster, type ClusterMember, peerUrl } from "../cluster/access.ts";
import { type Context, DeployError } from "../common/context.ts";
import { type Beginning, type Facts, factsOf, restartMark } from "../hosts/facts.ts";
import { type HostPlan, makeChanges, planFor } from "../hosts/plan.ts";
import {
  giveUpLead,
  refuseUnlessHealthy,
  restartMember,
  retireMember,
  setDataAside,
  startMember,
  untilHealthy,
} from "../hosts/service.ts";
import { runOn, word } from "../hosts/shell.ts";
import type { Inventory, Member } from "../inventory/inventory.ts";
import type { Step } from "../steps/run.ts";

export async function planOf(
  context: Context,
  inventory: Inventory,
  member: Member,
  beginning?: Beginning,
): Promise<HostPlan> {
  return planFor(inventory, await factsOf(context, inventory, member, beginning));
}

/** Its files are as the inventory says. What it reads at a start only waits for its restart. */
export function writeStep(context: Context, inventory: Inventory, member: Member, phase = ""): Step {
  return {
    text: `${member.name}: write what differs from the inventory${phase}`,
    isDone: async () => (await planOf(context, inventory, member)).changes.length === 0,
    run: async (tell) => {
      const plan = await planOf(context, inventory, member);
      refuseProblems([plan]);
      await makeChanges(context, plan, tell);
    },
  };
}

/** Only when a change waits for it. */
export function restartStep(context: Context, inventory: Inventory, member: Member, phase = ""): Step {
  const cluster = new Cluster(context, inventory);
  return {
    text: `${member.name}: restart it where a change needs that; the lead moves to another member before${phase}`,
    isDone: async () => {
      const facts = await factsOf(context, inventory, member);
      return facts.isActive && !facts.needsRestart && (await cluster.look(member)).tookMs !== undefined;
    },
    allow: () => refuseUnlessHealthy(context, cluster, member, "restarted"),
    run: async (tell) => {
      const facts = await factsOf(context, inventory, member);
      if (facts.isActive && facts.needsRestart) {
        await giveUpLead(cluster, member, tell);
        tell(`${member.name}: restart\n`);
        await restartMember(context, inventory, member);
      } else if (!facts.isActive) {
        tell(`${member.name}: start\n`);
        await startMember(context, inventory, member);
      }
      await untilHealthy(context, cluster, member);
    },
  };
}

/** Notes on the host that the member must be restarted, which the next step does. */
export function markStep(context: Context, inventory: Inventory, member: Member, phase = ""): Step {
  return {
    text: `${member.name}: note that it must be restarted${phase}`,
    run: async () => void (await runOn(context, member.ssh, `: > ${word(restartMark(inventory))}\n`)),
  };
}

/** Followers first, in the inventory's order; the leader last, so that the lead moves once. */
export async function orderOfTurns(cluster: Cluster): Promise<string[]> {
  const leader = await cluster.leader();
  const { members } = cluster.inventory;
  return [...members.filter((member) => member !== leader), ...(leader === undefined ? [] : [leader])].map(
    ({ name }) => name,
  );
}

export const memberNamed = ({ members }: Inventory, name: string): Member => {
  const found = members.find((member) => member.name === name);
  if (found !== undefined) return found;
  throw new DeployError(`the inventory has no member ${name}; it has ${members.map((each) => each.name).join(", ")}`);
};

/** As a learner, which does not vote and so costs nothing; as a voter when it has caught up. */
export function joinSteps(context: Context, inventory: Inventory, member: Member): Step[] {
  const cluster = new Cluster(context, inventory);
  const { name } = member;
  const url = peerUrl(inventory, member);
  const isMember = async () => (await cluster.find(member)) !== undefined;
  return [
    {
      text: `${name}: add it to the cluster as a learner`,
      isDone: isMember,
      allow: () => refuseIfUsed(context, inventory, member),
      run: () => cluster.addLearner(url),
    },
    {
      text: `${name}: prepare its host`,
      isDone: async () => {
        const plan = await planOf(context, inventory, member, await joining(cluster, member));
        return plan.changes.length === 0;
      },
      run: async (tell) => {
        const plan = await planOf(context, inventory, member, await joining(cluster, member));
        refuseProblems([plan]);
        await makeChanges(context, plan, tell);
      },
    },
    {
      text: `${name}: start it`,
      isDone: async () => {
        const { isActive } = await factsOf(context, inventory, member);
        return isActive && (await cluster.look(member)).tookMs !== undefined;
      },
      run: async () => {
        await startMember(context, inventory, member);
        await untilHealthy(context, cluster, member);
      },
    },
    {
      text: `${name}: give it a vote when it has caught up`,
      isDone: async () => (await cluster.find(member))?.isLearner === false,
      run: async () => {
        const found = await cluster.find(member);
        if (found === undefined) throw new DeployError(`${name} has been removed from the cluster meanwhile`);
        await cluster.promote(found.id);
        await untilHealthy(context, cluster, member);
      },
    },
  ];
}

/** Data on the host of a member that is to join would be taken for its own. */
async function refuseIfUsed(context: Context, inventory: Inventory, member: Member): Promise<void> {
  const { hasData, isActive } = await factsOf(context, inventory, member);
  if (!hasData && !isActive) return;
  throw new DeployError(
    `${member.name} is not a member, but its host ${isActive ? "runs one" : `has data of one in ${inventory.dataDir}`}: stop it and move the data away, when nobody needs it any more`,
  );
}

/** `initial-cluster` as a joining member must have it: exactly the members there are. Only its own name counts. */
async function joining(cluster: Cluster, member: Member): Promise<Beginning> {
  const own = peerUrl(cluster.inventory, member);
  const nameOf = ({ id, name, peerUrls }: ClusterMember) =>
    peerUrls.includes(own) ? member.name : name === "" || name === member.name ? id.toString(16) : name;
  const pairs = (await cluster.membersNow()).flatMap((each) => each.peerUrls.map((url) => `${nameOf(each)}=${url}`));
  return { joining: pairs.join(",") };
}

export interface Leaving {
  /** In hexadecimal; empty when the cluster does not know it. */
  readonly id: string;
  readonly stamp: string;
  /** Its host is there. */
  readonly isReachable: boolean;
}

/** `inventory` has it still. */
export function leaveSteps(context: Context, inventory: Inventory, member: Member, leaving: Leaving): Step[] {
  const cluster = new Cluster(context, inventory);
  const { name } = member;
  const id = BigInt(`0x${leaving.id || "0"}`);
  const isMember = async () => (await cluster.membersNow()).some((each) => each.id === id);
  const steps: Step[] = [
    {
      text: `${name}: move the lead to another member, if it leads`,
      isDone: async () => (await cluster.leader()) !== member,
      run: (tell) => giveUpLead(cluster, member, tell),
    },
    {
      text: `${name}: remove it from the cluster`,
      isDone: async () => !(await isMember()),
      allow: async () => {
        const there = await cluster.membersNow();
        const left = inventory.members.filter(
          (each) => !there.some(({ peerUrls }) => peerUrls.includes(peerUrl(inventory, each))),
        );
        await refuseUnlessHealthy(context, cluster, member, "removed", left);
      },
      run: () => cluster.remove(id),
    },
  ];
  return leaving.isReachable ? [...steps, asideStep(context, inventory, member, leaving.stamp)] : steps;
}

/** Its host keeps the data, aside. */
export function asideStep(context: Context, inventory: Inventory, member: Member, stamp: string): Step {
  return {
    text: `${member.name}: stop it on its host, and set its data aside (${inventory.dataDir}/aside-${stamp})`,
    isDone: async () => {
      const { isActive, hasData } = await factsOf(context, inventory, member);
      return !isActive && !hasData;
    },
    run: async () => {
      await retireMember(context, inventory, member);
      await setDataAside(context, inventory, member, stamp);
    },
  };
}

export function refuseProblems(plans: readonly HostPlan[], more: readonly string[] = []): void {
  const found = plans.flatMap(({ facts, problems }) => problems.map((problem) => `${facts.member.name}: ${problem}`));
  found.push(...more);
  if (found.length > 0)
    throw new DeployError(
      `this cannot be done:\n${found.map((text) => `  ${text}\n`).join("")}Nothing was changed.`,
      2,
    );
}

/** Undefined when its host cannot be reached. */
export async function factsIfReachable(
  context: Context,
  inventory: Inventory,
  member: Member,
): Promise<Facts | undefined> {
  try {
    return await factsOf(context, inventory, member);
  } catch (error) {
    if (error instanceof DeployError && /ssh failed/.test(error.message)) return undefined;
    throw error;
  }
}

/** A time for names of files, such as 20261201-041700. */
export const stampOf = ({ clock }: Context): string =>
  new Date(clock.wallMs()).toISOString().replaceAll(/[-:]/g, "").replace("T", "-").slice(0, 15);
