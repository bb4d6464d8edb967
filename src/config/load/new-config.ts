import { checkTiming } from "../checks/timing.ts";
import { type Config, deepFreeze, defaultConfig } from "../config.ts";
import { ConfigError } from "../errors.ts";
import type { GoValueError } from "../values/go-value.ts";
import { clusterOf, parseUrls, type Url } from "../values/url.ts";

type UrlField = { [K in keyof Config]: Config[K] extends readonly Url[] ? K : never }[keyof Config];

/** Some fields of a `Config`; URLs may be comma-separated texts. */
export type ConfigOverrides = Partial<Omit<Config, UrlField>> & {
  readonly [K in UrlField]?: string | readonly Url[];
};

const urlFields: readonly UrlField[] = [
  "listenPeerUrls",
  "listenClientUrls",
  "listenClientHttpUrls",
  "listenMetricsUrls",
  "advertisePeerUrls",
  "advertiseClientUrls",
];

/**
 * The default configuration with some fields changed, for embedding and for tests: `newConfig({ name: "a", dataDir,
 * listenClientUrls: "http://127.0.0.1:0" })`. Without `initialCluster` the member forms a single-member cluster with
 * its name and peer URLs. Throws `ConfigError` for invalid URLs or times.
 */
export function newConfig(overrides: ConfigOverrides = {}): Config {
  const config: Record<string, unknown> = { ...defaultConfig, ...overrides };
  for (const field of urlFields) if (typeof config[field] === "string") config[field] = parseUrlField(config[field]);
  const made = config as unknown as { -readonly [K in keyof Config]: Config[K] };
  checkTiming(made.tickMs, made.electionMs);
  if (overrides.initialCluster === undefined) made.initialCluster = clusterOf(made.name, made.advertisePeerUrls);
  return deepFreeze(made);
}

function parseUrlField(text: string): Url[] {
  try {
    return text === "" ? [] : parseUrls(text);
  } catch (error) {
    throw new ConfigError("verify", (error as GoValueError).message);
  }
}
