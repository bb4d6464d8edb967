import type { Clock } from "../../base/clock.ts";
import { goDuration } from "../../base/duration.ts";
import type { Logger } from "../../base/log.ts";
import type { StructuredLogger } from "../../base/log-logger.ts";
import { quote } from "../../base/quote.ts";
import type { Environment } from "../../base/systemd.ts";
import { verifyBootstrap } from "../checks/bootstrap.ts";
import { checkListeners } from "../checks/listeners.ts";
import { checkServerValues } from "../checks/server-values.ts";
import { validateSettings } from "../checks/validate.ts";
import { warnWithoutEffect } from "../checks/without-effect.ts";
import { type Config, configFromSettings } from "../config.ts";
import { ConfigError } from "../errors.ts";
import { readLogSettings } from "../log-settings.ts";
import { openLog } from "../machine/open-log.ts";
import { findClusterBySrv, type SrvResolver, systemSrvResolver } from "../machine/srv.ts";
import { allSettings, definitions } from "../settings/definitions.ts";
import type { Settings } from "../settings/settings.ts";
import { type CommandLine, readCommandLine } from "../sources/command-line.ts";
import { readConfigFile } from "../sources/config-file.ts";
import { applyEnvironment } from "../sources/environment.ts";
import { clusterOf, parseUrls } from "../values/url.ts";

/**
 * From arguments, environment and file to a `Config`, in etcd's order: read the flags; then either only the
 * configuration file, or the environment for flags that were not given; then open the log; then validate everything.
 * `finishConfig` does what etcd does later, when it knows its data directory.
 */
export type LoadResult =
  | { readonly kind: "help" }
  | { readonly kind: "version" }
  /** `log` is the configured log, if it was opened. */
  | { readonly kind: "failed"; readonly error: ConfigError; readonly log: StructuredLogger }
  | { readonly kind: "loaded"; readonly settings: Settings; readonly log: StructuredLogger };

export interface LoadOptions {
  readonly argv: readonly string[];
  readonly env: Environment;
  readonly clock: Clock;
  /** Receives log lines until the configured log is open. */
  readonly early: StructuredLogger;
  /** Leaves the configured log closed: for a program that only examines the configuration. */
  readonly keepEarlyLog?: boolean;
}

/** Throws `ConfigError` of kind `flags` when the command line cannot be parsed; other errors are in the result. */
export async function loadConfig(options: LoadOptions): Promise<LoadResult> {
  const line = readCommandLine(options.argv);
  if (line.help) return { kind: "help" };
  if (line.stray !== undefined) {
    const error = new ConfigError("verify", `${quote(line.stray)} is not a valid flag`);
    return { kind: "failed", error, log: options.early };
  }
  if (line.version) return { kind: "version" };
  let log = options.early;
  try {
    const path = line.configFile === "" ? (options.env["ETCD_CONFIG_FILE"] ?? "") : line.configFile;
    const settings = path === "" ? readFlagsAndEnvironment(line, options) : await readConfigFile(path, options.early);
    const logSettings = readLogSettings(settings);
    if (!options.keepEarlyLog) log = await openLog(logSettings, options.clock);
    if (path !== "") checkFileSettings(settings);
    validateSettings(settings, log);
    noteDeprecated(settings, log);
    if (path !== "") {
      log.info(
        "loaded server configuration, other configuration command line flags and environment variables will be ignored if provided",
        { path },
      );
    }
    return { kind: "loaded", settings, log };
  } catch (error) {
    if (error instanceof ConfigError) return { kind: "failed", error, log };
    throw error;
  }
}

function readFlagsAndEnvironment(line: CommandLine, options: LoadOptions): Settings {
  const { settings } = line;
  applyEnvironment(settings, options.env, options.early);
  for (const warning of line.warnings) options.early.warn(warning);
  for (const { name, bounds } of allSettings) {
    const least = bounds?.raisedTo;
    if (least === undefined || (settings.get(name) as number) >= least) continue;
    options.early.info(`${name} increased to minimum value: ${goDuration(least)}`);
    settings.setDefault(name, least);
  }
  const [refusal] = line.refusals;
  if (refusal !== undefined) throw new ConfigError("verify", refusal);
  if (settings.get("discovery-fallback") === "proxy") {
    throw new ConfigError("verify", `v2 proxy is deprecated, and --discovery-fallback can't be configured as "proxy"`);
  }
  if (settings.isSet("listen-client-urls") && !settings.isSet("advertise-client-urls")) {
    settings.setDefault("advertise-client-urls", []);
  }
  clearDefaultCluster(settings, settings.isSet("initial-cluster"));
  return settings;
}

