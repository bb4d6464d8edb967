/** The service of a member on its host: started, restarted, stopped, waited for; and its data, set aside but never deleted. */
import type { Cluster } from "../cluster/access.ts";
import { type Context, DeployError } from "../common/context.ts";
import type { Inventory, Member } from "../inventory/inventory.ts";
import { restartMark } from "./facts.ts";
import { runOn, word } from "./shell.ts";

const HEALTHY_MS = 120_000;
const RESTART_S = 90;
/** How long members may not answer before that counts. */
const PATIENCE_MS = 10_000;
const LAST_WORDS = 5;

const unitOf = ({ service }: Inventory): string => word(`${service}.service`);

/** A start is through only when the member serves, for which a new cluster needs the others: that is waited for elsewhere. */
export async function startMember(context: Context, inventory: Inventory, member: Member): Promise<void> {
  await act(context, inventory, member, `systemctl start --no-block ${unitOf(inventory)}`);
}

export async function restartMember(context: Context, inventory: Inventory, member: Member): Promise<void> {
  await act(context, inventory, member, `timeout ${RESTART_S} systemctl restart ${unitOf(inventory)}`);
}

async function act(context: Context, inventory: Inventory, { ssh }: Member, command: string): Promise<void> {
  await runOn(
    context,
    ssh,
    `systemctl reset-failed ${unitOf(inventory)} 2>/dev/null || true\n${command}\nrm -f ${word(restartMark(inventory))}\n`,
  );
}

/** It is not started again with the host either. */
export async function retireMember(context: Context, inventory: Inventory, { ssh }: Member): Promise<void> {
  await runOn(context, ssh, `${STOP(inventory)}systemctl disable --quiet ${unitOf(inventory)} 2>/dev/null || true\n`);
}

export async function stopMember(context: Context, inventory: Inventory, { ssh }: Member): Promise<void> {
  await runOn(context, ssh, STOP(inventory));
}

const STOP = (inventory: Inventory): string =>
  `if systemctl cat ${unitOf(inventory)} >/dev/null 2>&1; then systemctl stop ${unitOf(inventory)}; fi\n`;

/** Within the same directory, so that it is one rename, also where that is a disk of its own. */
export async function setDataAside(
  context: Context,
  { dataDir, walDir }: Inventory,
  { ssh }: Member,
  stamp: string,
): Promise<void> {
  const aside = word(`${dataDir}/aside-${stamp}`);
  const logs =
    walDir === undefined
      ? ""
      : `if ls ${word(walDir)}/*.wal >/dev/null 2>&1; then
  mkdir -p ${word(`${walDir}/aside-${stamp}`)}
  mv ${word(walDir)}/*.wal ${word(`${walDir}/aside-${stamp}`)}/
fi
`;
  await runOn(
    context,
    ssh,
    `${logs}if [ -d ${word(`${dataDir}/member`)} ]; then
  mkdir -p ${aside}
  chmod 700 ${aside}
  mv ${word(`${dataDir}/member`)} ${aside}/member
fi
`,
  );
}

/**
 * Waits until it answers a linearizable read, or as a learner, and systemd knows that it serves. Throws DeployError with what
 * it said last.
 */
export async function untilHealthy(context: Context, cluster: Cluster, member: Member): Promise<void> {
  const { clock } = context;
  const unit = unitOf(cluster.inventory);
  const endMs = clock.nowMs() + HEALTHY_MS;
  for (;;) {
    const { tookMs, trouble } = await cluster.look(member);
    const state = await runOn(context, member.ssh, `systemctl show -p ActiveState -p NRestarts --value ${unit}`);
    const [restarts, active] = state.trim().split("\n").sort();
    if (tookMs !== undefined && active === "active") return;
    if (clock.nowMs() > endMs || active === "failed" || Number(restarts) > 1) {
      const said = await runOn(context, member.ssh, `journalctl -u ${unit} -n ${LAST_WORDS} --no-pager -o cat || true`);
      const why = tookMs === undefined ? trouble : `it serves, but its service is "${active}" still`;
      throw new DeployError(
        `${member.name} is not healthy (${why}). It said last:\n${said.replaceAll(/^(?=.)/gm, "  ")}When the cause is removed, repeat the command`,
      );
    }
    await cluster.pause();
  }
}

/**
 * To take a member away for a moment or for good, all others must be there. After what happened to the one before, they may
 * need a moment. Throws DeployError. Those in `except` do not count.
 */
export async function refuseUnlessHealthy(
  { clock }: Context,
  cluster: Cluster,
  member: Member,
  verb: string,
  except: readonly Member[] = [],
): Promise<void> {
  const endMs = clock.nowMs() + PATIENCE_MS;
  const others = cluster.inventory.members.filter((each) => each !== member && !except.includes(each));
  for (;;) {
    const looks = await cluster.looks(others);
    const ill = others.filter((_, i) => looks[i]!.tookMs === undefined);
    if (ill.length === 0) return;
    const names = ill.map(({ name }) => name).join(", ");
    if (clock.nowMs() > endMs)
      throw new DeployError(
        `${member.name} is not ${verb} while ${names} is not healthy, for that could cost the majority. Repair that first (kvorum cluster status), then repeat the command`,
      );
    await cluster.pause();
  }
}

export async function giveUpLead(cluster: Cluster, member: Member, tell: (text: string) => void): Promise<void> {
  if (cluster.inventory.members.length < 2 || (await cluster.leader()) !== member) return;
  const next = await cluster.moveLeader(member);
  tell(`${member.name}: the lead moves to ${next.name}\n`);
}
