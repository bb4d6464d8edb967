import { chownSync } from "node:fs";

const NOBODY = 65534;

/**
 * Runs `body` as an unprivileged user: as `nobody`, when the tests run as root. Gives that user `paths`. No other test
 * of the same process may run meanwhile.
 */
export async function asOrdinaryUser(paths: readonly string[], body: () => void | Promise<void>): Promise<void> {
  const { geteuid, getegid, seteuid, setegid } = process;
  if (geteuid?.() !== 0) return body();
  const group = getegid!();
  for (const path of paths) chownSync(path, NOBODY, NOBODY);
  setegid!(NOBODY);
  seteuid!(NOBODY);
  try {
    await body();
  } finally {
    seteuid!(0);
    setegid!(group);
  }
}
