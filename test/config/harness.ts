import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { systemClock } from "../../src/base/clock.ts";
import type { LogFields } from "../../src/base/log.ts";
import { createLogger, type StructuredLogger } from "../../src/base/log-logger.ts";
import type { Config } from "../../src/config/config.ts";
import { ConfigError } from "../../src/config/errors.ts";
import { finishConfig, loadConfig } from "../../src/config/load/load.ts";
import type { SrvResolver } from "../../src/config/machine/srv.ts";

export interface Entry {
  readonly level: string;
  readonly msg: string;
  readonly fields: LogFields;
}

/** A real logger whose lines are kept and read back. */
export function recordingLog(): { log: StructuredLogger; entries: Entry[] } {
  const entries: Entry[] = [];
  const sink = {
    write(line: string) {
      const { level, msg, ts: _, caller: __, ...fields } = JSON.parse(line);
      entries.push({ level, msg, fields });
    },
    sync() {},
    close() {},
  };
  return { log: createLogger({ level: "debug", format: "json", sinks: [sink], clock: systemClock }), entries };
}

export interface Loaded {
  readonly config: Config | undefined;
  readonly error: ConfigError | undefined;
  /** Lines logged before the configured log was opened, and by `finishConfig`. */
  readonly entries: readonly Entry[];
}

/** Runs the program's complete configuration, with a silent log and without the machine's default route. */
export async function load(
  argv: readonly string[],
  env: Readonly<Record<string, string>> = {},
  world: { initialized?: boolean; defaultHost?: () => string; srvResolver?: SrvResolver } = {},
): Promise<Loaded> {
  const { log, entries } = recordingLog();
  // Not at the front: the first word may be one that etcd refuses.
  const quiet = argv.some((argument) => /config-file|log-outputs|^--$/.test(argument))
    ? argv
    : [...argv, "--log-outputs=/dev/null"];
  try {
    const result = await loadConfig({ argv: quiet, env, clock: systemClock, early: log });
    if (result.kind === "failed") return { config: undefined, error: result.error, entries };
    if (result.kind !== "loaded") throw new Error(`asked for ${result.kind}`);
    const config = await finishConfig(result.settings, {
      clock: systemClock,
      log,
      defaultHost: world.defaultHost ?? noRoute,
      isInitialized: () => world.initialized ?? false,
      ...(world.srvResolver === undefined ? {} : { srvResolver: world.srvResolver }),
    });
    return { config, error: undefined, entries };
  } catch (error) {
    if (error instanceof ConfigError) return { config: undefined, error, entries };
    throw error;
  }
}

const noRoute = (): string => {
  throw new Error("could not find default route");
};

/** The configuration for these arguments; fails when they are refused. */
export async function loadConfigOf(
  argv: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Config> {
  const { config, error } = await load(argv, env);
  if (config === undefined) throw error;
  return config;
}

/** etcd's error for these arguments; empty when it accepts them. */
export async function complaintOf(
  argv: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<string> {
  return (await load(argv, env)).error?.message ?? "";
}

export function tempDir(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), "kvorum-config-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** Loads a configuration file with this text. Its log goes to /dev/null unless the text says otherwise. */
export async function loadFile(t: TestContext, text: string | Uint8Array): Promise<Loaded> {
  const path = join(tempDir(t), "etcd.conf.yml");
  writeFileSync(path, text);
  return load([`--config-file=${path}`]);
}
