/** Operations that change who the members are: `scale`, `replace`, `repair`. A member joins as a learner, and leaves its data aside. */
import { AlarmRequest_AlarmAction, AlarmType, MaintenanceService } from "../../proto/etcdserverpb.ts";
import { Cluster, type ClusterMember, peerUrl } from "../cluster/access.ts";
import { DeployError, EXIT } from "../common/context.ts";
import { makePlans } from "../hosts/apply.ts";
import { type NewMember, withAddress, withMember, withoutMember } from "../inventory/edit.ts";
import { certificateSet, type Inventory, type Member } from "../inventory/inventory.ts";
import { makeSet } from "../pki/set.ts";
import type { Operation, Step } from "../steps/run.ts";
import { type Change, certificatesStep, inventoryOf, inventoryStep, type Tools, textOf } from "./tools.ts";
import {
  factsIfReachable,
  joinSteps,
  type Leaving,
  leaveSteps,
  memberNamed,
  planOf,
  refuseProblems,
  stampOf,
  writeStep,
} from "./turn.ts";

interface Scaling extends Change {
  /** With those who join, and still with those who leave: their hosts are known from there. */
  readonly grown: string;
  readonly joining: readonly string[];
  readonly leaving: readonly ({ readonly name: string } & Leaving)[];
}

interface Replacing extends Change {
  readonly leaving: Leaving;
  /** The old member is healthy and at another address, so the new one comes first. */
  readonly isMove: boolean;
}

/** With neither, the members of the cluster follow the inventory as it was edited: what it has more joins. */
export function scale(tools: Tools, add: readonly NewMember[], remove: readonly string[]): Operation<Scaling> {
  const { context } = tools;
  return {
    name: "scale",
    subject: [...add.map(({ name, address }) => `+${name}=${address}`), ...remove.map((name) => `-${name}`)].join(" "),
    decide: async () => {
      const before = textOf(tools);
      const old = inventoryOf(tools, before);
      const added = add.filter(
        ({ name, address }) => !old.members.some((each) => each.name === name && each.address === address),
      );
      const grown = added.reduce(withMember, before);
      const leavers = remove.map((name) => memberNamed(old, name));
      if (leavers.length >= old.members.length)
        throw new DeployError("no member would be left: to end a cluster use kvorum cluster destroy", EXIT.problems);
      const cluster = new Cluster(context, old);
      const there = await cluster.membersNow();
      const wanted = inventoryOf(tools, grown);
      const joining = wanted.members.filter((member) => idOf(wanted, member, there) === "");
      const extra = there.filter(
        ({ peerUrls }) => !wanted.members.some((member) => peerUrls.includes(peerUrl(wanted, member))),
      );
      if (extra.length > 0)
        throw new DeployError(
          `the cluster has ${extra.map(({ name, peerUrls }) => name || peerUrls.join()).join(", ")} besides the inventory's members. To remove a member put it into the inventory again and use --remove, so that its host is known`,
          EXIT.problems,
        );
      const staying = old.members.filter(
        (member) => !leavers.includes(member) && !joining.some(({ name }) => name === member.name),
      );
      await refuseUnlessHealthyNow(cluster, staying);
      await refuseUnapplied(tools, wanted, staying);
      await refuseProblemsOf(tools, wanted, joining);
      const after = remove.reduce(withoutMember, grown);
      const leaving = await Promise.all(
        leavers.map(async (member) => ({
          name: member.name,
          id: idOf(old, member, there),
          stamp: stampOf(context),
          isReachable: (await factsIfReachable(context, old, member)) !== undefined,
        })),
      );
      if (joining.length === 0 && leaving.length === 0)
        throw new DeployError("the cluster has the inventory's members: nothing to do", EXIT.healthy);
      return { before, grown, after, joining: joining.map(({ name }) => name), leaving };
    },
    steps: ({ before, grown, after, joining, leaving }) => {
      const inventory = inventoryOf(tools, grown);
      return [
        ...inventoryStep(tools, { before, after: grown }, `${joining.join(", ")} joins`, after),
        certificatesStep(tools, inventory),
        ...joining.flatMap((name) => joinSteps(context, inventory, memberNamed(inventory, name))),
        ...leaving.flatMap((each) => leaveSteps(context, inventory, memberNamed(inventory, each.name), each)),
        ...inventoryStep(tools, { before: grown, after }, `${leaving.map(({ name }) => name).join(", ")} has left`),
        ...followUp(tools, inventoryOf(tools, after)),
      ];
    },
  };
}

/** Where the host is lost, another one may take its place; one that is well moves without being missed. */
export function replace(tools: Tools, name: string, to: Omit<NewMember, "name">): Operation<Replacing> {
  return {
    name: "replace",
    subject: `${name}=${to.address}`,
    decide: async () => {
      const before = textOf(tools);
      const old = inventoryOf(tools, before);
      const member = memberNamed(old, name);
      const isSame = member.address === to.address;
      const after = isSame ? before : withAddress(before, { ...to, name });
      return decideReplacing(tools, { before, after }, name, !isSame);
    },
    steps: (given) => replacing(tools, name, given),
  };
}

