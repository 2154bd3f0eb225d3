/** The kit on the server of this run. */
import { inject } from "vitest";
import type { FlowDefinition } from "../../src/index.ts";
import { testOrchestrator, type TestOptions, type TestOrchestrator } from "../../src/test.ts";

/** Begins at 2026-01-01T09:00Z where nothing else is said. */
export function kit<const F extends readonly FlowDefinition[] = readonly FlowDefinition[]>(
  options: TestOptions<F>,
): Promise<TestOrchestrator> {
  process.env["DATABASE_URL"] = inject("serverUrl");
  return testOrchestrator(options.database === undefined ? { now: "2026-01-01T09:00Z", ...options } : options);
}
