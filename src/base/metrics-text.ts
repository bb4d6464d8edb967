import type { Histogram } from "./histogram.ts";

export type Labels = Readonly<Record<string, string>>;

/**
 * Writes the Prometheus text format. Values are read when metrics are scraped, so counting costs only an increment.
 * Source: https://prometheus.io/docs/instrumenting/exposition_formats/
 */
export class MetricsText {
  #out = "";

  counter(name: string, help: string, value: number): this {
    return this.#family(name, "counter", help).sample(name, {}, value);
  }

  gauge(name: string, help: string, value: number): this {
    return this.#family(name, "gauge", help).sample(name, {}, value);
  }

  /** One family with a sample for each set of labels. */
  family(name: string, type: "counter" | "gauge", help: string, samples: Iterable<readonly [Labels, number]>): this {
    this.#family(name, type, help);
    for (const [labels, value] of samples) this.sample(name, labels, value);
    return this;
  }

  /** One histogram for each set of labels. */
  histogram(name: string, help: string, histograms: Iterable<readonly [Labels, Histogram]>): this {
    this.#family(name, "histogram", help);
    for (const [labels, histogram] of histograms) {
      let below = 0;
      for (const [i, bound] of histogram.bounds.entries()) {
        below += histogram.counts[i]!;
        this.sample(`${name}_bucket`, { ...labels, le: formatNumber(bound) }, below);
      }
      this.sample(`${name}_bucket`, { ...labels, le: "+Inf" }, histogram.count);
      this.sample(`${name}_sum`, labels, histogram.sum);
      this.sample(`${name}_count`, labels, histogram.count);
    }
    return this;
  }

  sample(name: string, labels: Labels, value: number): this {
    const pairs = Object.entries(labels).map(([key, text]) => `${key}="${escapeLabel(text)}"`);
    this.#out += `${name}${pairs.length > 0 ? `{${pairs.join(",")}}` : ""} ${formatNumber(value)}\n`;
    return this;
  }

  toString(): string {
    return this.#out;
  }

  #family(name: string, type: string, help: string): this {
    this.#out += `# HELP ${name} ${escapeHelp(help)}\n# TYPE ${name} ${type}\n`;
    return this;
  }
}

function formatNumber(value: number): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf";
  return Number.isInteger(value) ? `${value}` : `${Number(value.toPrecision(12))}`;
}

const escapeHelp = (text: string): string => text.replace(/[\\\n]/g, (c) => (c === "\n" ? "\\n" : "\\\\"));
const escapeLabel = (text: string): string => text.replace(/[\\"\n]/g, (c) => (c === "\n" ? "\\n" : `\\${c}`));
