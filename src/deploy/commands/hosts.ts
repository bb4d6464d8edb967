/** `kvorum cluster plan`, `apply`, `status` and `health`: the commands that visit the hosts and the members. */
import { resolve } from "node:path";
import { Cluster } from "../cluster/access.ts";
import { type Deed, usersToDo } from "../cluster/users.ts";
import { type Context, type DeployCommand, DeployError, EXIT } from "../common/context.ts";
import { FORMAT, INVENTORY_FILE, isJson } from "../common/flags.ts";
import { lockBeside } from "../common/lock.ts";
import type { Look } from "../common/look.ts";
import { applyPlans, makePlans, membershipProblem } from "../hosts/apply.ts";
import type { HostPlan } from "../hosts/plan.ts";
import { certificateSet, type Inventory, readInventory } from "../inventory/inventory.ts";
import { readUsers } from "../inventory/users.ts";
import { refuseProblems } from "../operations/turn.ts";
import { makeSet } from "../pki/set.ts";
import { refuseUnfinished } from "../steps/record.ts";
import { rowsOf, statusText } from "./status.ts";

const plan: DeployCommand = {
  name: "plan",
  short: "Says what apply would do on each host, and why; changes nothing on them",
  long: `Visits every host over ssh and says what apply would do there, and why. It changes nothing on the hosts; missing
certificates are made here. Exit codes: 0 nothing differs, 1 something would be done, 2 something forbids it.`,
  flags: [INVENTORY_FILE],
  async run(context, { flags }) {
    const { inventory, plans } = await prepare(context, flags.string("file"));
    refuseProblems(plans, [(await membershipProblem(context, inventory, plans)) ?? []].flat());
    for (const { facts, changes, then } of plans) {
      for (const { text } of changes) context.out(`${facts.member.name}: ${text}\n`);
      if (then !== "nothing") context.out(`${facts.member.name}: ${then}\n`);
    }
    const deeds = plans.every(({ facts }) => facts.isActive) ? await userDeeds(context, inventory) : [];
    for (const { text } of deeds) context.out(`${text}\n`);
    if (plans.some(differs) || deeds.length > 0) throw new DeployError("", EXIT.warnings);
    context.out("nothing differs\n");
  },
};

const apply: DeployCommand = {
  name: "apply",
  short: "Makes the hosts what the inventory says, and shows the members when all are healthy",
  long: `Makes the hosts what the inventory says: user, directories, program, certificates, configuration, unit. Members that do
not run are started together; those that must see a change are restarted one by one, each only while all others are
healthy. Where nothing differs nothing is done, so it can be repeated, also after it was interrupted.`,
  flags: [INVENTORY_FILE],
  async run(context, { flags }) {
    const path = resolve(context.cwd, flags.string("file"));
    const lock = lockBeside(path);
    try {
      refuseUnfinished(path);
      const { inventory, plans } = await prepare(context, flags.string("file"));
      refuseProblems(plans, [(await membershipProblem(context, inventory, plans)) ?? []].flat());
      const looks = await applyPlans(context, inventory, plans);
      const deeds = await userDeeds(context, inventory);
      if (!plans.some(differs) && deeds.length === 0) context.out("nothing differs\n");
      for (const { text, run } of deeds) {
        context.out(`${text}\n`);
        await run();
      }
      context.out(statusText(rowsOf(inventory, looks, context.clock.wallMs()), quotaOf(inventory)));
      endWith(looks);
    } finally {
      lock.release();
    }
  },
};

const status: DeployCommand = {
  name: "status",
  short: "Shows every member, what needs attention, and the command for it",
  flags: [INVENTORY_FILE, FORMAT],
  async run(context, { flags }) {
    const inventory = readInventory(resolve(context.cwd, flags.string("file")));
    const looks = await new Cluster(context, inventory).looks();
    const json = isJson(flags);
    const rows = rowsOf(inventory, looks, context.clock.wallMs());
    context.out(json ? `${JSON.stringify(rows, null, 2)}\n` : statusText(rows, quotaOf(inventory)));
    endWith(looks);
  },
};

const health: DeployCommand = {
  name: "health",
  short: "Says of every member whether it is healthy: it answers a linearizable read",
  flags: [INVENTORY_FILE],
  async run(context, { flags }) {
    const inventory = readInventory(resolve(context.cwd, flags.string("file")));
    const looks = await new Cluster(context, inventory).looks();
    for (const { endpoint, tookMs, trouble } of looks) {
      context.out(
        tookMs === undefined
          ? `${endpoint} is unhealthy: ${trouble}\n`
          : `${endpoint} is healthy: took = ${tookMs.toFixed(3)}ms\n`,
      );
    }
    endWith(looks);
  },
};

export const hostCommands: readonly DeployCommand[] = [plan, apply, status, health];

async function prepare(context: Context, file: string): Promise<{ inventory: Inventory; plans: HostPlan[] }> {
  const inventory = readInventory(resolve(context.cwd, file));
  if (inventory.usersFile !== undefined) readUsers(inventory.usersFile);
  for (const warning of inventory.warnings) context.err(`warning: ${warning}\n`);
  const now = { nowMs: context.clock.wallMs(), random: context.random };
  for (const { action, file: path, why } of await makeSet(certificateSet(inventory), now)) {
    if (action !== "kept")
      context.out(`${action} certificate ${path}${why === undefined ? "" : ` (it was: ${why})`}\n`);
  }
  const plans = await makePlans(context, inventory);
  for (const { facts, warnings } of plans)
    for (const warning of warnings) context.err(`warning: ${facts.member.name}: ${warning}\n`);
  return { inventory, plans };
}

async function userDeeds(context: Context, inventory: Inventory): Promise<Deed[]> {
  if (inventory.usersFile === undefined) return [];
  return usersToDo(new Cluster(context, inventory), readUsers(inventory.usersFile));
}

const differs = ({ changes, then }: HostPlan): boolean => changes.length > 0 || then !== "nothing";

function quotaOf({ tuning }: Inventory): number | undefined {
  const quota = Number(tuning.get("quota-backend-bytes") ?? 0);
  return quota > 0 ? quota : undefined;
}

/** Throws when a member is not healthy; the table has been printed. */
function endWith(looks: readonly Look[]): void {
  if (looks.some(({ tookMs }) => tookMs === undefined)) throw new DeployError("", EXIT.problems);
}
