/** The event lines of a run: kept on request, always hashed, so that two runs can be compared. */
import { createHash } from "node:crypto";
import type { Scheduler } from "./scheduler.ts";

export class Trace {
  readonly lines: string[] = [];
  readonly #scheduler: Scheduler;
  readonly #keep: boolean;
  readonly #hash = createHash("sha256");
  #count = 0;
  #isOver = false;

  constructor(scheduler: Scheduler, keep: boolean) {
    this.#scheduler = scheduler;
    this.#keep = keep;
  }

  readonly add = (text: string): void => {
    // Work in progress in ended processes may still finish.
    if (this.#isOver) return;
    const { nowMs, moment } = this.#scheduler;
    const line = `${(nowMs / 1000).toFixed(4).padStart(9)} s ${`#${moment}`.padStart(7)}  ${text}`;
    this.#count++;
    this.#hash.update(line);
    this.#hash.update("\n");
    if (this.#keep) this.lines.push(line);
  };

  /** Ends the trace and returns its short hash. */
  digest(): string {
    this.#isOver = true;
    return this.#hash.digest("hex").slice(0, 16);
  }

  get count(): number {
    return this.#count;
  }
}
