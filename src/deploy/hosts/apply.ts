/**
 * Makes the hosts what the inventory says: first every file on every host, then all members that do not run are started
 * together, then those that must see a change are restarted one by one, each only while all others are healthy. Each step
 * is taken only where something differs, so that a run that was interrupted is simply repeated.
 */
import { messageOf } from "../../base/errors.ts";
import type { TlsOptions } from "../../client/raw.ts";
import { ClusterService } from "../../proto/etcdserverpb.ts";
import { type Context, DeployError } from "../common/context.ts";
import { readRequired } from "../common/files.ts";
import { type Look, lookAt } from "../common/look.ts";
import type { Inventory, Member } from "../inventory/inventory.ts";
import { authorityPair, clientPair } from "../pki/layout.ts";
import { factsOf, programToCopy, restartMark } from "./facts.ts";
import { type HostPlan, planFor } from "./plan.ts";
import { runOn, word } from "./shell.ts";

const LOOK_MS = 5_000;
/** How long members may not answer before that counts. */
const PATIENCE_MS = 10_000;
const HEALTHY_MS = 120_000;
const RETRY_MS = 200;
const RESTART_S = 90;

export async function makePlans(context: Context, inventory: Inventory): Promise<HostPlan[]> {
  const program = programToCopy(inventory);
  const outcomes = await Promise.allSettled(inventory.members.map((member) => factsOf(context, inventory, member)));
  const failed = outcomes.flatMap((outcome) => (outcome.status === "rejected" ? [messageOf(outcome.reason)] : []));
  if (failed.length > 0)
    throw new DeployError(
      `not every host can be reached:\n${failed.map((text) => `  ${text}\n`).join("")}Nothing was changed.`,
    );
  return outcomes.flatMap((outcome) =>
    outcome.status === "fulfilled" ? [planFor(inventory, outcome.value, program)] : [],
  );
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
  const isRunning = plans.some(({ facts }) => facts.isActive && facts.hasData);
  const endMs = clock.nowMs() + (isRunning ? PATIENCE_MS : 0);
  let there = await anyMemberList(inventory);
  while (there === undefined && clock.nowMs() < endMs) there = await anyMemberList(inventory);
  if (there === undefined) {
    if (isRunning)
      context.err("warning: members run, but none says who the members are; they are taken to be the inventory's\n");
    return undefined;
  }
  const urls = there;
  const wanted = inventory.members.map((member) => peerUrl(inventory, member));
  const extra = wanted.filter((url) => !urls.includes(url));
  const gone = urls.filter((url) => !wanted.includes(url));
  if (extra.length === 0 && gone.length === 0) return undefined;
  const words = [
    ...(extra.length > 0 ? [`it does not have ${extra.join(", ")}`] : []),
    ...(gone.length > 0 ? [`it has ${gone.join(", ")} besides`] : []),
  ];
  return `the cluster that runs has other members than the inventory: ${words.join(", and ")}. Members are changed with etcdctl member add and remove; then make the inventory agree`;
}

/** Peer URLs of all members, from whichever member answers. */
async function anyMemberList(inventory: Inventory): Promise<string[] | undefined> {
  const { connect } = await import("../../client/raw.ts");
  const tls = tlsOf(inventory);
  const lists = await Promise.all(
    inventory.members.map(async (member) => {
      const client = connect(clientUrl(inventory, member), { tls });
      try {
        await client.ready(LOOK_MS);
        const { members } = await client.unary(
          ClusterService.MemberList,
          { linearizable: true },
          { timeoutMs: LOOK_MS },
        );
        return members.flatMap(({ peerUrls }) => peerUrls);
      } catch {
        return undefined;
      } finally {
        client.close();
      }
    }),
  );
  return lists.find((list) => list !== undefined);
}