function checkFileSettings(settings: Settings): void {
  clearDefaultCluster(settings, settings.get("initial-cluster") !== DEFAULT_CLUSTER);
}

const DEFAULT_CLUSTER = definitions["initial-cluster"].default;

/** With discovery, the default cluster does not apply. */
function clearDefaultCluster(settings: Settings, isGiven: boolean): void {
  const discovers =
    settings.get("discovery-srv") !== "" ||
    settings.get("discovery-srv-name") !== "" ||
    settings.get("discovery-endpoints").length > 0;
  if (discovers && !isGiven) settings.setDefault("initial-cluster", "");
}

function noteDeprecated(settings: Settings, log: Logger): void {
  for (const { name, deprecated } of allSettings) {
    if (deprecated !== undefined && settings.isSet(name)) log.warn(`--${name} ${deprecated}`);
  }
}

export interface FinishOptions {
  readonly clock: Clock;
  readonly log: Logger;
  /** Address of the default route; throws when there is none. */
  readonly defaultHost: () => string;
  /** Whether the member has data from an earlier start and needs no bootstrap. */
  readonly isInitialized: (config: Config) => boolean;
  /** For `--discovery-srv`; the system's when absent. */
  readonly srvResolver?: SrvResolver;
}

/**
 * Fills in values that depend on the machine and on other settings, verifies the bootstrap of a new member, and finally
 * refuses what is not implemented. Throws `ConfigError`.
 */
export async function finishConfig(settings: Settings, options: FinishOptions): Promise<Config> {
  fillAdvertised(settings, options);
  if (settings.get("data-dir") === "") {
    settings.setDefault("data-dir", `${settings.get("name")}.etcd`);
    options.log.warn("'data-dir' was empty; using default", { "data-dir": settings.get("data-dir") });
  }
  checkServerValues(settings, options.log);
  let config = configFromSettings(settings);
  checkListeners(config);
  if (!options.isInitialized(config)) {
    if (config.discovery.srv !== "") {
      const found = await findClusterBySrv(config, options.srvResolver ?? systemSrvResolver, options.log);
      config = Object.freeze({ ...config, ...found });
    }
    await verifyBootstrap(config, options);
  }
  warnWithoutEffect(settings, options.log);
  return config;
}

function fillAdvertised(settings: Settings, options: FinishOptions): void {
  let host = "";
  try {
    host = options.defaultHost();
  } catch (error) {
    options.log.info("failed to detect default host", { error });
  }
  const usedForPeers = replaceHost(settings, host, "initial-advertise-peer-urls", "listen-peer-urls");
  if (settings.get("name") !== "default" && settings.get("initial-cluster") === DEFAULT_CLUSTER) {
    const urls = settings.get("initial-advertise-peer-urls");
    settings.setDefault("initial-cluster", clusterOf(settings.get("name"), urls));
  }
  const usedForClients = replaceHost(settings, host, "advertise-client-urls", "listen-client-urls");
  if (usedForPeers || usedForClients) options.log.info("detected default host for advertise", { host });
}

type UrlSetting = "initial-advertise-peer-urls" | "listen-peer-urls" | "advertise-client-urls" | "listen-client-urls";

/** Advertises the machine's address instead of localhost, if the member listens on all addresses. */
function replaceHost(settings: Settings, host: string, advertised: UrlSetting, listened: UrlSetting): boolean {
  const [first, second] = settings.get(advertised);
  const [listen] = settings.get(listened);
  const isDefault = first?.text === definitions[advertised].default && second === undefined;
  if (host === "" || !isDefault || listen?.hostname !== "0.0.0.0") return false;
  settings.setDefault(advertised, parseUrls(`${first!.scheme}://${host}:${listen.port}`));
  return true;
}
