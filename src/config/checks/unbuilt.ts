import type { Logger } from "../../base/log.ts";
import { ConfigError } from "../errors.ts";
import { flagSpecs } from "../settings/flags.ts";
import type { Settings } from "../settings/settings.ts";

/**
 * Refuses what is valid for etcd and does not exist here yet, by name, after everything else was checked; and says so
 * when something is set that has no effect. A member must never run with less than it was asked for, silently.
 */
export function refuseUnbuilt(settings: Settings, log: Logger): void {
  for (const spec of flagSpecs) {
    const { status } = spec;
    if (status === undefined || status.state === "honoured" || !settings.isChanged(spec)) continue;
    if (status.state === "not built") refuse(`--${spec.name}`, status.reason);
    else log.warn(`--${spec.name} has no effect: ${status.reason}`);
  }
  for (const gate of settings.features().withoutEffect()) log.warn(`--feature-gates: ${gate} has no effect yet`);
}

function refuse(flag: string, what: string): never {
  throw new ConfigError(
    "unbuilt",
    `${flag} is not supported by this version of kvorum: ${what} is not built yet, see docs/differences.md`,
  );
}