/** Resolves with the last look at every member. Throws DeployError. */
export async function applyPlans(context: Context, inventory: Inventory, plans: readonly HostPlan[]): Promise<Look[]> {
  await Promise.all(
    plans.map(async ({ facts: { member }, changes }) => {
      if (changes.length === 0) return;
      for (const { text } of changes) context.out(`${member.name}: ${text}\n`);
      await runOn(context, member.ssh, changes.map(({ script }) => script()).join(""));
    }),
  );
  const starting = plans.filter(({ then }) => then === "start").map(({ facts }) => facts.member);
  await Promise.all(starting.map((member) => act(context, inventory, member, "start")));
  const members = starting.length > 0 ? inventory.members : [];
  await Promise.all(members.map((member) => untilHealthy(context, inventory, member)));
  for (const { facts, then } of plans) {
    if (then !== "restart") continue;
    await refuseUnlessHealthy(context, inventory, facts.member);
    await act(context, inventory, facts.member, "restart");
    await untilHealthy(context, inventory, facts.member);
  }
  return lookAtAll(context, inventory);
}

async function act(context: Context, inventory: Inventory, member: Member, what: "start" | "restart"): Promise<void> {
  context.out(`${member.name}: ${what}\n`);
  const unit = word(`${inventory.service}.service`);
  // A start is through only when the member serves, for which a new cluster needs the others: that is waited for here.
  const command =
    what === "start" ? `systemctl start --no-block ${unit}` : `timeout ${RESTART_S} systemctl restart ${unit}`;
  await runOn(
    context,
    member.ssh,
    `systemctl reset-failed ${unit} 2>/dev/null || true\n${command}\nrm -f ${word(restartMark(inventory))}\n`,
  );
}

/** A restart takes one member away: the others must be there. After the restart before, they may need a moment. */
async function refuseUnlessHealthy(context: Context, inventory: Inventory, member: Member): Promise<void> {
  const endMs = context.clock.nowMs() + PATIENCE_MS;
  for (;;) {
    const looks = await lookAtAll(context, inventory);
    const ill = inventory.members.filter((each, i) => each !== member && looks[i]!.tookMs === undefined);
    if (ill.length === 0) return;
    const names = ill.map(({ name }) => name).join(", ");
    if (context.clock.nowMs() > endMs)
      throw new DeployError(
        `${member.name} is not restarted while ${names} is not healthy, for that could cost the majority. Repair that first (kvorum cluster status), then repeat the command`,
      );
  }
}

async function untilHealthy(context: Context, inventory: Inventory, member: Member): Promise<void> {
  const { clock } = context;
  const endMs = clock.nowMs() + HEALTHY_MS;
  for (;;) {
    const [look] = await lookAt([clientUrl(inventory, member)], tlsOf(inventory), LOOK_MS, clock);
    if (look?.tookMs !== undefined) return;
    const unit = word(`${inventory.service}.service`);
    const isLate = clock.nowMs() > endMs;
    const state = await runOn(context, member.ssh, `systemctl show -p ActiveState -p NRestarts --value ${unit}`);
    const [restarts, active] = state.trim().split("\n").sort();
    if (isLate || active === "failed" || Number(restarts) > 1) {
      const said = await runOn(context, member.ssh, `journalctl -u ${unit} -n 5 --no-pager -o cat || true`);
      throw new DeployError(
        `${member.name} is not healthy (${look?.trouble}). It said last:\n${said.replaceAll(/^(?=.)/gm, "  ")}When the cause is removed, repeat the command`,
      );
    }
    await new Promise<void>((resolve) => clock.after(RETRY_MS, resolve));
  }
}

export const lookAtAll = (context: Context, inventory: Inventory): Promise<Look[]> =>
  lookAt(
    inventory.members.map((member) => clientUrl(inventory, member)),
    tlsOf(inventory),
    LOOK_MS,
    context.clock,
  );

function tlsOf({ certificates: { dir } }: Inventory): TlsOptions {
  const { cert, key } = clientPair(dir, "root");
  const read = (path: string) => Buffer.from(readRequired(path, "the client certificate of the cluster"));
  return { ca: read(authorityPair(dir).cert), cert: read(cert), key: read(key) };
}

const urlOf = (host: string, port: number): string => `https://${host.includes(":") ? `[${host}]` : host}:${port}`;
const clientUrl = ({ clientPort }: Inventory, { address }: Member): string => urlOf(address, clientPort);
const peerUrl = ({ peerPort }: Inventory, { address }: Member): string => urlOf(address, peerPort);
