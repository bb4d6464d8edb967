import { fileURLToPath } from "node:url";
import type { Clock } from "../../base/clock.ts";
import { openJournalSink } from "../../base/log-journal.ts";
import { createLogger, type StructuredLogger } from "../../base/log-logger.ts";
import { DescriptorSink, FileSink, type LogSink } from "../../base/log-sink.ts";
import { quote } from "../../base/quote.ts";
import { ConfigError } from "../errors.ts";
import type { LogConfig } from "../log-settings.ts";

/** Opens the outputs of a log. Throws `ConfigError` of kind `verify` with etcd's text when one cannot be opened. */
export async function openLog(config: LogConfig, clock: Clock): Promise<StructuredLogger> {
  const sinks: LogSink[] = [];
  for (const output of config.outputs) sinks.push(await openSink(output, config, clock));
  // etcd does not sample the journal either.
  const sampling = !config.outputs.includes("systemd/journal");
  return createLogger({ level: config.level, format: config.format, sinks, clock, sampling, callers: true });
}

/** The log used before the configuration is read: JSON on stderr. */
export function earlyLog(clock: Clock): StructuredLogger {
  return createLogger({ level: "info", format: "json", sinks: [new DescriptorSink(2)], clock, callers: true });
}

async function openSink(output: string, config: LogConfig, clock: Clock): Promise<LogSink> {
  try {
    if (output === "stderr") return new DescriptorSink(2);
    if (output === "stdout") return new DescriptorSink(1);
    if (output === "systemd/journal") return await openJournalSink("etcd");
    const path = filePath(output);
    if (config.rotation === undefined) return new FileSink(path);
    const { RotatingFileSink } = await import("../../base/log-rotation.ts");
    return new RotatingFileSink(path, config.rotation, clock);
  } catch (error) {
    throw new ConfigError(
      "verify",
      output === "systemd/journal" ? (error as Error).message : sinkComplaint(output, error),
    );
  }
}

function filePath(output: string): string {
  const scheme = /^([a-zA-Z][a-zA-Z0-9+.-]*):\/\//.exec(output)?.[1];
  if (scheme === undefined) return output;
  if (scheme === "file") return fileURLToPath(output);
  throw new Error(`no sink found for scheme "${scheme}"`);
}

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: "no such file or directory",
  EACCES: "permission denied",
  EISDIR: "is a directory",
  ENOTDIR: "not a directory",
  EROFS: "read-only file system",
};

function sinkComplaint(output: string, error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  const reason = code === undefined ? message : `open ${output}: ${REASONS[code] ?? message}`;
  return `open sink ${quote(output)}: ${reason}`;
}
