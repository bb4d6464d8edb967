/** A member's settings by the names of etcd's flags, from which a command line, an environment file or a `conf.yml` is written. */
export type Settings = ReadonlyMap<string, string>;

/** `--name=value`, in order. */
export const asFlags = (settings: Settings): string[] => [...settings].map(([name, value]) => `--${name}=${value}`);
