/** What shares a statement shares no fate: an item that Postgres refuses is refused alone. */
import { expect, test } from "vitest";
import { Batcher } from "../../src/store/batcher.ts";

test("of a batch with items that Postgres cannot hold all others go in, each of those is refused, and order is kept", async () => {
  const sent: number[] = [];
  const statements: number[] = [];
  const batcher = new Batcher<number, string>({
    async send(items) {
      statements.push(items.length);
      const bad = items.find((item) => item % 50 === 7);
      if (bad !== undefined) throw Object.assign(new Error(`${bad} cannot be held`), { code: "22P05" });
      sent.push(...items);
      return items.map((item) => `done ${item}`);
    },
  });
  const items = Array.from({ length: 100 }, (_, index) => index);

  const outcomes = await Promise.allSettled(items.map((item) => batcher.submit(item)));

  const good = items.filter((item) => item % 50 !== 7);
  expect(
    outcomes.map((outcome) => (outcome.status === "fulfilled" ? outcome.value : (outcome.reason as Error).message)),
  ).toEqual(items.map((item) => (item % 50 === 7 ? `${item} cannot be held` : `done ${item}`)));
  expect(sent).toEqual(good);
  // Halves, and not one by one.
  expect(statements.length).toBeLessThan(40);
});
