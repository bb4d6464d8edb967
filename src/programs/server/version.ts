import { ETCD_VERSION } from "../../base/versions.ts";

/** The version of this package; a test compares it with package.json. */
export const KVORUM_VERSION = "0.1.0";

/** Go's names where Node's differ; etcd's tools and users know these. */
const GO_OS: Readonly<Record<string, string>> = { win32: "windows", sunos: "solaris" };
const GO_ARCH: Readonly<Record<string, string>> = { x64: "amd64", ia32: "386", ppc64: "ppc64le" };

export const operatingSystem = (): string => GO_OS[process.platform] ?? process.platform;
export const architecture = (): string => GO_ARCH[process.arch] ?? process.arch;

/** The output of `--version`: etcd's first line, which scripts look for, then this program's counterpart of Go's. */
export function versionText(program: string): string {
  return `${program} Version: ${ETCD_VERSION}
kvorum Version: ${KVORUM_VERSION}
Node Version: ${process.version}
OS/Arch: ${operatingSystem()}/${architecture()}
`;
}
