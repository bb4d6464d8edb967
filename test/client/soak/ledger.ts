/**
 * What was written, what became of it, and who has seen it. A value is written once, so it must be seen by each watcher
 * once, at the revision that was acknowledged; one that was refused must never be seen.
 */
import type { Findings } from "./findings.ts";

interface Entry {
  /** Of the acknowledgement, or of the first who saw it. */
  revision: number | undefined;
  acknowledged: boolean;
  refused: boolean;
  readonly seenBy: Set<string>;
}

export class Ledger {
  /** Of writes that are not acknowledged and seen by all. */
  readonly #entries = new Map<string, Entry>();
  readonly #findings: Findings;
  readonly #watchers: number;

  constructor(findings: Findings, watchers: number) {
    this.#findings = findings;
    this.#watchers = watchers;
  }

  attempted(value: string): void {
    this.#entries.set(value, { revision: undefined, acknowledged: false, refused: false, seenBy: new Set() });
  }

  acknowledged(value: string, revision: number): void {
    const entry = this.#entries.get(value)!;
    this.#at(entry, value, revision, "acknowledged");
    entry.acknowledged = true;
    this.#settle(value, entry);
  }

  /** The client says that it was certainly not carried out. */
  refused(value: string): void {
    const entry = this.#entries.get(value)!;
    entry.refused = true;
    this.#findings.check(entry.seenBy.size === 0, () => `${value} was seen, and then reported as not carried out`);
  }

  seen(watcher: string, value: string, revision: number): void {
    const entry = this.#entries.get(value);
    if (entry === undefined)
      return this.#findings.report(`${watcher} saw ${value} at ${revision}: twice, or never written`);
    this.#findings.check(
      !entry.refused,
      () => `${watcher} saw ${value} at ${revision}, which was reported as not carried out`,
    );
    this.#findings.check(!entry.seenBy.has(watcher), () => `${watcher} saw ${value} twice, now at ${revision}`);
    this.#at(entry, value, revision, `seen by ${watcher}`);
    entry.seenBy.add(watcher);
    this.#settle(value, entry);
  }

  /** Acknowledged, and not seen by all. */
  get unseen(): readonly string[] {
    return [...this.#entries]
      .filter(([, entry]) => entry.acknowledged)
      .map(
        ([value, { revision, seenBy }]) =>
          `${value} of revision ${revision}, seen by ${[...seenBy].join(" ") || "nobody"}`,
      );
  }

  #at(entry: Entry, value: string, revision: number, how: string): void {
    entry.revision ??= revision;
    this.#findings.check(
      entry.revision === revision,
      () => `${value} was ${how} at ${revision}, and before at ${entry.revision}`,
    );
  }

  #settle(value: string, entry: Entry): void {
    if (entry.acknowledged && entry.seenBy.size === this.#watchers) this.#entries.delete(value);
  }
}
