import type { RaftLogger } from "../../../src/raft/logger.ts";

const levelNames = ["DEBUG", "INFO", "WARN", "ERROR", "FATAL", "NONE"] as const;
type Level = (typeof levelNames)[number];

/** Collects the output of a scenario command, including its raft log lines. Level NONE drops everything. */
export class Output implements RaftLogger {
  #level: Level = "DEBUG";
  #text = "";

  get level(): Level {
    return this.#level;
  }

  /** Throws RangeError for an unknown name. */
  setLevel(name: string): void {
    const level = levelNames.find((known) => known === name.toUpperCase());
    if (level === undefined) throw new RangeError(`log levels must be either of [${levelNames.join(" ")}]`);
    this.#level = level;
  }

  get quiet(): boolean {
    return this.#level === "NONE";
  }

  write(text: string): void {
    if (!this.quiet) this.#text += text;
  }

  /** Everything written since the last call. */
  take(): string {
    const text = this.#text;
    this.#text = "";
    return text;
  }

  /** Indents by two spaces the lines written by `run`. */
  indented(run: () => void): void {
    const before = this.take();
    try {
      run();
    } finally {
      this.#text = before + this.#text.replace(/^(?=.|\n(?=.))/gm, "  ").replace(/([^\n])$/, "$1\n");
    }
  }

  get debug() {
    return this.#at("DEBUG");
  }

  get info() {
    return this.#at("INFO");
  }

  get warn() {
    return this.#at("WARN");
  }

  get error() {
    return this.#at("ERROR");
  }

  #at(level: Level): ((text: string) => void) | undefined {
    if (levelNames.indexOf(level) < levelNames.indexOf(this.#level)) return undefined;
    return (text) => this.write(`${level} ${text}\n`);
  }
}
