/**
 * What differs between the inventory and the hosts, what will be done about it, and what forbids it. From facts to
 * words and scripts; `makeChanges` runs those.
 */
import { basename } from "node:path";
import type { Context } from "../common/context.ts";
import type { Inventory } from "../inventory/inventory.ts";
import type { HostFile } from "../render/host.ts";
import { directoriesOf, expectation, type Facts, gistOf, restartMark } from "./facts.ts";
import type { Probes } from "./probes.ts";
import { installScript, linkScript, releaseDir } from "./releases.ts";
import { feedOn, runOn, word } from "./shell.ts";

export interface Change {
  /** One line for people. */
  readonly text: string;
  readonly script?: () => string;
  /** What is read from the end of a connection of its own, before the scripts. */
  readonly feed?: { readonly script: string; readonly input: Uint8Array };
  /** Brings files into place that belong together: after all scripts, at once. */
  readonly finish?: string;
}

export interface HostPlan {
  readonly facts: Facts;
  readonly changes: readonly Change[];
  /** What follows once the changes are made. */
  readonly then: "start" | "restart" | "nothing";
  readonly problems: readonly string[];
  readonly warnings: readonly string[];
}

const SKEW_MS_MAX = 5_000;
const SKEW_MS_NOTICED = 500;
/** Source: etcd's hardware guide. */
const SYNC_MS_ADVISED = 10;
const FREE_KIB_MIN = 1 << 20;

/** `probes` of a host on which no member runs. */
export function planFor(inventory: Inventory, facts: Facts, probes?: Probes): HostPlan {
  const changes: Change[] = [];
  const { user, service, configDir } = inventory;
  const { release } = facts;
  const mark = `mkdir -p ${word(configDir)}\n: > ${word(restartMark(inventory))}\n`;
  let isSeenAtStartOnly = false;
  let isUnitNew = false;
  if (!facts.hasUser) {
    changes.push({
      text: `create the user ${user}`,
      script: () => `useradd --system --user-group --no-create-home --shell /usr/sbin/nologin ${word(user)}\n`,
    });
  }
  for (const path of directoriesOf(inventory)) {
    const state = facts.directories.get(path);
    if (state === `700 ${user}`) continue;
    changes.push({
      text: state === undefined ? `create ${path}` : `give ${path} to ${user}, with mode 700 (it is ${state})`,
      script: () => `mkdir -p ${word(path)}\nchown ${word(user)}: ${word(path)}\nchmod 700 ${word(path)}\n`,
    });
  }
  if (release !== undefined && !facts.releases.includes(release.id)) {
    changes.push({
      text: `copy ${basename(release.path)} to ${releaseDir(inventory, release)}`,
      feed: { script: installScript(inventory, release), input: release.content },
    });
  }
  if (release !== undefined && facts.linked !== release.id) {
    isSeenAtStartOnly = true;
    changes.push({
      text: `make ${inventory.program} lead to ${releaseDir(inventory, release)} (${facts.hasProgram ? "differs" : "is missing"})`,
      script: () => mark + linkScript(inventory, release),
    });
  }
  for (const file of facts.files) {
    const state = facts.present.get(file.path);
    const wanted = expectation(file, user);
    if (state === wanted) continue;
    // Members read certificates again by themselves, and where their cluster is only at a start without data.
    const isCertificate = file.path.startsWith(`${configDir}/pki/`);
    const isSeen = !isCertificate && !(facts.hasData && sameGist(file, facts, state, wanted));
    isSeenAtStartOnly ||= isSeen;
    isUnitNew ||= file.path.endsWith(".service");
    const { script, finish } = writeScript(
      file.path,
      Buffer.from(file.content),
      file.mode.toString(8),
      file.isUsers ? user : "root",
    );
    changes.push({
      text: `write ${file.path} (${state === undefined ? "is missing" : "differs"})`,
      script: () => (isSeen ? mark : "") + script(),
      finish,
    });
  }
  if (isUnitNew || !facts.isEnabled) {
    changes.push({
      text: `enable ${service}.service`,
      finish: `systemctl daemon-reload\nsystemctl enable --quiet ${word(`${service}.service`)}\n`,
    });
  }
  const restarts = isSeenAtStartOnly || facts.needsRestart;
  const then = facts.isActive ? (restarts ? "restart" : "nothing") : "start";
  return {
    facts,
    changes,
    then,
    problems: problemsWith(inventory, facts, probes),
    warnings: warningsOn(facts, probes),
  };
}

