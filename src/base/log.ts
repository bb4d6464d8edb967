/** Levels in rising order, as `--log-level` names them. */
export type LogLevel = "debug" | "info" | "warn" | "error" | "dpanic" | "panic" | "fatal";

export type LogFields = Readonly<Record<string, unknown>>;

/** The logger interface. Messages are constant texts; variable data goes into `fields` (kebab-case names). */
export interface Logger {
  /** False when a debug line would be dropped: lets hot paths skip building its fields. */
  readonly debugEnabled: boolean;
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

/** Drops everything. */
export const nullLogger: Logger = {
  debugEnabled: false,
  debug() {},
  info() {},
  warn() {},
  error() {},
};
