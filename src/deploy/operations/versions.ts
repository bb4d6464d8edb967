/** Which version a program is of, and which way between versions a cluster can go. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { compareVersions, parseVersion, type Version } from "../../base/semver.ts";
import { type Context, DeployError } from "../common/context.ts";
import { releaseFor } from "../hosts/releases.ts";
import type { Inventory } from "../inventory/inventory.ts";

export type Move = "upgrade" | "downgrade" | "switch-engine";

const VERSION_MS = 10_000;
const execute = promisify(execFile);

export const minorOf = (version: string): number => known(version).minor;

/** Undefined when it can be done; else why not, and what to do. Source: etcd's upgrade and downgrade guides. */
export function isAllowed(move: Move, versions: readonly string[], target: string): string | undefined {
  const to = known(target);
  for (const version of versions) {
    const from = known(version);
    const minors = to.minor - from.minor;
    if (from.major !== to.major) return `members run ${version}: there is no way from there to ${target}`;
    if (Math.abs(minors) > 1)
      return `members run ${version}: etcd goes one minor version at a time, so go to ${from.major}.${from.minor + Math.sign(minors)} first`;
    if (move === "upgrade" && compareVersions(to, from) < 0)
      return `members run ${version}, which is newer than ${target}: that is a downgrade (kvorum cluster downgrade)`;
    if (move === "downgrade" && compareVersions(to, from) > 0)
      return `members run ${version}, which is older than ${target}: that is an upgrade (kvorum cluster upgrade)`;
    if (move === "switch-engine" && minors !== 0)
      return `members run ${version}, and the other engine is of version ${target}: upgrade or downgrade first, so that only one thing changes at a time`;
  }
  return undefined;
}

/** Of the program that the inventory has copied. Throws DeployError when it does not tell. */
export async function versionOfRelease(
  { env }: Context,
  inventory: Inventory,
  given: string | undefined,
): Promise<string> {
  if (given !== undefined) {
    known(given);
    return given;
  }
  const release = releaseFor(inventory, process.arch);
  if (release === undefined) throw new DeployError("name the program or archive to go to");
  const { path, isArchive } = release;
  const [, named] = /etcd-v(\d+\.\d+\.\d+[^/]*?)-linux/.exec(path) ?? [];
  const run = (file: string, args: readonly string[]) =>
    execute(file, args, { timeout: VERSION_MS, env: { ...env } }).then(
      ({ stdout }) => stdout,
      () => "",
    );
  const said = isArchive
    ? await run("tar", ["-xzOf", path, "--wildcards", "*/VERSION"])
    : /^etcd Version: (\S+)$/m.exec(await run(path, ["--version"]))?.[1];
  const version = said?.trim() || named;
  if (version !== undefined && parseVersion(version) !== undefined) return version;
  throw new DeployError(`${path} does not tell its version: give it with --version, such as --version 3.7.1`);
}

function known(text: string): Version {
  const version = parseVersion(text);
  if (version === undefined) throw new DeployError(`${text} is not a version such as 3.7.1`);
  return version;
}
