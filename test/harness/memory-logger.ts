import type { LogFields, Logger, LogLevel } from "../../src/base/log.ts";

export interface LogLine {
  readonly level: LogLevel;
  readonly message: string;
  readonly fields: LogFields;
}

/** A logger that keeps its lines. */
export class MemoryLogger implements Logger {
  readonly debugEnabled = false;
  readonly lines: LogLine[] = [];

  debug(): void {}

  info(message: string, fields: LogFields = {}): void {
    this.lines.push({ level: "info", message, fields });
  }

  warn(message: string, fields: LogFields = {}): void {
    this.lines.push({ level: "warn", message, fields });
  }

  error(message: string, fields: LogFields = {}): void {
    this.lines.push({ level: "error", message, fields });
  }

  has(message: string): boolean {
    return this.lines.some((line) => line.message === message);
  }
}
