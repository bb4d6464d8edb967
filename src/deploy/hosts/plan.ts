/**
 * What differs between the inventory and the hosts, what will be done about it, and what forbids it. Pure: from facts to
 * words and scripts.
 */
import type { Inventory } from "../inventory/inventory.ts";
import { directoriesOf, expectation, type Facts, type LocalProgram, restartMark } from "./facts.ts";
import { word } from "./shell.ts";

export interface Change {
  /** One line for people. */
  readonly text: string;
  readonly script: () => string;
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
const FREE_KIB_MIN = 1 << 20;

/** `program` is the local one that is copied. */
export function planFor(inventory: Inventory, facts: Facts, program: LocalProgram | undefined): HostPlan {
  const changes: Change[] = [];
  const { user, service, configDir } = inventory;
  const mark = `mkdir -p ${word(configDir)}\n: > ${word(restartMark(inventory))}\n`;
  let isSeenAtStartOnly = false;
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
  if (program !== undefined && facts.programDigest !== program.digest) {
    isSeenAtStartOnly = true;
    const text = `copy the program to ${inventory.program} (${facts.hasProgram ? "differs" : "is missing"})`;
    changes.push({ text, script: () => mark + writeScript(inventory.program, program.content, "755", "root") });
  }
  for (const file of facts.files) {
    const state = facts.present.get(file.path);
    if (state === expectation(file, user)) continue;
    // Members read certificates again by themselves.
    const isCertificate = file.path.startsWith(`${configDir}/pki/`);
    isSeenAtStartOnly ||= !isCertificate;
    changes.push({
      text: `write ${file.path} (${state === undefined ? "is missing" : "differs"})`,
      script: () =>
        (isCertificate ? "" : mark) +
        writeScript(file.path, Buffer.from(file.content), file.mode.toString(8), file.isUsers ? user : "root"),
    });
  }
  if (isSeenAtStartOnly || !facts.isEnabled) {
    changes.push({
      text: `enable ${service}.service`,
      script: () => `systemctl daemon-reload\nsystemctl enable --quiet ${word(`${service}.service`)}\n`,
    });
  }
  const restarts = isSeenAtStartOnly || facts.needsRestart;
  const then = facts.isActive ? (restarts ? "restart" : "nothing") : "start";
  return { facts, changes, then, problems: problemsWith(inventory, facts, program), warnings: warningsOn(facts) };
}

/** Beside the file, then renamed: a member that reads meanwhile gets the old or the new. */
function writeScript(path: string, content: Buffer, mode: string, owner: string): string {
  const fresh = word(`${path}.new`);
  return `mkdir -p "$(dirname ${word(path)})"
rm -f ${fresh}
(umask 077; base64 -d > ${fresh}) <<'END-OF-CONTENT'
${content.toString("base64")}
END-OF-CONTENT
chown ${word(owner)}: ${fresh}
chmod ${mode} ${fresh}
mv ${fresh} ${word(path)}
`;
}

function problemsWith(inventory: Inventory, facts: Facts, program: LocalProgram | undefined): string[] {
  const found: string[] = [];
  const { service, dataDir } = inventory;
  if (!facts.hasSystemd) found.push("systemd does not run there");
  if (!facts.hasProgram && program === undefined)
    found.push(`${inventory.program} is not there: install it, or name a local program with "copy"`);
  if (facts.hasData && !facts.hasUnit)
    found.push(
      `${dataDir} has data of a member, but there is no ${service}.service: is it of another cluster? Move it away`,
    );
  if (!facts.isActive && facts.listening.length > 0)
    found.push(`another program listens on port ${facts.listening.join(" and ")}: end it, or choose other ports`);
  const skewMs = Math.abs(facts.clockAheadMs) - facts.clockErrorMs;
  if (skewMs > SKEW_MS_MAX)
    found.push(
      `its clock is ${seconds(facts.clockAheadMs)} off: set it (chrony, systemd-timesyncd), or certificates fail`,
    );
  return found;
}

function warningsOn(facts: Facts): string[] {
  const found: string[] = [];
  const skewMs = Math.abs(facts.clockAheadMs) - facts.clockErrorMs;
  if (skewMs > SKEW_MS_NOTICED && skewMs <= SKEW_MS_MAX)
    found.push(`its clock is ${seconds(facts.clockAheadMs)} off: let chrony or systemd-timesyncd set it`);
  if (facts.freeKiB < FREE_KIB_MIN) found.push(`only ${Math.floor(facts.freeKiB / 1024)} MiB are free for its data`);
  return found;
}

const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;
