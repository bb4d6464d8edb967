/** What a host is like, found in one visit that changes nothing. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { systemText } from "../../base/system-error.ts";
import { type Context, DeployError } from "../common/context.ts";
import type { Inventory, Member } from "../inventory/inventory.ts";
import { type HostFile, hostFiles } from "../render/host.ts";
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
  readonly programDigest: string;
  readonly directories: ReadonlyMap<string, string>;
  /** Path of a file that is there -> digest, mode and owner, as `expectation` writes them. */
  readonly present: ReadonlyMap<string, string>;
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

export interface LocalProgram {
  readonly content: Buffer;
  readonly digest: string;
}

/** The local program that is copied; undefined when the inventory names none. Throws DeployError. */
export function programToCopy({ copy }: Inventory): LocalProgram | undefined {
  if (copy === undefined) return undefined;
  try {
    const content = readFileSync(copy);
    return { content, digest: digestOf(content) };
  } catch (error) {
    throw new DeployError(`the program to copy: ${systemText(error)}`);
  }
}

export async function factsOf(context: Context, inventory: Inventory, member: Member): Promise<Facts> {
  const files = hostFiles(inventory, member);
  const startMs = context.clock.wallMs();
  const out = await runOn(context, member.ssh, scriptFor(inventory, files));
  const tookMs = context.clock.wallMs() - startMs;
  const lines = out.split("\n").map((line) => line.split("\t"));
  const all = (name: string) => lines.filter(([first]) => first === name).map(([, ...rest]) => rest);
  const one = (name: string) => all(name)[0]?.[0] ?? "";
  return {
    member,
    files,
    clockAheadMs: Number(one("clock")) - (startMs + tookMs / 2),
    clockErrorMs: tookMs / 2,
    hasSystemd: one("systemd") === "yes",
    hasUser: one("user") === "yes",
    hasProgram: one("program") !== "",
    programDigest: one("program"),
    directories: new Map(all("directory").map(([path, state]) => [path!, state!])),
    present: new Map(all("file").map(([path, state]) => [path!, state!])),
    hasData: one("data") === "yes",
    hasUnit: one("unit") === "yes",
    isActive: /^(active|activating|reloading)$/.test(one("active")),
    isEnabled: one("enabled") === "enabled",
    needsRestart: one("mark") === "yes",
    freeKiB: Number(one("free")),
    listening: all("port").map(([port]) => Number(port)),
  };
}

function scriptFor(inventory: Inventory, files: readonly HostFile[]): string {
  const { service, program, user, dataDir, clientPort, peerPort } = inventory;
  const unit = `${service}.service`;
  const tell = (name: string, command: string) => `printf '%s\\t%s\\n' ${name} "$(${command})"\n`;
  const digest = (path: string) => `sha256sum < ${word(path)} | cut -d' ' -f1`;
  return [
    tell("clock", "date +%s%3N"),
    tell("systemd", "[ -d /run/systemd/system ] && echo yes || echo no"),
    tell("user", `id -u ${word(user)} >/dev/null 2>&1 && echo yes || echo no`),
    tell("program", `if [ -x ${word(program)} ]; then ${digest(program)}; fi`),
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
    ...files.map(
      ({ path }) =>
        `if [ -f ${word(path)} ]; then printf 'file\\t%s\\t%s %s\\n' ${word(path)} "$(${digest(path)})" "$(stat -c '%a %U' ${word(path)})"; fi\n`,
    ),
    // Ports in hexadecimal, and only sockets that listen (state 0A).
    ...[clientPort, peerPort].map((port) => {
      const hex = port.toString(16).toUpperCase().padStart(4, "0");
      return `if cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk '$4 == "0A" && $2 ~ /:${hex}$/ { f = 1 } END { exit !f }'; then printf 'port\\t${port}\\n'; fi\n`;
    }),
  ].join("");
}
