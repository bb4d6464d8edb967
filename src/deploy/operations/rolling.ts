/**
 * Operations that change how members run, one after another: `restart`, `set`, `upgrade`, `downgrade`, `switch-engine`. All
 * are a change of the inventory, if any, and then each member's turn.
 */
import { MaintenanceService } from "../../proto/etcdserverpb.ts";
import { Cluster } from "../cluster/access.ts";
import { DeployError } from "../common/context.ts";
import { makePlans, membershipProblem } from "../hosts/apply.ts";
import { withField } from "../inventory/edit.ts";
import type { Inventory } from "../inventory/inventory.ts";
import type { Operation, Step } from "../steps/run.ts";
import { type Change, inventoryOf, inventoryStep, type Tools, textOf } from "./tools.ts";
import { markStep, memberNamed, orderOfTurns, refuseProblems, restartStep, writeStep } from "./turn.ts";
import { isAllowed, type Move, minorOf, versionOfRelease } from "./versions.ts";

export interface Rolling extends Change {
  readonly order: readonly string[];
}

interface Upgrade extends Rolling {
  /** The version that the cluster has before and after. */
  readonly from: string;
  readonly to: string;
}

/** Every member, or those named. */
export function restart(tools: Tools, names: readonly string[]): Operation<Rolling> {
  return {
    name: "restart",
    subject: names.join(" "),
    decide: async () => {
      const text = textOf(tools);
      const inventory = inventoryOf(tools, text);
      for (const name of names) memberNamed(inventory, name);
      await refuseUnlessReady(tools, inventory);
      const order = await orderOfTurns(new Cluster(tools.context, inventory));
      return { before: text, after: text, order: order.filter((name) => names.length === 0 || names.includes(name)) };
    },
    steps: ({ after, order }) => {
      const inventory = inventoryOf(tools, after);
      return order.flatMap((name) => {
        const member = memberNamed(inventory, name);
        return [markStep(tools.context, inventory, member), restartStep(tools.context, inventory, member)];
      });
    },
  };
}

/** `NAME=VALUE` of etcd's settings below `tuning`; without a value the default again. */
export function set(tools: Tools, assignments: readonly string[]): Operation<Rolling> {
  return {
    name: "set",
    subject: assignments.join(" "),
    decide: async () => {
      const before = textOf(tools);
      const after = assignments.reduce((text, assignment) => {
        const [, name, value] = /^([a-z-]+)=(.*)$/.exec(assignment) ?? [];
        if (name === undefined || value === undefined)
          throw new DeployError(`${assignment} is not NAME=VALUE, such as election-timeout=2000`);
        return withField(
          text,
          ["tuning", name],
          value === "" ? undefined : /^\d+$/.test(value) && !/retention/.test(name) ? Number(value) : value,
        );
      }, before);
      return decideRolling(tools, before, after);
    },
    steps: (given) => [
      ...inventoryStep(tools, given, assignments.join(", ")),
      ...turns(tools, inventoryOf(tools, given.after), given.order),
    ],
  };
}

export interface Target {
  readonly operation: Move;
  /** Path of the program or archive, as the inventory has it. */
  readonly copy: string;
  /** Its version, where the file does not tell. */
  readonly version: string | undefined;
}

/** Members run another program from now on, of another version or of the other engine. */
export function changeProgram(tools: Tools, target: Target): Operation<Upgrade> {
  const { operation, copy, version } = target;
  return {
    name: operation,
    subject: copy,
    decide: async () => {
      const before = textOf(tools);
      const after = withField(before, ["copy"], copy);
      const inventory = inventoryOf(tools, after);
      const to = await versionOfRelease(tools.context, inventory, version);
      const looks = await new Cluster(tools.context, inventory).looks();
      const versions = looks.flatMap(({ status }) => status?.version ?? []);
      const problem = isAllowed(operation, versions, to);
      if (problem !== undefined) throw new DeployError(problem, 2);
      const rolling = await decideRolling(tools, before, after);
      return { ...rolling, from: versions[0] ?? to, to };
    },
    steps: (given) => {
      const inventory = inventoryOf(tools, given.after);
      const { from, to } = given;
      return [
        ...inventoryStep(tools, given, `copy is ${copy}`),
        ...(minorOf(to) < minorOf(from) ? [allowDowngradeStep(tools, inventory, to)] : []),
        ...turns(tools, inventory, given.order),
        {
          text: `see that every member runs ${to}`,
          run: async () => {
            const cluster = new Cluster(tools.context, inventory);
            await cluster.until(`every member runs ${to}`, async () =>
              (await cluster.looks()).every(({ status }) => status?.version === to),
            );
          },
        },
      ];
    },
  };
}

/** Members of an older version join only a cluster that was told so. Source: etcd's downgrade guide. */
function allowDowngradeStep(tools: Tools, inventory: Inventory, to: string): Step {
  const target = `${to.split(".").slice(0, 2).join(".")}.0`;
  return {
    text: `tell the cluster that its version will be ${target}`,
    run: () =>
      new Cluster(tools.context, inventory).ask(async (client) => {
        await client.unary(MaintenanceService.Downgrade, { action: 0, version: target }, { timeoutMs: 10_000 });
        await client.unary(MaintenanceService.Downgrade, { action: 1, version: target }, { timeoutMs: 10_000 });
      }, /downgrade job.*in progress|already enabled|invalid downgrade target/),
  };
}

export async function decideRolling(tools: Tools, before: string, after: string): Promise<Rolling> {
  const inventory = inventoryOf(tools, after);
  await refuseUnlessReady(tools, inventory);
  return { before, after, order: await orderOfTurns(new Cluster(tools.context, inventory)) };
}

/** The hosts are what they should be, and all members are there. */
async function refuseUnlessReady(tools: Tools, inventory: Inventory): Promise<void> {
  const { context } = tools;
  const plans = await makePlans(context, inventory);
  refuseProblems(plans, [(await membershipProblem(context, inventory, plans)) ?? []].flat());
  const looks = await new Cluster(context, inventory).looks();
  const ill = inventory.members.filter((_, i) => looks[i]!.tookMs === undefined);
  if (ill.length > 0)
    throw new DeployError(
      `${ill.map(({ name }) => name).join(", ")} is not healthy, and this would take another member away for a moment: repair that first (kvorum cluster status, repair, replace)`,
      2,
    );
}

function turns({ context }: Tools, inventory: Inventory, order: readonly string[]): Step[] {
  return order.flatMap((name) => {
    const member = memberNamed(inventory, name);
    return [writeStep(context, inventory, member), restartStep(context, inventory, member)];
  });
}
