/** Converts the numbers of all rounds to a table of ratios and to JSON. */
import { readFileSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus } from "node:os";
import type { Measurement } from "./suite.ts";

export type Side = "ours" | "stock";

export interface Row {
  readonly suite: string;
  readonly name: string;
  readonly unit: string;
  readonly better: "higher" | "lower";
  /** One number per round, in order. */
  readonly ours: number[];
  readonly stock: number[];
}

export class Report {
  readonly #rows = new Map<string, Row>();

  add(suite: string, side: Side, measurements: readonly Measurement[]): void {
    for (const { name, unit, better, value } of measurements) {
      const key = `${suite}/${name}`;
      const row = this.#rows.get(key) ?? { suite, name, unit, better, ours: [], stock: [] };
      this.#rows.set(key, row);
      row[side].push(value);
    }
  }

  /** A Markdown table: medians, and the ratio ours/stock with the lowest and highest round. */
  table(): string {
    const lines = [
      "| measured | unit | ours | stock | ours/stock | rounds | better |",
      "| --- | --- | ---: | ---: | ---: | --- | --- |",
    ];
    for (const row of this.#rows.values()) {
      const { ratio, lowest, highest } = ratios(row);
      const cells = [row.name, row.unit, digits(median(row.ours)), digits(median(row.stock))];
      lines.push(
        `| ${cells.join(" | ")} | **${ratio.toFixed(2)}** | ${lowest.toFixed(2)}–${highest.toFixed(2)} | ${row.better} |`,
      );
    }
    return lines.join("\n");
  }

  write(path: string, about: Readonly<Record<string, unknown>>): void {
    const rows = [...this.#rows.values()].map((row) => ({ ...row, ...ratios(row) }));
    writeFileSync(path, `${JSON.stringify({ ...about, rows }, undefined, 2)}\n`);
  }
}

/** Other conditions that affect the numbers. */
export function machine(): Record<string, unknown> {
  const memoryKb = /MemTotal:\s+(\d+)/.exec(readFileSync("/proc/meminfo", "utf8"))?.[1];
  return {
    cpu: cpus()[0]?.model ?? "unknown",
    cores: availableParallelism(),
    memoryGiB: Math.round(Number(memoryKb) / 2 ** 20),
    node: process.version,
  };
}

function ratios({ ours, stock }: Row): { ratio: number; lowest: number; highest: number } {
  const each = ours.slice(0, stock.length).map((value, round) => value / stock[round]!);
  return { ratio: median(ours) / median(stock), lowest: Math.min(...each), highest: Math.max(...each) };
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

function digits(value: number): string {
  return value >= 100 ? Math.round(value).toLocaleString("en") : value.toPrecision(3);
}
