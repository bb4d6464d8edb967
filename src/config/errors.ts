import { KvorumError } from "../base/errors.ts";

/**
 * Errors of a configuration, by the moment at which etcd detects them, which decides how they are reported:
 * - `flags`: the command line cannot be read. Text and usage on stderr, exit 2.
 * - `verify`: a value or a combination is invalid. Logged as "failed to verify flags", exit 1.
 * - `start`: matters only to a new member (its bootstrap). Logged as "discovery failed", exit 1.
 */
export type ConfigErrorKind = "flags" | "verify" | "start";

export class ConfigError extends KvorumError {
  override name = "ConfigError";
  readonly code: string;
  readonly kind: ConfigErrorKind;

  constructor(kind: ConfigErrorKind, message: string) {
    super(message);
    this.kind = kind;
    this.code = `ERR_CONFIG_${kind.toUpperCase()}`;
  }
}

/** The only error that etcd logs a second time under its own name. */
export const UNSET_ADVERTISE_CLIENT_URLS =
  "--advertise-client-urls is required when --listen-client-urls is set explicitly";
