/** OpenMetrics 1.0 as text: https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md */
import type { Histogram, HistogramName } from "./histogram.ts";

export const openMetricsType = "application/openmetrics-text; version=1.0.0; charset=utf-8";

export type Labels = Readonly<Record<string, string>>;

export interface Sample {
  readonly labels: Labels;
  readonly value: number | Histogram;
}

/** One metric with all its samples. The name of one with a unit ends in it. */
export type Family = Named & {
  readonly unit?: "seconds";
  readonly help: string;
  readonly samples: readonly Sample[];
};

type Named =
  | { readonly type: "counter" | "gauge"; readonly name: string }
  | { readonly type: "histogram"; readonly name: HistogramName };

/** A family without samples is left out: it has nothing to say yet. */
export function openMetrics(families: readonly Family[]): string {
  return `${families.flatMap(linesOf).join("\n")}\n# EOF\n`;
}

function linesOf({ name, type, unit, help, samples }: Family): string[] {
  if (samples.length === 0) return [];
  return [
    `# TYPE ${name} ${type}`,
    ...(unit === undefined ? [] : [`# UNIT ${name} ${unit}`]),
    `# HELP ${name} ${escaped(help)}`,
    ...samples.flatMap(({ labels, value }) => {
      if (typeof value === "number") return [line(type === "counter" ? `${name}_total` : name, labels, value)];
      return histogramLines(name, labels, value);
    }),
  ];
}

function histogramLines(name: string, labels: Labels, { bounds, counts, sum }: Histogram): string[] {
  let below = 0;
  const buckets = counts.map((count, index) => {
    below += count;
    const bound = bounds[index];
    return line(`${name}_bucket`, { ...labels, le: bound === undefined ? "+Inf" : float(bound) }, below);
  });
  return [...buckets, line(`${name}_count`, labels, below), line(`${name}_sum`, labels, sum)];
}

function line(name: string, labels: Labels, value: number): string {
  const pairs = Object.entries(labels).map(([label, text]) => `${label}="${escaped(text)}"`);
  return `${name}${pairs.length === 0 ? "" : `{${pairs.join(",")}}`} ${value}`;
}

/** A bound is a float, and looks like one. */
function float(value: number): string {
  return Number.isInteger(value) ? value.toFixed(1) : String(value);
}

function escaped(text: string): string {
  return text.replace(/[\\"\n]/g, (character) => (character === "\n" ? "\\n" : `\\${character}`));
}
