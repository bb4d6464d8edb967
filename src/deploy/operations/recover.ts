/**
 * A cluster that has lost its majority for good comes back from the best member that is left: it becomes a cluster of one,
 * with what it has, and the others that are left join it empty. Nothing is deleted: every old directory is set aside first.
 */
import { Cluster } from "../cluster/access.ts";
import { DeployError, EXIT } from "../common/context.ts";
import type { Look } from "../common/look.ts";
import { factsOf } from "../hosts/facts.ts";
import { makeChanges, planFor } from "../hosts/plan.ts";
import { startMember, stopMember, untilHealthy } from "../hosts/service.ts";
import { runOn, word } from "../hosts/shell.ts";
import { withoutMember } from "../inventory/edit.ts";
import type { Inventory, Member } from "../inventory/inventory.ts";
import { hostFiles } from "../render/host.ts";
import type { Operation, Step } from "../steps/run.ts";
import { confirmed } from "./confirm.ts";
import { type Change, inventoryOf, inventoryStep, type Tools, textOf } from "./tools.ts";
import { asideStep, factsIfReachable, joinSteps, memberNamed, stampOf, writeStep } from "./turn.ts";

const ANSWER_TRIES = 100;

interface Left {
  readonly name: string;
  readonly term: number;
  readonly applied: number;
  readonly revision: number;
}

interface Recovery extends Change {
  readonly stamp: string;
  /** The member from which the cluster comes back. */
  readonly best: string;
  /** Those that are left, furthest first. */
  readonly left: readonly Left[];
  /** Hosts that cannot be reached, or without data. */
  readonly lost: readonly string[];
}

/** `from` chooses the member in place of the one that is furthest. */
export function recover(tools: Tools, answer: string | undefined, from: string | undefined): Operation<Recovery> {
  const { context } = tools;
  return {
    name: "recover",
    subject: from ?? "",
    decide: () => decide(tools, from),
    confirm: async (given) => {
      context.err(announcement(given));
      await confirmed(context, inventoryOf(tools, given.before).cluster, answer);
    },
    steps: (given) => {
      const { before, after, best, left, stamp } = given;
      const [old, inventory] = [inventoryOf(tools, before), inventoryOf(tools, after)];
      const chosen = memberNamed(inventory, best);
      const others = left.filter(({ name }) => name !== best).map(({ name }) => memberNamed(inventory, name));
      return [
        ...left.map(({ name }) => ({
          text: `${name}: stop it`,
          run: () => stopMember(context, old, memberNamed(old, name)),
        })),
        ...others.map((member) => asideStep(context, old, member, stamp)),
        copyStep(tools, old, chosen, stamp),
        ...inventoryStep(tools, given, `without ${given.lost.join(", ")}`),
        ...aloneSteps(tools, inventory, chosen),
        ...others.flatMap((member) => joinSteps(context, inventory, member)),
        ...inventory.members.map((member) => writeStep(context, inventory, member)),
      ];
    },
  };
}

async function decide(tools: Tools, from: string | undefined): Promise<Recovery> {
  const { context } = tools;
  const before = textOf(tools);
  const inventory = inventoryOf(tools, before);
  const cluster = new Cluster(context, inventory);
  const { members } = inventory;
  const looks = await cluster.looks();
  if (looks.some(({ tookMs, status }) => tookMs !== undefined && status?.isLearner === false))
    throw new DeployError(
      "the cluster has its majority: members that are lost are replaced (kvorum cluster replace), and nothing is lost by that",
      EXIT.problems,
    );
  const facts = await Promise.all(members.map((member) => factsIfReachable(context, inventory, member)));
  const left: Left[] = [];
  for (const [i, member] of members.entries()) {
    const fact = facts[i];
    if (fact?.hasData !== true) continue;
    // A member without a majority says how far it is; one that does not run must be started for that.
    if (!fact.isActive) await startMember(context, inventory, member);
    left.push(leftOf(member, await untilItSays(cluster, member, looks[i]!)));
  }
  const voters = Math.floor(members.length / 2) + 1;
  if (left.length === 0)
    throw new DeployError(
      "no host that can be reached has data: what remains is a snapshot (docs/recovery.md)",
      EXIT.problems,
    );
  if (left.length >= voters)
    throw new DeployError(
      `${left.map(({ name }) => name).join(", ")} are left, which is a majority of ${members.length}: they need time or a network between them, and no recovery. See kvorum cluster status, and the logs on their hosts`,
      EXIT.problems,
    );
  left.sort((a, b) => b.applied - a.applied || b.term - a.term);
  const best = from ?? left[0]!.name;
  if (!left.some(({ name }) => name === best))
    throw new DeployError(`${best} is not among those that are left: ${left.map(({ name }) => name).join(", ")}`);
  const lost = members.filter(({ name }) => !left.some((each) => each.name === name)).map(({ name }) => name);
  return { before, after: lost.reduce(withoutMember, before), stamp: stampOf(context), best, left, lost };
}

