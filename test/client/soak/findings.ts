/** What a soak has found wrong, and what it has counted. */
export class Findings {
  readonly found: string[] = [];
  readonly #counts = new Map<string, number>();

  /** A guarantee is broken. */
  report(text: string): void {
    this.found.push(text);
    console.log(`FOUND ${text}`);
  }

  /** For what must hold. */
  check(holds: boolean, text: () => string): void {
    if (!holds) this.report(text());
  }

  count(what: string, by = 1): void {
    this.#counts.set(what, (this.#counts.get(what) ?? 0) + by);
  }

  of(what: string): number {
    return this.#counts.get(what) ?? 0;
  }

  get line(): string {
    return [...this.#counts].map(([what, count]) => `${count} ${what}`).join(", ");
  }
}
