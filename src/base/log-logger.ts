import type { Clock } from "./clock.ts";
import type { LogFields, Logger, LogLevel } from "./log.ts";
import { callerOf } from "./log-caller.ts";
import { encodeRecord, type LogFormat } from "./log-encode.ts";
import type { LogSink } from "./log-sink.ts";

/**
 * The logger of the programs: filters by level, encodes, and hands each line to its sinks before the call returns. A
 * call below the level costs one comparison. Repeats are sampled as etcd's zap samples them: of the same message at the
 * same level, the first hundred in a second are written, then every hundredth, so that a storm cannot fill the disk.
 */
export interface StructuredLogger extends Logger {
  readonly level: LogLevel;
  /** Takes effect at once, for this logger and all loggers named from it. */
  setLevel(level: LogLevel): void;
  log(level: LogLevel, message: string, fields?: LogFields): void;
  /** Writes and syncs. The caller ends the process. */
  fatal(message: string, fields?: LogFields): void;
  /** The same output under a logger name ("raft") or caller ("etcdmain/etcd") on each line. */
  named(labels: LogLabels): StructuredLogger;
  /** Makes the lines written so far durable. */
  sync(): void;
  close(): void;
}

export interface LogLabels {
  readonly name?: string;
  readonly caller?: string;
}

export interface LoggerOptions {
  readonly level: LogLevel;
  readonly format: LogFormat;
  readonly sinks: readonly LogSink[];
  readonly clock: Clock;
  readonly labels?: LogLabels;
  /** Puts the name of the calling function as the caller into lines without one; off by default. */
  readonly callers?: boolean;
  /** Samples repeats; on by default. */
  readonly sampling?: boolean;
}

const RANK: Readonly<Record<LogLevel, number>> = {
  debug: 0,
  info: 1,
  warn: 2,
  error: 3,
  dpanic: 4,
  panic: 5,
  fatal: 6,
};

export function createLogger(options: LoggerOptions): StructuredLogger {
  return new SinkLogger(new Output(options), options.labels ?? {});
}

/** State shared by the loggers named from one another. */
class Output {
  level: LogLevel;
  rank: number;
  readonly format: LogFormat;
  readonly sinks: readonly LogSink[];
  readonly clock: Clock;
  readonly sampler: Sampler | undefined;
  readonly callers: boolean;

  constructor(options: LoggerOptions) {
    this.level = options.level;
    this.rank = RANK[options.level];
    this.format = options.format;
    this.sinks = options.sinks;
    this.clock = options.clock;
    this.callers = options.callers === true;
    this.sampler = options.sampling === false ? undefined : new Sampler();
  }
}

class SinkLogger implements StructuredLogger {
  readonly #output: Output;
  readonly #name: string;
  readonly #caller: string;

  constructor(output: Output, labels: LogLabels) {
    this.#output = output;
    this.#name = labels.name ?? "";
    this.#caller = labels.caller ?? "";
  }

  get level(): LogLevel {
    return this.#output.level;
  }

  get debugEnabled(): boolean {
    return this.#output.rank === 0;
  }

  setLevel(level: LogLevel): void {
    this.#output.level = level;
    this.#output.rank = RANK[level];
  }

  debug(message: string, fields?: LogFields): void {
    if (this.#output.rank <= 0) this.#write(this.debug, "debug", message, fields);
  }

  info(message: string, fields?: LogFields): void {
    if (this.#output.rank <= 1) this.#write(this.info, "info", message, fields);
  }

  warn(message: string, fields?: LogFields): void {
    if (this.#output.rank <= 2) this.#write(this.warn, "warn", message, fields);
  }

  error(message: string, fields?: LogFields): void {
    if (this.#output.rank <= 3) this.#write(this.error, "error", message, fields);
  }

  log(level: LogLevel, message: string, fields?: LogFields): void {
    if (this.#output.rank <= RANK[level]) this.#write(this.log, level, message, fields);
  }

  fatal(message: string, fields?: LogFields): void {
    this.#write(this.fatal, "fatal", message, fields);
    this.sync();
  }

  named(labels: LogLabels): StructuredLogger {
    return new SinkLogger(this.#output, { name: labels.name ?? this.#name, caller: labels.caller ?? this.#caller });
  }

  sync(): void {
    for (const sink of this.#output.sinks) sink.sync();
  }

  close(): void {
    this.sync();
    for (const sink of this.#output.sinks) sink.close();
  }

  #write(method: (...args: never[]) => void, level: LogLevel, message: string, fields: LogFields | undefined): void {
    const { format, sinks, clock, sampler, callers } = this.#output;
    const wallMs = clock.wallMs();
    if (sampler !== undefined && RANK[level] < RANK.dpanic && !sampler.admit(level, message, wallMs)) return;
    const caller = this.#caller === "" && callers ? callerOf(method) : this.#caller;
    const record = { level, wallMs, name: this.#name, caller, message, fields };
    const line = encodeRecord(record, format);
    for (const sink of sinks) sink.write(line, level);
  }
}

const SAMPLE_FIRST = 100;
const SAMPLE_THEREAFTER = 100;
/** Different messages counted within one second; the texts are constant, so this is far above their number. */
const SAMPLE_MESSAGES_MAX = 4096;

class Sampler {
  readonly #counts = new Map<string, number>();
  #second = Number.NaN;

  admit(level: LogLevel, message: string, wallMs: number): boolean {
    const second = Math.floor(wallMs / 1000);
    if (second !== this.#second || this.#counts.size >= SAMPLE_MESSAGES_MAX) {
      this.#counts.clear();
      this.#second = second;
    }
    const key = `${level} ${message}`;
    const count = (this.#counts.get(key) ?? 0) + 1;
    this.#counts.set(key, count);
    return count <= SAMPLE_FIRST || (count - SAMPLE_FIRST) % SAMPLE_THEREAFTER === 0;
  }
}
