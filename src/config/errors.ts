/**
 * What can be wrong with a configuration, by the moment at which etcd finds it, because that decides how it is told:
 * - `flags`: the command line cannot be read. Text and usage on stderr, exit 2.
 * - `verify`: a value or a combination is wrong. Logged as "failed to verify flags", exit 1.
 * - `start`: only a new member minds (its bootstrap). Logged as "discovery failed", exit 1.
 * - `unbuilt`: valid for etcd, but a part of kvorum that does not exist yet. Logged like `verify`, exit 1.
 */
export type ConfigErrorKind = "flags" | "verify" | "start" | "unbuilt";

export class ConfigError extends Error {
  override name = "ConfigError";
  readonly code: ConfigErrorKind;

  constructor(code: ConfigErrorKind, message: string) {
    super(message);
    this.code = code;
  }
}

/** The one error that etcd names a second time in its log. */
export const UNSET_ADVERTISE_CLIENT_URLS =
  "--advertise-client-urls is required when --listen-client-urls is set explicitly";
