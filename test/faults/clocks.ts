/** Members' wall clocks, each offset from the machine's, by Debian's libfaketime. The monotonic clock is unchanged. */
import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** In the directory of the machine's architecture. */
const library = (): string | undefined =>
  readdirSync("/usr/lib")
    .map((directory) => join("/usr/lib", directory, "faketime", "libfaketimeMT.so.1"))
    .find((path) => existsSync(path));

/** Why clocks cannot be offset here; undefined when they can. */
export const clocksMissing = (): string | undefined =>
  library() === undefined ? "clock steps need libfaketime (Debian: faketime)" : undefined;

/** A clock set by a file. */
export class WallClock {
  readonly #file: string;

  constructor(file: string) {
    this.#file = file;
    this.step("+0");
  }

  /** For the process that uses this clock. */
  get env(): Record<string, string> {
    return {
      LD_PRELOAD: library() ?? "",
      FAKETIME_TIMESTAMP_FILE: this.#file,
      FAKETIME_CACHE_DURATION: "1",
      FAKETIME_DONT_FAKE_MONOTONIC: "1",
      DONT_FAKE_MONOTONIC: "1",
    };
  }

  /** Offset from the machine's time, as `+90`, in seconds, or `-3h`. It takes effect within a second. */
  step(offset: string): void {
    writeFileSync(this.#file, `${offset}\n`);
  }
}
