/** Every file that a member's host gets, with owner and mode: what `render` writes and `apply` compares. */
import { readFileSync } from "node:fs";
import { systemText } from "../../base/system-error.ts";
import { DeployError } from "../common/context.ts";
import { readText } from "../common/files.ts";
import type { Inventory, Member } from "../inventory/inventory.ts";
import { authorityPair, type Pair, peerPair, serverPair, sharedPair, trustedBesides } from "../pki/layout.ts";
import { asConfFile, asEnvironment, memberSettings } from "./settings.ts";
import { confPath, environmentPath, unitText } from "./unit.ts";

export interface HostFile {
  /** On the host. */
  readonly path: string;
  readonly content: string;
  readonly mode: number;
  /** The member's user owns it, or root. */
  readonly isUsers: boolean;
}

/** How the member's next start finds its cluster. A member with data knows it, and must not found another one without. */
export interface Start {
  /** With all others of the inventory, none of which has data. */
  readonly isFounding?: boolean;
  /** Into a cluster that runs: its members and this one, as `initial-cluster` has them. */
  readonly joining?: string;
  /** Alone, from the data that it has, and as a new cluster. */
  readonly isAlone?: boolean;
}

/** The certificates have been made. Throws DeployError when one cannot be read. */
export function hostFiles(inventory: Inventory, member: Member, start: Start = {}): HostFile[] {
  const { configDir, service, style, certificates } = inventory;
  const pki = `${configDir}/pki`;
  const place = (name: string): Pair => ({ cert: `${pki}/${name}.crt`, key: `${pki}/${name}.key` });
  const paths = certificates.isShared
    ? { ca: `${pki}/ca.crt`, server: place("etcd"), peer: place("etcd") }
    : { ca: `${pki}/ca.crt`, server: place("server"), peer: place("peer") };
  const settings = memberSettings(inventory, member, {
    listen: [member.address, ...(inventory.loopback && !/^127\.0\.0\.1$/.test(member.address) ? ["127.0.0.1"] : [])],
    hostOf: ({ address }) => address,
    certificates: paths,
    dataDir: inventory.dataDir,
    walDir: inventory.walDir,
    ...start,
  });
  const { dir } = certificates;
  const sources: (readonly [Pair, Pair])[] = certificates.isShared
    ? [[sharedPair(dir), paths.server]]
    : [
        [serverPair(dir, member.name), paths.server],
        [peerPair(dir, member.name), paths.peer],
      ];
  const files: HostFile[] = [
    root(`/etc/systemd/system/${service}.service`, unitText({ inventory, member, settings })),
    { path: paths.ca, content: trustedText(dir), mode: 0o644, isUsers: false },
    ...sources.flatMap(([from, to]): HostFile[] => [
      { path: to.cert, content: contentOf(from.cert), mode: 0o644, isUsers: false },
      { path: to.key, content: contentOf(from.key), mode: 0o600, isUsers: true },
    ]),
  ];
  if (style === "conf") files.push(root(confPath(inventory), asConfFile(settings)));
  if (style === "environment") files.push(root(environmentPath(inventory), asEnvironment(settings)));
  return files;
}

/** Two authorities while one takes the other's place. */
function trustedText(dir: string): string {
  const other = readText(trustedBesides(dir));
  return contentOf(authorityPair(dir).cert) + (other ?? "");
}

const root = (path: string, content: string): HostFile => ({ path, content, mode: 0o644, isUsers: false });

function contentOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new DeployError(`a certificate is missing: ${systemText(error)}`);
  }
}
