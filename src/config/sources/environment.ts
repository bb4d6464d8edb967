import type { Logger } from "../../base/log.ts";
import { quote } from "../../base/quote.ts";
import type { Environment } from "../../base/systemd.ts";
import { ConfigError } from "../errors.ts";
import { environmentName, findFlag, flagSettings } from "../settings/definitions.ts";
import type { Settings } from "../settings/settings.ts";
import { GoValueError } from "../values/go-value.ts";
import { legacyFlags } from "./legacy-flags.ts";

/**
 * Sets every flag that was not given on the command line from its environment variable `ETCD_…`. A flag overrides its
 * variable.
 *
 * One deliberate difference from etcd 3.4 and later: when both are given, etcd stops with an error; here, as in etcd
 * 3.3, the variable is ignored with a warning, because unit files with an EnvironmentFile and flags that repeat it are
 * common.
 */
export function applyEnvironment(settings: Settings, env: Environment, log: Logger): void {
  const fromCommandLine = new Set<string>(flagSettings.map(({ name }) => name).filter((name) => settings.isSet(name)));
  const used = new Set<string>();
  const failure = setFromEnvironment(settings, env, log, fromCommandLine, used);
  reportUnused(env, log, fromCommandLine, used);
  if (failure !== undefined) throw failure;
}

/** Returns the last variable that could not be parsed, which is the one etcd reports. */
function setFromEnvironment(
  settings: Settings,
  env: Environment,
  log: Logger,
  fromCommandLine: ReadonlySet<string>,
  used: Set<string>,
): ConfigError | undefined {
  const version = env["ETCD_VERSION"] ?? "";
  if (version !== "") {
    log.warn("cannot set special environment variable", { key: "ETCD_VERSION", value: version });
    used.add("ETCD_VERSION");
  }
  let failure: ConfigError | undefined;
  for (const flag of variableFlags) {
    const key = environmentName(flag);
    const value = env[key] ?? "";
    if (fromCommandLine.has(flag) || value === "") continue;
    used.add(key);
    try {
      const setting = findFlag(flag);
      if (setting !== undefined) settings.set(setting.name, value);
      const shown = setting?.secret === true ? "********" : value;
      log.info("recognized and used environment variable", { "variable-name": key, "variable-value": shown });
    } catch (error) {
      if (!(error instanceof GoValueError)) throw error;
      failure = new ConfigError("verify", `invalid value ${quote(value)} for ${key}: ${error.message}`);
    }
  }
  return failure;
}

/** The flags that etcd reads from the environment, in its order, including those it ignores. */
const variableFlags: readonly string[] = [
  ...flagSettings.map(({ name }) => name),
  ...[...legacyFlags].filter(([, flag]) => flag.state === "ignored").map(([name]) => name),
].sort();

function reportUnused(
  env: Environment,
  log: Logger,
  fromCommandLine: ReadonlySet<string>,
  used: ReadonlySet<string>,
): void {
  const shadowed = new Set([...fromCommandLine].map(environmentName));
  for (const [key, value] of Object.entries(env)) {
    if (used.has(key)) continue;
    if (shadowed.has(key)) {
      log.warn(`recognized environment variable ${key}, but unused: shadowed by corresponding flag`, {
        "environment-variable": key,
      });
    } else if (key.startsWith("ETCD_")) {
      log.warn("unrecognized environment variable", { "environment-variable": `${key}=${value}` });
    }
  }
}
