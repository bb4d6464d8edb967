import { readdirSync } from "node:fs";
import { join } from "node:path";
import { systemClock } from "../../base/clock.ts";
import type { StructuredLogger } from "../../base/log-logger.ts";
import { type Environment, systemdNotifier } from "../../base/systemd.ts";
import type { Config } from "../../config/config.ts";
import { ConfigError, UNSET_ADVERTISE_CLIENT_URLS } from "../../config/errors.ts";
import { flagsHelp, usage } from "../../config/help.ts";
import { finishConfig, loadConfig } from "../../config/load/load.ts";
import { findDefaultHost } from "../../config/machine/default-host.ts";
import { earlyLog } from "../../config/machine/open-log.ts";
import type { Settings } from "../../config/settings/settings.ts";
import { urlTexts } from "../../config/values/url.ts";
import { failedStartOf } from "./ends.ts";
import type { Member } from "./member.ts";
import { ProcessEnd } from "./process-end.ts";
import { readyLine, wantsReadyLine } from "./ready-line.ts";
import { logStart } from "./start-log.ts";
import { architecture, operatingSystem, versionText } from "./version.ts";

/**
 * The server program: from the command line to a running member and its end. Logs what etcd logs, notifies systemd when
 * it serves, and uses etcd's exit codes: 2 for invalid flags, 1 for a failed configuration or start, and the signal
 * itself after a signal. The server code is loaded only after these checks.
 *
 * Resolves with the exit code when no member was started, otherwise with undefined: the member keeps the process alive
 * until a signal or a failure ends it.
 */
export async function runServer(argv: readonly string[], env: Environment): Promise<number | undefined> {
  const early = earlyLog(systemClock);
  try {
    const loaded = await loadConfig({ argv, env, clock: systemClock, early });
    switch (loaded.kind) {
      case "help":
        process.stderr.write(`${usage}\n`);
        process.stdout.write(flagsHelp());
        return 0;
      case "version":
        process.stdout.write(versionText("etcd"));
        return 0;
      case "failed":
        logArguments(loaded.log, argv);
        logFailedFlags(loaded.log, loaded.error);
        return 1;
      case "loaded": {
        logArguments(loaded.log, argv);
        return await finishAndRun(loaded.settings, loaded.log, env);
      }
    }
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    process.stderr.write(`${error.message}\n${usage}\n`);
    return 2;
  }
}

async function finishAndRun(settings: Settings, log: StructuredLogger, env: Environment): Promise<number | undefined> {
  const main = log.named({ caller: "etcdmain/etcd" });
  let config: Config;
  try {
    config = await finishConfig(settings, {
      clock: systemClock,
      log: main,
      defaultHost: findDefaultHost,
      isInitialized,
    });
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    reportConfigError(log, error);
    return 1;
  }
  return await run(config, log, env);
}

function logArguments(log: StructuredLogger, argv: readonly string[]): void {
  log.named({ caller: "etcdmain/etcd" }).info("Running: ", { args: ["etcd", ...argv] });
}

function logFailedFlags(log: StructuredLogger, error: ConfigError): void {
  const main = log.named({ caller: "etcdmain/etcd" });
  main.warn("failed to verify flags", { error });
  if (error.message === UNSET_ADVERTISE_CLIENT_URLS) main.warn("advertise client URLs are not set", { error });
  log.sync();
}

function reportConfigError(log: StructuredLogger, error: ConfigError): void {
  if (error.kind === "start") log.named({ caller: "etcdmain/etcd" }).fatal("discovery failed", { error });
  else logFailedFlags(log, error);
}

/** A member with a write-ahead log ran here before. */
function isInitialized(config: Config): boolean {
  const walDir = config.walDir === "" ? join(config.dataDir, "member", "wal") : config.walDir;
  return namesIn(walDir).some((name) => name.endsWith(".wal"));
}

