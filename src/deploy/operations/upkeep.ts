/** Operations that change nothing but how well a cluster runs: `defrag`, `move-leader`; and its end, `destroy`. */
import { Cluster } from "../cluster/access.ts";
import { DeployError, EXIT } from "../common/context.ts";
import { factsOf } from "../hosts/facts.ts";
import { refuseUnlessHealthy, retireMember, setDataAside } from "../hosts/service.ts";
import { runOn, word } from "../hosts/shell.ts";
import { hostFiles } from "../render/host.ts";
import type { Operation, Step } from "../steps/run.ts";
import { confirmed } from "./confirm.ts";
import { inventoryOf, type Tools, textOf } from "./tools.ts";
import { factsIfReachable, memberNamed, orderOfTurns, stampOf } from "./turn.ts";

interface Chosen {
  readonly text: string;
  readonly names: readonly string[];
}

const PERCENT = 100;

/** Where at least `freePercent` of the database is free space. A member does not serve while it defragments, so one by one. */
export function defragment(tools: Tools, freePercent: number): Operation<Chosen> {
  const { context } = tools;
  return {
    name: "defrag",
    subject: `${freePercent}`,
    decide: async () => {
      const text = textOf(tools);
      const inventory = inventoryOf(tools, text);
      const cluster = new Cluster(context, inventory);
      const looks = await cluster.looks();
      const isWorth = (name: string) => {
        const status = looks[inventory.members.findIndex((each) => each.name === name)]?.status;
        if (status === undefined) throw new DeployError(`${name} does not answer: repair it first`, EXIT.problems);
        const free = Number(status.dbSize) - Number(status.dbSizeInUse);
        return free * PERCENT >= Number(status.dbSize) * freePercent;
      };
      return { text, names: (await orderOfTurns(cluster)).filter(isWorth) };
    },
    steps: ({ text, names }) => {
      const inventory = inventoryOf(tools, text);
      const cluster = new Cluster(context, inventory);
      return names.map((name): Step => {
        const member = memberNamed(inventory, name);
        const size = async () => Number((await cluster.look(member)).status?.dbSize ?? 0);
        return {
          text: `${name}: defragment its database`,
          allow: () => refuseUnlessHealthy(context, cluster, member, "defragmented"),
          run: async (tell) => {
            const before = await size();
            await cluster.defragment(member);
            tell(`${name}: ${before} bytes before, ${await size()} after\n`);
            await cluster.until(`${name} is healthy`, async () => (await cluster.look(member)).tookMs !== undefined);
          },
        };
      });
    },
  };
}

/** To the member named, or to the one that is furthest. */
export function moveLeader(
  tools: Tools,
  to: string | undefined,
): Operation<{ readonly text: string; readonly from: string }> {
  return {
    name: "move-leader",
    subject: to ?? "",
    decide: async () => {
      const text = textOf(tools);
      const inventory = inventoryOf(tools, text);
      if (to !== undefined) memberNamed(inventory, to);
      const leader = await new Cluster(tools.context, inventory).leader();
      if (leader === undefined)
        throw new DeployError("no member of the inventory leads: look at kvorum cluster status", EXIT.problems);
      return { text, from: leader.name };
    },
    steps: ({ text, from }) => {
      const inventory = inventoryOf(tools, text);
      const cluster = new Cluster(tools.context, inventory);
      const target = to === undefined ? undefined : memberNamed(inventory, to);
      return [
        {
          text: `the lead moves from ${from} to ${to ?? "the member that is furthest"}`,
          isDone: async () => {
            const leader = await cluster.leader();
            return leader !== undefined && (target === undefined ? leader.name !== from : leader === target);
          },
          run: async (tell) => {
            const next = await cluster.moveLeader(memberNamed(inventory, from), target);
            tell(`${next.name} leads\n`);
          },
        },
      ];
    },
  };
}

interface Ending {
  readonly text: string;
  readonly stamp: string;
  readonly names: readonly string[];
  readonly missing: readonly string[];
}

/** Programs and the user stay; data is set aside unless it is to be deleted. */
export function destroy(tools: Tools, answer: string | undefined, deletesData: boolean): Operation<Ending> {
  const { context } = tools;
  return {
    name: "destroy",
    subject: deletesData ? "with its data" : "",
    decide: async () => {
      const text = textOf(tools);
      const inventory = inventoryOf(tools, text);
      const facts = await Promise.all(inventory.members.map((member) => factsIfReachable(context, inventory, member)));
      const names = (isThere: boolean) =>
        inventory.members.filter((_, i) => (facts[i] !== undefined) === isThere).map(({ name }) => name);
      return { text, stamp: stampOf(context), names: names(true), missing: names(false) };
    },
    confirm: async ({ text, names, missing }) => {
      const { cluster, dataDir } = inventoryOf(tools, text);
      const data = deletesData ? "deletes their data" : `sets their data aside in ${dataDir}`;
      context.err(`This stops ${names.join(", ")} for good, removes their service and certificates, and ${data}.\n`);
      if (missing.length > 0)
        context.err(`The host of ${missing.join(", ")} cannot be reached, and is left as it is.\n`);
      await confirmed(context, cluster, answer);
    },
    steps: ({ text, stamp, names }) => {
      const inventory = inventoryOf(tools, text);
      return names.map((name): Step => {
        const member = memberNamed(inventory, name);
        return {
          text: `${name}: stop it, ${deletesData ? "delete" : "set aside"} its data, remove its service and certificates`,
          isDone: async () => {
            const { isActive, hasData, hasUnit, present } = await factsOf(context, inventory, member);
            return !isActive && !hasData && !hasUnit && present.size === 0;
          },
          run: async () => {
            await retireMember(context, inventory, member);
            if (deletesData) {
              // The directories may be disks of their own.
              const paths = [inventory.dataDir, ...(inventory.walDir === undefined ? [] : [inventory.walDir])];
              const script = paths.map((path) => `[ ! -d ${word(path)} ] || find ${word(path)} -mindepth 1 -delete\n`);
              await runOn(context, member.ssh, script.join(""));
            } else await setDataAside(context, inventory, member, stamp);
            const files = hostFiles(inventory, member).map(({ path }) => word(path));
            await runOn(context, member.ssh, `rm -f ${files.join(" ")}\nsystemctl daemon-reload\n`);
          },
        };
      });
    },
  };
}
