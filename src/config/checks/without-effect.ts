import type { Logger } from "../../base/log.ts";
import { allSettings } from "../settings/definitions.ts";
import type { Settings } from "../settings/settings.ts";

/** Warns about settings without effect: a member must never silently run with less than configured. */
export function warnWithoutEffect(settings: Settings, log: Logger): void {
  for (const { name, status } of allSettings) {
    if (status?.state === "no effect" && settings.isChanged(name)) {
      log.warn(`--${name} has no effect: ${status.reason}`);
    }
  }
  for (const gate of settings.get("feature-gates").withoutEffect())
    log.warn(`--feature-gates: ${gate} has no effect yet`);
}