async function run(config: Config, log: StructuredLogger, env: Environment): Promise<number | undefined> {
  const main = log.named({ caller: "etcdmain/etcd" });
  checkDataDir(config.dataDir, main);
  logStart(config, isInitialized(config), log.named({ caller: "embed/etcd" }));
  const end = new ProcessEnd(main);
  const systemd = systemdNotifier(env);
  const code = await import("./member.ts").catch((error: unknown) => error as Error);
  if (code instanceof Error) {
    main.fatal("the server's code cannot be loaded", { error: unloadable(code) });
    return 1;
  }
  let member: Member | undefined;
  const close = async (): Promise<void> => await member?.close();
  const onRemoved = (): void => end.leave(close);
  try {
    member = await code.startMember(config, log, (error) => end.fail(error), onRemoved);
  } catch (error) {
    if ((error as Error).name === "DiscoveryError") logFailedDiscovery(config, error as Error, main);
    else logFailedStart(error as Error, main);
    // Resources opened before the failure may keep the process alive.
    process.exit(1);
  }
  end.onSignal(async () => {
    await systemd.notify("STOPPING=1").catch(() => false);
    const embed = log.named({ caller: "embed/etcd" });
    const fields = {
      name: config.name,
      "data-dir": config.dataDir,
      "advertise-peer-urls": urlTexts(config.advertisePeerUrls),
      "advertise-client-urls": urlTexts(config.advertiseClientUrls),
    };
    embed.info("closing etcd server", fields);
    await close();
    embed.info("closed etcd server", fields);
    log.sync();
  });
  await notifyReady(systemd, log);
  if (wantsReadyLine(env)) await tellPeople(member, env);
  return undefined;
}

/** Printed as the last line: it waits for the log lines of a new cluster. */
async function tellPeople(member: Member, env: Environment): Promise<void> {
  for (let waits = 0; waits < SETTLE_WAITS_MAX && !member.isSettled; waits++) await pause(SETTLE_WAIT_MS);
  await pause(SETTLE_WAIT_MS);
  process.stderr.write(readyLine(member.clientAddresses, env));
}

const SETTLE_WAIT_MS = 100;
const SETTLE_WAITS_MAX = 30;

const pause = (ms: number): Promise<void> => new Promise((resolve) => systemClock.after(ms, resolve));

/** Native code is installed for one platform; npm's message does not give this reason. */
function unloadable(error: Error): string {
  const [reason] = error.message.split("\n");
  return (
    `${reason}. The storage engine is a package with a binary for each platform: install the packages on this machine ` +
    `(${operatingSystem()}/${architecture()}), with the optional ones among them ("npm ci" without --omit=optional); ` +
    "docs/platforms.md has the platforms"
  );
}

function logFailedStart(error: Error, log: StructuredLogger): void {
  const { message, advice } = failedStartOf(error);
  log.fatal(message, { error, ...(advice === undefined ? {} : { "what-to-do": advice, stacktrace: error.stack }) });
}

function logFailedDiscovery(config: Config, error: Error, log: StructuredLogger): void {
  log.warn("failed to bootstrap; discovery token was already used", {
    "discovery-token": config.discovery.token,
    "discovery-endpoints": config.discovery.endpoints,
    error,
  });
  log.warn("do not reuse discovery token; generate a new one to bootstrap a cluster");
  log.sync();
}

async function notifyReady(systemd: ReturnType<typeof systemdNotifier>, log: StructuredLogger): Promise<void> {
  const main = log.named({ caller: "etcdmain/main" });
  main.info("notifying init daemon");
  try {
    await systemd.notify("READY=1");
    main.info("successfully notified init daemon");
  } catch (error) {
    main.error("failed to notify systemd for readiness", { error: error as Error });
  }
}

/** Logs unexpected files in the data directory, and whether this is the member's first start. */
function checkDataDir(dataDir: string, log: StructuredLogger): void {
  const names = namesIn(dataDir);
  for (const filename of names) {
    if (filename === "member") continue;
    log.warn("found invalid file under data directory", { filename, "data-dir": dataDir });
  }
  if (names.includes("member")) {
    log.info("server has already been initialized", { "data-dir": dataDir, "dir-type": "member" });
  } else {
    log.info("Initialize and start etcd server", { "data-dir": dataDir, "dir-type": "empty" });
  }
}

/** Empty when the directory is absent or unreadable: the start then reports the reason and the advice. */
function namesIn(dir: string): string[] {
  try {
    return readdirSync(dir);
  } catch {
    return [];
  }
}
