/** The test kit, as a user has it: what a database costs, and a year of waiting. */
import { defineFlow } from "../src/flow/builder.ts";
import { openTestDatabases } from "../src/store/test-databases.ts";
import { requireTestServer } from "../src/test-server.ts";
import { testOrchestrator } from "../src/test.ts";
import type { Figure } from "./server.ts";

const daily = defineFlow("daily");
daily.to(
  "try",
  () => {
    throw new Error("not yet");
  },
  { retry: { maxAttempts: 1000, initialInterval: "1d", maxInterval: "1d", multiplier: 1, jitter: false } },
);
const weekly = defineFlow("weekly");
weekly.to("report", () => "sent");

export async function kit(): Promise<Figure[]> {
  const databases = openTestDatabases(await requireTestServer());
  const created: number[] = [];
  try {
    // The first makes the template.
    for (let n = 0; n < 21; n++) {
      const began = performance.now();
      const url = await databases.create(Date.UTC(2026, 0, 1));
      if (n > 0) created.push(performance.now() - began);
      await databases.drop(url);
    }
  } finally {
    await databases.close();
  }
  const years: number[] = [];
  const opened: number[] = [];
  let happened = "";
  for (let n = 0; n < 5; n++) {
    const began = performance.now();
    await using t = await testOrchestrator({
      flows: [daily],
      schedules: [{ flow: weekly, cron: "0 9 * * 1" }],
      now: "2026-01-01T00:00Z",
    });
    await t.start(daily, null);
    await t.settle();
    opened.push(performance.now() - began);
    const moved = performance.now();
    await t.clock.advance("365d");
    years.push(performance.now() - moved);
    happened = `${t.calls("try")} attempts, ${t.effects("report")} reports`;
  }
  return [
    { name: "a test's database, p50", value: middle(created), unit: "ms", target: { atMost: 150 } },
    { name: "testOrchestrator(), one start, all settled, p50", value: middle(opened), unit: "ms" },
    {
      name: "a year of daily retries and a weekly schedule, p50",
      value: middle(years) / 1000,
      unit: "s",
      target: { atMost: 1 },
      note: happened,
    },
  ];
}

export function middle(times: readonly number[]): number {
  return times.toSorted((a, b) => a - b)[times.length >> 1] ?? NaN;
}
