import { ETCD_VERSION } from "../../base/versions.ts";

/** The version of this package; a test holds it equal to package.json. */
export const KVORUM_VERSION = "0.1.0";

/** Go's names of what Node calls by other names; etcd's tools and users know these. */
const GO_OS: Readonly<Record<string, string>> = { win32: "windows", sunos: "solaris" };
const GO_ARCH: Readonly<Record<string, string>> = { x64: "amd64", ia32: "386", ppc64: "ppc64le" };

export const operatingSystem = (): string => GO_OS[process.platform] ?? process.platform;
export const architecture = (): string => GO_ARCH[process.arch] ?? process.arch;

/** What `--version` prints: etcd's first line, so that scripts find it, then what stands in for Go. */
export function versionText(program: string): string {
  return `${program} Version: ${ETCD_VERSION}
kvorum Version: ${KVORUM_VERSION}
Node Version: ${process.version}
OS/Arch: ${operatingSystem()}/${architecture()}
`;
}
