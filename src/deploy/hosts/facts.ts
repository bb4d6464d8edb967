/** What a host is like, found in one visit that changes nothing. */
import { createHash } from "node:crypto";
import type { Context } from "../common/context.ts";
import type { Inventory, Member } from "../inventory/inventory.ts";
import { type HostFile, hostFiles } from "../render/host.ts";
import { architectureOf, type Release, releaseFor } from "./releases.ts";
import { runOn, word } from "./shell.ts";

export interface Facts {
  readonly member: Member;
  readonly files: readonly HostFile[];
  /** How far its clock is ahead of ours, in milliseconds, and how sure that is. */
  readonly clockAheadMs: number;
  readonly clockErrorMs: number;
  readonly hasSystemd: boolean;
  readonly hasUser: boolean;
  readonly hasProgram: boolean;
  /** What is to be copied there; undefined when the inventory names nothing. */
  readonly release: Release | undefined;
  /** Ids of the releases that are there, and of the one that the program's path leads to. */
  readonly releases: readonly string[];
  readonly linked: string;
  readonly directories: ReadonlyMap<string, string>;
  /** Path of a file that is there -> digest, mode and owner, as `expectation` writes them. */
  readonly present: ReadonlyMap<string, string>;
  /** Path of a file that is there -> digest of it without the lines that only a start without data reads. */
  readonly gists: ReadonlyMap<string, string>;
  /** There is data of a member. */
  readonly hasData: boolean;
  readonly hasUnit: boolean;
  readonly isActive: boolean;
  readonly isEnabled: boolean;
  /** A change was made that the running member has not seen. */
  readonly needsRestart: boolean;
  readonly freeKiB: number;
  /** Those of the member's ports at which something listens. */
  readonly listening: readonly number[];
}

const digestOf = (content: string | Uint8Array): string => createHash("sha256").update(content).digest("hex");

export const restartMark = ({ configDir }: Inventory): string => `${configDir}/.restart-needed`;

/** What `present` has for a file that is as it should be. */
export const expectation = ({ content, mode, isUsers }: HostFile, user: string): string =>
  `${digestOf(content)} ${mode.toString(8)} ${isUsers ? user : "root"}`;

export const directoriesOf = ({ dataDir, walDir }: Inventory): string[] => [
  dataDir,
  ...(walDir === undefined ? [] : [walDir]),
];

/** What `gists` has for a file that differs in nothing that a member with data reads. */
export const gistOf = ({ content }: HostFile): string =>
  digestOf(content.replaceAll(/^.*(initial[-_]|force[-_]new[-_])cluster.*\n/gim, ""));

/** How a member starts for the first time: with all others, or into a cluster that runs. */
export interface Beginning {
  /** `initial-cluster` of a member that joins. */
  readonly joining?: string;
}

export async function factsOf(
  context: Context,
  inventory: Inventory,
  member: Member,
  { joining }: Beginning = {},
): Promise<Facts> {
  const paths = hostFiles(inventory, member).map(({ path }) => path);
  const startMs = context.clock.wallMs();
  const out = await runOn(context, member.ssh, scriptFor(inventory, paths));
  const tookMs = context.clock.wallMs() - startMs;
  const lines = out.split("\n").map((line) => line.split("\t"));
  const all = (name: string) => lines.filter(([first]) => first === name).map(([, ...rest]) => rest);
  const one = (name: string) => all(name)[0]?.[0] ?? "";
  const hasData = one("data") === "yes";
  return {
    member,
    files: hostFiles(inventory, member, hasData ? {} : joining === undefined ? { isFounding: true } : { joining }),
    clockAheadMs: Number(one("clock")) - (startMs + tookMs / 2),
    clockErrorMs: tookMs / 2,
    hasSystemd: one("systemd") === "yes",
    hasUser: one("user") === "yes",
    hasProgram: one("program") !== "",
    release: releaseFor(inventory, architectureOf(one("machine"))),
    releases: all("release").map(([id]) => id!),
    linked: one("linked"),
    directories: new Map(all("directory").map(([path, state]) => [path!, state!])),
    present: new Map(all("file").map(([path, state]) => [path!, state!])),
    gists: new Map(all("gist").map(([path, state]) => [path!, state!])),
    hasData,
    hasUnit: one("unit") === "yes",
    isActive: /^(active|activating|reloading)$/.test(one("active")),
    isEnabled: one("enabled") === "enabled",
    needsRestart: one("mark") === "yes",
    freeKiB: Number(one("free")),
    listening: all("port").map(([port]) => Number(port)),
  };
}

function scriptFor(inventory: Inventory, paths: readonly string[]): string {
  const { service, program, user, dataDir, releasesDir, clientPort, peerPort } = inventory;
  const unit = `${service}.service`;
  const tell = (name: string, command: string) => `printf '%s\\t%s\\n' ${name} "$(${command})"\n`;
  const digest = (path: string) => `sha256sum < ${word(path)} | cut -d' ' -f1`;
  return [
    tell("clock", "date +%s%3N"),
    tell("systemd", "[ -d /run/systemd/system ] && echo yes || echo no"),
    tell("user", `id -u ${word(user)} >/dev/null 2>&1 && echo yes || echo no`),
    tell("program", `[ ! -x ${word(program)} ] || echo yes`),
    tell("machine", "uname -m"),
    tell("linked", `readlink ${word(program)} | sed -n ${word(`s|^${releasesDir}/\\([0-9a-f]*\\)/.*|\\1|p`)} || true`),
    `for at in ${word(releasesDir)}/*/bin/etcd; do
  [ -e "$at" ] || continue
  at=\${at%/bin/etcd}
  printf 'release\\t%s\\n' "\${at##*/}"
done
`,
    tell("data", `[ -d ${word(`${dataDir}/member`)} ] && echo yes || echo no`),
    tell("unit", `[ -e ${word(`/etc/systemd/system/${unit}`)} ] && echo yes || echo no`),
    tell("active", `systemctl is-active ${word(unit)} 2>/dev/null || true`),
    tell("enabled", `systemctl is-enabled ${word(unit)} 2>/dev/null || true`),
    tell("mark", `[ -e ${word(restartMark(inventory))} ] && echo yes || echo no`),
    `at=${word(dataDir)}\nwhile [ ! -d "$at" ]; do at=$(dirname "$at"); done\n`,
    tell("free", `df -Pk "$at" | awk 'NR == 2 { print $4 }'`),
    ...directoriesOf(inventory).map(
      (path) =>
        `if [ -d ${word(path)} ]; then printf 'directory\\t%s\\t%s\\n' ${word(path)} "$(stat -c '%a %U' ${word(path)})"; fi\n`,
    ),
    ...paths.map(
      (path) => `if [ -f ${word(path)} ]; then
  printf 'file\\t%s\\t%s %s\\n' ${word(path)} "$(${digest(path)})" "$(stat -c '%a %U' ${word(path)})"
  printf 'gist\\t%s\\t%s\\n' ${word(path)} "$(grep -viE '(initial|force[-_]new)[-_]cluster' ${word(path)} | sha256sum | cut -d' ' -f1)"
fi
`,
    ),
    // Ports in hexadecimal, and only sockets that listen (state 0A).
    ...[clientPort, peerPort].map((port) => {
      const hex = port.toString(16).toUpperCase().padStart(4, "0");
      return `if cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk '$4 == "0A" && $2 ~ /:${hex}$/ { f = 1 } END { exit !f }'; then printf 'port\\t${port}\\n'; fi\n`;
    }),
  ].join("");
}