/** The member's data is damaged, and its host is well: it gets its data from the others again. */
export function repair(tools: Tools, name: string): Operation<Replacing> {
  const { context } = tools;
  return {
    name: "repair",
    subject: name,
    decide: async () => {
      const before = textOf(tools);
      const inventory = inventoryOf(tools, before);
      const member = memberNamed(inventory, name);
      const { tookMs, status } = await new Cluster(context, inventory).look(member);
      const isCorrupt = status?.errors.some((error) => /CORRUPT/.test(error)) ?? false;
      if (tookMs !== undefined && !isCorrupt)
        throw new DeployError(
          `${name} is healthy: there is nothing to repair. To give it new data nevertheless: kvorum cluster replace ${name}`,
          EXIT.problems,
        );
      return decideReplacing(tools, { before, after: before }, name, false);
    },
    steps: (given) => [
      ...replacing(tools, name, given),
      {
        text: "clear the alarms of corruption that it had raised",
        run: () =>
          new Cluster(context, inventoryOf(tools, given.after)).ask((client) =>
            client.unary(
              MaintenanceService.Alarm,
              {
                action: AlarmRequest_AlarmAction.DEACTIVATE,
                memberId: BigInt(`0x${given.leaving.id || "0"}`),
                alarm: AlarmType.CORRUPT,
              },
              { timeoutMs: ALARM_MS },
            ),
          ),
      },
    ],
  };
}

const ALARM_MS = 10_000;

async function decideReplacing(tools: Tools, change: Change, name: string, isElsewhere: boolean): Promise<Replacing> {
  const { context } = tools;
  const old = inventoryOf(tools, change.before);
  const member = memberNamed(old, name);
  const cluster = new Cluster(context, old);
  const there = await cluster.membersNow();
  const others = old.members.filter((each) => each !== member);
  if (others.length === 0)
    throw new DeployError(
      `${member.name} is the only member: its data is nowhere else. Move it by adding the new one (kvorum cluster scale --add), or bring back a snapshot`,
      EXIT.problems,
    );
  await refuseUnlessHealthyNow(cluster, others);
  await refuseUnapplied(tools, inventoryOf(tools, change.after), others);
  const wanted = inventoryOf(tools, change.after);
  if (isElsewhere) await refuseProblemsOf(tools, wanted, [memberNamed(wanted, member.name)]);
  const isHealthy = (await cluster.look(member)).tookMs !== undefined;
  const isReachable = (await factsIfReachable(context, old, member)) !== undefined;
  if (!isElsewhere && !isReachable)
    throw new DeployError(
      `the host of ${member.name}, ${member.ssh}, cannot be reached: give the new one with --address (and --ssh)`,
      EXIT.problems,
    );
  return {
    ...change,
    leaving: { id: idOf(old, member, there), stamp: stampOf(context), isReachable },
    isMove: isElsewhere && isHealthy,
  };
}

function replacing(tools: Tools, name: string, { before, after, leaving, isMove }: Replacing): Step[] {
  const { context } = tools;
  const [old, wanted] = [inventoryOf(tools, before), inventoryOf(tools, after)];
  const leave = leaveSteps(context, old, memberNamed(old, name), leaving);
  const join = joinSteps(context, wanted, memberNamed(wanted, name));
  const change = inventoryStep(tools, { before, after }, `${name} is at ${memberNamed(wanted, name).address}`);
  return [
    ...(isMove ? [] : leave),
    ...change,
    certificatesStep(tools, wanted),
    ...join,
    ...(isMove ? leave : []),
    ...followUp(tools, wanted),
  ];
}

/** The files of all say who the members are. They are read at a start without data only, so nothing is restarted. */
function followUp(tools: Tools, inventory: Inventory): Step[] {
  const { context } = tools;
  return [
    ...inventory.members.map((member) => writeStep(context, inventory, member)),
    {
      text: "see that all members are healthy",
      run: async () => {
        const cluster = new Cluster(context, inventory);
        await cluster.until("all members are healthy", async () =>
          (await cluster.looks()).every(({ tookMs }) => tookMs !== undefined),
        );
      },
    },
  ];
}

/** In hexadecimal; empty when the cluster does not know it. */
function idOf(inventory: Inventory, member: Member, there: readonly ClusterMember[]): string {
  const url = peerUrl(inventory, member);
  return there.find(({ peerUrls }) => peerUrls.includes(url))?.id.toString(16) ?? "";
}

async function refuseUnlessHealthyNow(cluster: Cluster, members: readonly Member[]): Promise<void> {
  const looks = await cluster.looks(members);
  const ill = members.filter((_, i) => looks[i]!.tookMs === undefined);
  if (ill.length > 0)
    throw new DeployError(
      `${ill.map(({ name }) => name).join(", ")} is not healthy, and a change of the members now could cost the majority: repair or replace it first (kvorum cluster status)`,
      EXIT.problems,
    );
}

/** What else was changed in the inventory is not carried out by the way. */
async function refuseUnapplied(tools: Tools, inventory: Inventory, members: readonly Member[]): Promise<void> {
  const plans = await Promise.all(members.map((member) => planOf(tools.context, inventory, member)));
  const waiting = plans.filter(({ then }) => then !== "nothing").map(({ facts }) => facts.member.name);
  if (waiting.length > 0)
    throw new DeployError(
      `${waiting.join(", ")} differs from the inventory in what needs a restart: kvorum cluster apply first`,
      EXIT.problems,
    );
}

async function refuseProblemsOf(tools: Tools, inventory: Inventory, members: readonly Member[]): Promise<void> {
  if (members.length === 0) return;
  await makeSet(certificateSet(inventory), { nowMs: tools.context.clock.wallMs(), random: tools.context.random });
  refuseProblems(await makePlans(tools.context, inventory, members));
}
