import { type AutoCompaction, readAutoCompaction } from "./auto-compaction.ts";
import { type LogConfig, readLogSettings } from "./log-settings.ts";
import type { Setting } from "./settings/definition.ts";
import { type Definitions, definitions, type SettingName, type SettingValue } from "./settings/definitions.ts";
import { Settings } from "./settings/settings.ts";
import { FeatureGates } from "./values/feature-gates.ts";

/**
 * The complete configuration of a member: typed and frozen. Times end in `Ms` and are milliseconds, sizes end in
 * `Bytes`. The fields are those named in the definitions (`settings/`), where each is documented; fields derived from
 * several settings are below. Zeros that etcd treats as "default" are already replaced.
 */
export interface Config extends Tree<Fields> {
  readonly autoCompaction: AutoCompaction;
  readonly log: LogConfig;
  /** Expected name in members' certificates instead of the dialled host; empty for the host. */
  readonly peerServerName: string;
}

export type TlsConfig = Config["clientTls"];
export type DiscoveryConfig = Config["discovery"];

type FieldOf<N extends SettingName> = Definitions[N] extends Setting<infer _, infer F> ? F : never;

/** The value of each path named by a definition: `{ "clientTls.certFile": string, … }`. */
type Fields = { readonly [N in SettingName as FieldOf<N> & string]: SettingValue<N> };

/** The same as nested objects. */
type Tree<T> = { readonly [H in Head<keyof T>]: H extends keyof T ? T[H] : Tree<Below<T, H>> };
type Head<K> = K extends `${infer H}.${string}` ? H : K;
type Below<T, H> = { readonly [K in keyof T as K extends `${H & string}.${infer Rest}` ? Rest : never]: T[K] };

/** The default configuration. */
export const defaultConfig: Config = configFromSettings(new Settings());

/** Creates the configuration from validated settings. Throws `ConfigError` of kind `start`. */
export function configFromSettings(settings: Settings): Config {
  const config: Branch = {
    autoCompaction: readAutoCompaction(settings.get("auto-compaction-mode"), settings.get("auto-compaction-retention")),
    log: readLogSettings(settings),
    peerServerName: "",
  };
  for (const name of Object.keys(definitions) as SettingName[]) {
    const definition: Setting = definitions[name];
    if (definition.field !== undefined) put(config, definition.field, fieldValue(definition, settings.get(name)));
  }
  return deepFreeze(config) as unknown as Config;
}

/** A value in the unit of its field. */
function fieldValue({ zeroMeans = 0, times = 1, bounds }: Setting, value: unknown): unknown {
  if (typeof value !== "number") return value;
  return Math.max(value || zeroMeans, bounds?.raisedTo ?? Number.NEGATIVE_INFINITY) * times;
}

interface Branch {
  [key: string]: unknown;
}

function put(root: Branch, path: string, value: unknown): void {
  const keys = path.split(".");
  const last = keys.pop()!;
  let branch = root;
  for (const key of keys) branch = (branch[key] ??= {}) as Branch;
  branch[last] = value;
}

/** Freezes the parts of a configuration; gates are read-only already. */
export function deepFreeze<T extends object>(value: T): T {
  for (const item of Object.values(value)) {
    const isPlain = typeof item === "object" && item !== null && !(item instanceof FeatureGates);
    if (isPlain && !Object.isFrozen(item)) deepFreeze(item);
  }
  return Object.freeze(value);
}
