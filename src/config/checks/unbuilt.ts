import type { Logger } from "../../base/log.ts";
import { ConfigError } from "../errors.ts";
import { allSettings } from "../settings/definitions.ts";
import type { Settings } from "../settings/settings.ts";

/**
 * Refuses, by name, settings that are valid in etcd but not implemented here, after all other checks; warns about
 * settings without effect. A member must never silently run with less than configured.
 */
export function refuseUnbuilt(settings: Settings, log: Logger): void {
  for (const { name, status } of allSettings) {
    if (status === undefined || !settings.isChanged(name)) continue;
    if (status.state === "not built") refuse(`--${name}`, status.reason);
    if (status.state === "no effect") log.warn(`--${name} has no effect: ${status.reason}`);
  }
  for (const gate of settings.get("feature-gates").withoutEffect())
    log.warn(`--feature-gates: ${gate} has no effect yet`);
}

function refuse(flag: string, what: string): never {
  throw new ConfigError(
    "unbuilt",
    `${flag} is not supported by this version of kvorum: ${what} is not built yet, see docs/differences.md`,
  );
}
