import type { Logger } from "../../base/log.ts";
import { humanBytes } from "../../base/table.ts";
import { ConfigError } from "../errors.ts";
import { defaultOf } from "../settings/definition.ts";
import { boundOf, definitions } from "../settings/definitions.ts";
import type { Settings } from "../settings/settings.ts";

/**
 * The last checks before a member runs: values that etcd's server corrects or warns about. Throws `ConfigError` of kind
 * `start` for an unknown authentication token type.
 */
export function checkServerValues(settings: Settings, log: Logger): void {
  const requestBytes = settings.get("max-request-bytes");
  const recommended = boundOf("max-request-bytes", "recommendedMax");
  if (requestBytes > recommended) {
    log.warn("exceeded recommended request limit", {
      "max-request-bytes": requestBytes,
      "max-request-size": humanBytes(requestBytes),
      "recommended-request-bytes": recommended,
      "recommended-request-size": humanBytes(recommended),
    });
  }
  checkAuthToken(settings.get("auth-token"), log);
  const cost = settings.get("bcrypt-cost");
  const least = boundOf("bcrypt-cost", "min");
  const most = boundOf("bcrypt-cost", "max");
  if (cost >= least && cost <= most) return;
  const usual = defaultOf(definitions["bcrypt-cost"]);
  log.warn("use default bcrypt cost instead of the invalid given cost", {
    "min-cost": least,
    "max-cost": most,
    "default-cost": usual,
    "given-cost": cost,
  });
  settings.setDefault("bcrypt-cost", usual);
}

/** A type, then options `key=value`, each once. */
function checkAuthToken(text: string, log: Logger): void {
  const [type, ...options] = text.split(",");
  const error = new ConfigError("start", "auth: invalid auth options");
  const keys = options.map((option) => option.split("="));
  const isMalformed = keys.some((pair) => pair.length !== 2) || new Set(keys.map(([key]) => key)).size < keys.length;
  if (isMalformed) {
    log.error("invalid token option", { option: text });
    throw error;
  }
  if (type !== "" && type !== "simple" && type !== "jwt") {
    log.warn("unknown token type", { type, error });
    throw error;
  }
}
