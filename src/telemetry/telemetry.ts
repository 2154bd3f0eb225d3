/** What an orchestrator says of its process to those who look from outside. */
import { withTimeout } from "../base/async.ts";
import { UsageError } from "../base/errors.ts";
import { systemTimers as liveness } from "../base/timers.ts";
import type { DatabaseGauges } from "../store/gauges.ts";
import type { Store } from "../store/store.ts";
import { Meter } from "./meter.ts";
import { healthOf, readinessOf, type Health } from "./health.ts";
import { familiesOf } from "./metrics.ts";
import { exportMetrics } from "./instruments.ts";
import { openMetrics, type Family } from "./openmetrics.ts";
import type { TraceApi } from "./otel.ts";
import type { Vitals } from "./vitals.ts";

/** Several scrapers cost the database one question in so long. */
const cachedMs = 1000;
/** A scrape does not wait longer for it. */
const answerWithinMs = 2000;

export interface TelemetryHost {
  /** The database, once it is known to fit. */
  store(): Promise<Store>;
  isListening(): boolean;
  workers(): Iterable<{ readonly vitals: Vitals }>;
}

export class Telemetry {
  readonly meter = new Meter();
  readonly #host: TelemetryHost;
  #asked: Promise<DatabaseGauges | null> | undefined;
  #askedAt = -Infinity;
  #isAsking = false;
  #endExport: (() => void) | null = null;

  constructor(host: TelemetryHost) {
    this.#host = host;
  }

  /** OpenMetrics text. @throws {UsageError} there is no connection, or the orchestrator was closed */
  async metrics(): Promise<string> {
    return openMetrics(await this.#families());
  }

  /** Gives the same to a MeterProvider of the application, where there is one; once. */
  exportTo(api: TraceApi | null): void {
    if (api) this.#endExport ??= exportMetrics(api, this.meter, this.#now(null), () => this.#families());
  }

  close(): void {
    this.#endExport?.();
    this.#endExport = null;
  }

  async #families(): Promise<Family[]> {
    return this.#now(await withTimeout(this.#gauges(), answerWithinMs, () => null));
  }

  #now(database: DatabaseGauges | null): Family[] {
    const isListening = this.#host.isListening();
    return familiesOf({ meter: this.meter, workers: this.#vitals(), isListening, database });
  }

  /** One question at a time: where the database hangs, scrapes do not pile up. */
  #gauges(): Promise<DatabaseGauges | null> {
    const isFresh = liveness.monotonic() - this.#askedAt < cachedMs;
    if (this.#asked && (isFresh || this.#isAsking)) return this.#asked;
    this.#isAsking = true;
    this.#askedAt = liveness.monotonic();
    const asked = this.#read().finally(() => (this.#isAsking = false));
    this.#asked = asked;
    return asked;
  }

  async #read(): Promise<DatabaseGauges | null> {
    try {
      const { gauges } = await this.#host.store();
      return await gauges.read();
    } catch (error) {
      // A UsageError is the caller's mistake. Other errors are what a scrape is there to show.
      if (error instanceof UsageError) throw error;
      return null;
    }
  }

  health(): Health {
    return healthOf(this.#vitals(), this.meter.loop.sinceTickMs);
  }

  async ready(): Promise<Health> {
    const fits = this.#host.store().then(
      () => null,
      (error: unknown) => (error instanceof Error ? error.message : String(error)),
    );
    const late = () => `the database has not answered for ${answerWithinMs} ms`;
    return readinessOf(this.#vitals(), await withTimeout(fits, answerWithinMs, late));
  }

  #vitals(): Vitals[] {
    return [...this.#host.workers()].map(({ vitals }) => vitals).filter(({ state }) => state !== "stopped");
  }
}
