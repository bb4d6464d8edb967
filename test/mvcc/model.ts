import { createHash } from "node:crypto";

/** A naive multi-version store: the whole history in an array, every query answered by walking it. */
export interface ModelRow {
  key: string;
  main: number;
  sub: number;
  /** Undefined for a deletion. */
  value: string | undefined;
  lease: bigint;
  create: number;
  version: number;
}

export class Model {
  rows: ModelRow[] = [];
  revision = 1;
  compactRevision = -1;

  /** The content at a revision, ascending by key. */
  at(revision: number): ModelRow[] {
    const latest = new Map<string, ModelRow>();
    for (const row of this.rows) if (row.main <= revision) latest.set(row.key, row);
    return [...latest.values()].filter((row) => row.value !== undefined).sort((a, b) => (a.key < b.key ? -1 : 1));
  }

  range(revision: number, start: string, end: string | null | undefined): ModelRow[] {
    return this.at(revision).filter((row) =>
      end === undefined ? row.key === start : row.key >= start && (end === null || row.key < end),
    );
  }

  put(main: number, sub: number, key: string, value: string, lease: bigint): void {
    const old = this.at(main).find((row) => row.key === key);
    this.rows.push({
      key,
      main,
      sub,
      value,
      lease,
      create: old?.create ?? main,
      version: (old?.version ?? 0) + 1,
    });
  }

  delete(main: number, sub: number, key: string): void {
    this.rows.push({ key, main, sub, value: undefined, lease: 0n, create: 0, version: 0 });
  }
}

/** Small numbers from a seed: the same on every run. */
export class SeededRandom {
  #state: number;

  constructor(seed: number) {
    this.#state = createHash("sha256").update(String(seed)).digest().readUInt32LE() | 1;
  }

  below(bound: number): number {
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    return (this.#state >>> 0) % bound;
  }

  uint64(): bigint {
    return (BigInt(this.below(2 ** 32)) << 32n) | BigInt(this.below(2 ** 32));
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }
}
