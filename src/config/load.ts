import type { Clock } from "../base/clock.ts";
import { goDuration } from "../base/duration.ts";
import type { Logger } from "../base/log.ts";
import type { StructuredLogger } from "../base/log-logger.ts";
import { quote } from "../base/quote.ts";
import type { Environment } from "../base/systemd.ts";
import { verifyBootstrap } from "./checks/bootstrap.ts";
import { checkListeners } from "./checks/listeners.ts";
import { checkServerValues } from "./checks/server-values.ts";
import { refuseUnbuilt } from "./checks/unbuilt.ts";
import { validateSettings } from "./checks/validate.ts";
import { type Config, clusterOf, configFromSettings } from "./config.ts";
import { ConfigError } from "./errors.ts";
import { openLog } from "./machine/open-log.ts";
import { findClusterBySrv, type SrvResolver, systemSrvResolver } from "./machine/srv.ts";
import { flagSpecByName } from "./settings/flags.ts";
import { readLogSettings } from "./settings/log-settings.ts";
import type { Settings } from "./settings/settings.ts";
import { type CommandLine, readCommandLine } from "./sources/command-line.ts";
import { readConfigFile } from "./sources/config-file.ts";
import { applyEnvironment } from "./sources/environment.ts";
import { parseUrls } from "./values/url.ts";

/**
 * From arguments, environment and file to a `Config`, in etcd's order: first the flags are read; then either the
 * configuration file alone or the environment for what the flags left open; then the log is opened; then the whole is
 * validated. `finishConfig` does what etcd does later, when it knows its data directory.
 */
export type LoadResult =
  | { readonly kind: "help" }
  | { readonly kind: "version" }
  /** `log` is the one configured, if it came that far. */
  | { readonly kind: "failed"; readonly error: ConfigError; readonly log: StructuredLogger }
  | { readonly kind: "loaded"; readonly settings: Settings; readonly log: StructuredLogger };

export interface LoadOptions {
  readonly argv: readonly string[];
  readonly env: Environment;
  readonly clock: Clock;
  /** Takes what is said before the configured log is open. */
  readonly early: StructuredLogger;
}

/** Throws `ConfigError` of kind `flags` when the command line cannot be read; other mistakes are in the result. */
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
    log = await openLog(readLogSettings(settings), options.clock);
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

/** Shortest time that connections between members may be given. */
const PEER_TIMEOUT_MS_MIN = 5000;

function readFlagsAndEnvironment(line: CommandLine, options: LoadOptions): Settings {
  const { settings } = line;
  applyEnvironment(settings, options.env, options.early);
  for (const warning of line.warnings) options.early.warn(warning);
  for (const flag of ["raft-read-timeout", "raft-write-timeout"]) {
    if (settings.number(flag) >= PEER_TIMEOUT_MS_MIN) continue;
    options.early.info(`${flag} increased to minimum value: ${goDuration(PEER_TIMEOUT_MS_MIN)}`);
    settings.setDefault(flag, PEER_TIMEOUT_MS_MIN);
  }
  const [refusal] = line.refusals;
  if (refusal !== undefined) throw new ConfigError("verify", refusal);
  if (settings.text("discovery-fallback") === "proxy") {
    throw new ConfigError("verify", `v2 proxy is deprecated, and --discovery-fallback can't be configured as "proxy"`);
  }
  if (settings.isSet("listen-client-urls") && !settings.isSet("advertise-client-urls")) {
    settings.setDefault("advertise-client-urls", []);
  }
  clearDefaultCluster(settings, settings.isSet("initial-cluster"));
  return settings;
}

function checkFileSettings(settings: Settings): void {
  clearDefaultCluster(settings, settings.text("initial-cluster") !== DEFAULT_CLUSTER);
  if (settings.text("initial-cluster-state") === "") settings.setDefault("initial-cluster-state", "new");
}

const DEFAULT_CLUSTER = flagSpecByName.get("initial-cluster")!.default;

/** Whoever asks for discovery does not mean the default cluster. */
function clearDefaultCluster(settings: Settings, isGiven: boolean): void {
  const discovers =
    settings.text("discovery-srv") !== "" ||
    settings.text("discovery-srv-name") !== "" ||
    settings.strings("discovery-endpoints").length > 0;
  if (discovers && !isGiven) settings.setDefault("initial-cluster", "");
}

function noteDeprecated(settings: Settings, log: Logger): void {
  if (settings.isSet("max-snapshots")) {
    log.warn("--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8.");
  }
  if (settings.isSet("v2-deprecation")) {
    log.warn(
      "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is enforced, ignoring user input.",
    );
  }
}

export interface FinishOptions {
  readonly clock: Clock;
  readonly log: Logger;
  /** Address of the default route; throws when there is none. */
  readonly defaultHost: () => string;
  /** Whether the member has data from an earlier start, so that it needs no bootstrap. */
  readonly isInitialized: (config: Config) => boolean;
  /** For `--discovery-srv`; the system's when absent. */
  readonly srvResolver?: SrvResolver;
}

/**
 * Fills in what depends on the machine and on other settings, verifies the bootstrap of a new member, and refuses last
 * what this build does not have. Throws `ConfigError`.
 */
export async function finishConfig(settings: Settings, options: FinishOptions): Promise<Config> {
  fillAdvertised(settings, options);
  if (settings.text("data-dir") === "") {
    settings.setDefault("data-dir", `${settings.text("name")}.etcd`);
    options.log.warn("'data-dir' was empty; using default", { "data-dir": settings.text("data-dir") });
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
  refuseUnbuilt(settings, options.log);
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
  if (settings.text("name") !== "default" && settings.text("initial-cluster") === DEFAULT_CLUSTER) {
    const urls = settings.urls("initial-advertise-peer-urls");
    settings.setDefault("initial-cluster", clusterOf(settings.text("name"), urls));
  }
  const usedForClients = replaceHost(settings, host, "advertise-client-urls", "listen-client-urls");
  if (usedForPeers || usedForClients) options.log.info("detected default host for advertise", { host });
}

/** Advertises the machine's address instead of localhost, when the member listens on all addresses. */
function replaceHost(settings: Settings, host: string, advertised: string, listened: string): boolean {
  const [first, second] = settings.urls(advertised);
  const [listen] = settings.urls(listened);
  const isDefault = first?.text === flagSpecByName.get(advertised)!.default && second === undefined;
  if (host === "" || !isDefault || listen?.hostname !== "0.0.0.0") return false;
  settings.setDefault(advertised, parseUrls(`${first!.scheme}://${host}:${listen.port}`));
  return true;
}
