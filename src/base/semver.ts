/** Versions as etcd writes them: `MAJOR.MINOR.PATCH`, with an optional `-pre.release` and `+metadata`. Source: semver.org 2.0.0. */
export interface Version {
  readonly major: number;
  readonly minor: number;
  readonly patch: number;
  /** `rc.1`; empty for a release, which ranks above all its pre-releases. */
  readonly preRelease: string;
}

const PATTERN = /^(\d+)\.(\d+)\.(\d+)(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?$/;

/** Undefined for anything that is not three numbers with dots between. */
export function parseVersion(text: string): Version | undefined {
  const [, major, minor, patch, preRelease = ""] = PATTERN.exec(text) ?? [];
  if (major === undefined) return undefined;
  return { major: Number(major), minor: Number(minor), patch: Number(patch), preRelease };
}

/** Negative when `a` is lower than `b`, positive when it is higher. */
export function compareVersions(a: Version, b: Version): number {
  return a.major - b.major || a.minor - b.minor || a.patch - b.patch || comparePreReleases(a.preRelease, b.preRelease);
}

/** The first release of the same minor version; members of a cluster agree on it. */
export function minorVersion({ major, minor }: Pick<Version, "major" | "minor">): Version {
  return { major, minor, patch: 0, preRelease: "" };
}

export function formatVersion({ major, minor, patch, preRelease }: Version): string {
  return `${major}.${minor}.${patch}${preRelease === "" ? "" : `-${preRelease}`}`;
}

/** `3.7` of `3.7.1`, as logs and metrics show cluster versions. */
export function shortVersion(text: string): string {
  return text.split(".").slice(0, 2).join(".");
}

function comparePreReleases(a: string, b: string): number {
  if (a === b) return 0;
  if (a === "" || b === "") return a === "" ? 1 : -1;
  const left = a.split(".");
  const right = b.split(".");
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const order = compareIdentifiers(left[i], right[i]);
    if (order !== 0) return order;
  }
  return 0;
}

/** Numbers by value and below words; words by their bytes; a shorter list below its continuation. */
function compareIdentifiers(a: string | undefined, b: string | undefined): number {
  if (a === undefined || b === undefined) return a === undefined ? -1 : 1;
  const isNumber = [/^\d+$/.test(a), /^\d+$/.test(b)] as const;
  if (isNumber[0] && isNumber[1]) return Number(a) - Number(b);
  if (isNumber[0] !== isNumber[1]) return isNumber[0] ? -1 : 1;
  return a < b ? -1 : a > b ? 1 : 0;
}
