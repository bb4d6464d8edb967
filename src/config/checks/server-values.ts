import type { Logger } from "../../base/log.ts";
import { ConfigError } from "../errors.ts";
import type { Settings } from "../settings/settings.ts";

/** Above this etcd warns: the store is made for small values. */
const RECOMMENDED_REQUEST_BYTES = 10 * 1024 * 1024;

const BCRYPT_COST_MIN = 4;
const BCRYPT_COST_MAX = 31;
const BCRYPT_COST_DEFAULT = 10;

/**
 * The last checks before a member runs: values that etcd's server corrects or warns of when it takes them.
 * Throws `ConfigError` of kind `start` for an authentication token that nobody knows.
 */
export function checkServerValues(settings: Settings, log: Logger): void {
  const requestBytes = settings.number("max-request-bytes");
  if (requestBytes > RECOMMENDED_REQUEST_BYTES) {
    log.warn("exceeded recommended request limit", {
      "max-request-bytes": requestBytes,
      "max-request-size": humanSize(requestBytes),
      "recommended-request-bytes": RECOMMENDED_REQUEST_BYTES,
      "recommended-request-size": humanSize(RECOMMENDED_REQUEST_BYTES),
    });
  }
  checkAuthToken(settings.text("auth-token"), log);
  const cost = settings.number("bcrypt-cost");
  if (cost < BCRYPT_COST_MIN || cost > BCRYPT_COST_MAX) {
    log.warn("use default bcrypt cost instead of the invalid given cost", {
      "min-cost": BCRYPT_COST_MIN,
      "max-cost": BCRYPT_COST_MAX,
      "default-cost": BCRYPT_COST_DEFAULT,
      "given-cost": cost,
    });
    settings.setDefault("bcrypt-cost", BCRYPT_COST_DEFAULT);
  }
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

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/** "2.1 GB", "10 MB": decimal units, one decimal below ten. */
function humanSize(bytes: number): string {
  if (bytes < 10) return `${bytes} B`;
  const power = Math.min(Math.floor(Math.log10(bytes) / 3), UNITS.length - 1);
  const value = Math.floor((bytes / 1000 ** power) * 10 + 0.5) / 10;
  return `${value < 10 ? value.toFixed(1) : value.toFixed(0)} ${UNITS[power]}`;
}
