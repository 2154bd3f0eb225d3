/** The metrics of a scrape as instruments of `@opentelemetry/api`, under the same names: for a MeterProvider of the application. */
import { release } from "../base/release.ts";
import { histogramBounds } from "./histogram.ts";
import type { Meter } from "./meter.ts";
import type { Family, Labels } from "./openmetrics.ts";
import { meterOf, type OtelCallback, type OtelGauge, type TraceApi } from "./otel.ts";

/**
 * What was counted before is told at once, durations from now on.
 *
 * @param now what a scrape has, without asking anybody @param families the same, with what waits in the database
 * @returns how it ends; null where no SDK takes metrics
 */
export function exportMetrics(
  api: TraceApi,
  meter: Meter,
  now: readonly Family[],
  families: () => Promise<readonly Family[]>,
): (() => void) | null {
  const otel = meterOf(api, release);
  if (!otel) return null;
  const tells = new Map<string, (labels: Labels, value: number) => void>();
  const gauges = new Map<string, OtelGauge>();
  for (const family of now) {
    const { name, help, unit, samples } = family;
    const options = { description: help, ...(unit !== undefined && { unit: "s" }) };
    if (family.type === "histogram") {
      const advice = { explicitBucketBoundaries: [...histogramBounds[family.name]] };
      const histogram = otel.createHistogram(name, { ...options, advice });
      tells.set(name, (labels, seconds) => histogram.record(seconds, labels));
    } else if (family.type === "gauge") {
      gauges.set(name, otel.createObservableGauge(name, options));
    } else {
      const counter = otel.createCounter(name, options);
      tells.set(name, (labels, count) => counter.add(count, labels));
      for (const { labels, value } of samples) if (typeof value === "number") counter.add(value, labels);
    }
  }
  const observe: OtelCallback = async (result) => {
    for (const { name, samples } of await families()) {
      const gauge = gauges.get(name);
      if (!gauge) continue;
      for (const { labels, value } of samples) if (typeof value === "number") result.observe(gauge, value, labels);
    }
  };
  const all = [...gauges.values()];
  otel.addBatchObservableCallback(observe, all);
  meter.told = (name, labels, value) => tells.get(name)?.(labels, value);
  return () => {
    otel.removeBatchObservableCallback(observe, all);
    meter.told = null;
  };
}