async function untilItSays(cluster: Cluster, member: Member, first: Look): Promise<Look> {
  let look = first;
  for (let i = 0; look.status === undefined && i < ANSWER_TRIES; i++) {
    await cluster.pause();
    look = await cluster.look(member);
  }
  if (look.status !== undefined) return look;
  throw new DeployError(
    `${member.name} has data, but does not say how far it is (${look.trouble}): look at its log; when it is damaged, move its data away and repeat`,
  );
}

const leftOf = ({ name }: Member, { status }: Look): Left => ({
  name,
  term: Number(status?.raftTerm ?? 0),
  applied: Number(status?.raftAppliedIndex ?? 0),
  revision: Number(status?.header?.revision ?? 0),
});

function announcement({ best, left, lost }: Recovery): string {
  const chosen = left.find(({ name }) => name === best)!;
  const lines = left.map(
    ({ name, term, applied, revision }) => `  ${name}: revision ${revision}, raft index ${applied}, term ${term}`,
  );
  return `Left are:
${lines.join("\n")}
Lost are: ${lost.join(", ")}
The cluster comes back from ${best}, with everything up to revision ${chosen.revision}. What was written after that
revision had not reached ${best}, and is lost. ${left.length > 1 ? "The others join it again, empty. " : ""}Old data is set aside on the hosts, not deleted.
`;
}

/** Complete or not there: it is what remains when this goes wrong. */
function copyStep({ context }: Tools, { dataDir, walDir }: Inventory, member: Member, stamp: string): Step {
  const copies = [
    [`${dataDir}/member`, `${dataDir}/aside-${stamp}`],
    ...(walDir === undefined ? [] : [[walDir, `${dataDir}/aside-${stamp}-wal`]]),
  ];
  const script = copies
    .map(
      ([from, to]) => `if [ ! -d ${word(to!)} ]; then
  rm -rf ${word(`${to}.new`)}
  mkdir ${word(`${to}.new`)}
  cp -a ${word(from!)} ${word(`${to}.new`)}/
  mv ${word(`${to}.new`)} ${word(to!)}
fi
`,
    )
    .join("");
  return {
    text: `${member.name}: copy its data aside (${dataDir}/aside-${stamp})`,
    run: async () => void (await runOn(context, member.ssh, script)),
  };
}

/** With a setting that must be gone before anybody joins: a later start must not do this again. */
function aloneSteps({ context }: Tools, inventory: Inventory, member: Member): Step[] {
  const cluster = new Cluster(context, inventory);
  return [
    {
      text: `${member.name}: start it as a cluster of its own, with its data`,
      run: async (tell) => {
        const facts = await factsOf(context, inventory, member);
        const alone = { ...facts, files: hostFiles(inventory, member, { isAlone: true }) };
        await makeChanges(context, planFor(inventory, alone), tell);
        await startMember(context, inventory, member);
        await untilHealthy(context, cluster, member);
      },
    },
    writeStep(context, inventory, member, " (its next start is an ordinary one)"),
  ];
}
