/** What happened, line by line: kept when somebody wants to read it, hashed always, so that two runs can be compared. */
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
    // What was under way in processes that have ended may still come to an end of its own.
    if (this.#isOver) return;
    const { nowMs, moment } = this.#scheduler;
    const line = `${(nowMs / 1000).toFixed(4).padStart(9)} s ${`#${moment}`.padStart(7)}  ${text}`;
    this.#count++;
    this.#hash.update(line);
    this.#hash.update("\n");
    if (this.#keep) this.lines.push(line);
  };

  /** Ends the trace: its hash in short. */
  digest(): string {
    this.#isOver = true;
    return this.#hash.digest("hex").slice(0, 16);
  }

  get count(): number {
    return this.#count;
  }
}