/** Makes the changes of one host. Throws DeployError; what was made before stays, and a new plan has the rest. */
export async function makeChanges(
  context: Context,
  { facts: { member }, changes }: HostPlan,
  tell: (text: string) => void,
): Promise<void> {
  for (const { text, feed } of changes) {
    tell(`${member.name}: ${text}\n`);
    if (feed !== undefined) await feedOn(context, member.ssh, feed.script, feed.input);
  }
  const scripts = changes.map(({ script }) => script?.() ?? "").join("");
  const finish = changes.map((change) => change.finish ?? "").join("");
  if (scripts + finish !== "") await runOn(context, member.ssh, scripts + finish);
}

/** Owner and mode are as wanted, and so is all that a member with data reads. */
const sameGist = (file: HostFile, { gists }: Facts, state: string | undefined, wanted: string): boolean =>
  gists.get(file.path) === gistOf(file) && state?.replace(/^\w+/, "") === wanted.replace(/^\w+/, "");

/** Beside the file, to be renamed at the end: a member that reads meanwhile gets the old or the new. */
function writeScript(path: string, content: Buffer, mode: string, owner: string) {
  const fresh = word(`${path}.new`);
  const script = (): string => `mkdir -p "$(dirname ${word(path)})"
rm -f ${fresh}
(umask 077; base64 -d > ${fresh}) <<'END-OF-CONTENT'
${content.toString("base64")}
END-OF-CONTENT
chown ${word(owner)}: ${fresh}
chmod ${mode} ${fresh}
`;
  return { script, finish: `mv ${fresh} ${word(path)}\n` };
}

function problemsWith(inventory: Inventory, facts: Facts, probes: Probes | undefined): string[] {
  const found: string[] = [];
  const { service, dataDir } = inventory;
  if (!facts.hasSystemd) found.push("systemd does not run there");
  if (!facts.hasProgram && facts.release === undefined)
    found.push(`${inventory.program} is not there: install it, or name a local program or archive with "copy"`);
  if (facts.hasData && !facts.hasUnit)
    found.push(
      `${dataDir} has data of a member, but there is no ${service}.service: is it of another cluster? Move it away`,
    );
  if (!facts.isActive && facts.listening.length > 0)
    found.push(`another program listens on port ${facts.listening.join(" and ")}: end it, or choose other ports`);
  const unreachable = probes?.unreachable ?? [];
  if (unreachable.length > 0)
    found.push(
      `it cannot reach ${unreachable.join(", ")}: open the port in the firewall between the hosts, or correct the address`,
    );
  const skewMs = Math.abs(facts.clockAheadMs) - facts.clockErrorMs;
  if (skewMs > SKEW_MS_MAX)
    found.push(
      `its clock is ${seconds(facts.clockAheadMs)} off: set it (chrony, systemd-timesyncd), or certificates fail`,
    );
  return found;
}

function warningsOn(facts: Facts, probes: Probes | undefined): string[] {
  const found: string[] = [];
  const syncMs = probes?.syncMs ?? 0;
  if (syncMs > SYNC_MS_ADVISED)
    found.push(
      `its disk takes ${syncMs.toFixed(1)} ms until a write is safe, and etcd advises less than ${SYNC_MS_ADVISED} ms: take a faster disk for the data, or for the log (directories.wal)`,
    );
  const skewMs = Math.abs(facts.clockAheadMs) - facts.clockErrorMs;
  if (skewMs > SKEW_MS_NOTICED && skewMs <= SKEW_MS_MAX)
    found.push(`its clock is ${seconds(facts.clockAheadMs)} off: let chrony or systemd-timesyncd set it`);
  if (facts.freeKiB < FREE_KIB_MIN) found.push(`only ${Math.floor(facts.freeKiB / 1024)} MiB are free for its data`);
  return found;
}

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;
