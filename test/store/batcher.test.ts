/** What shares a statement shares no fate: an item that Postgres refuses is refused alone. */
import { expect, test, vi } from "vitest";
import { openCommandQueue } from "../../src/store/command-queue.ts";
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

test("a few items wait for the statement under way; many, or a few when it takes long, go beside it", async () => {
  const answers: (() => void)[] = [];
  const sent: number[][] = [];
  const batcher = new Batcher<number, number>({
    send: (items) => {
      sent.push([...items]);
      return new Promise((resolve) => answers.push(() => resolve(items)));
    },
    maxInFlight: 2,
    minBeside: 3,
    slowMs: 100,
  });
  const submit = (...items: number[]) => Promise.all(items.map((item) => batcher.submit(item)));
  const untilSent = (count: number) =>
    vi.waitFor(() => expect(sent).toHaveLength(count), { timeout: 5000, interval: 1 });

  const all = [submit(1)];
  await untilSent(1);
  all.push(submit(2, 3));
  await new Promise(setImmediate);
  expect(sent).toEqual([[1]]);
  // One more makes it worth a statement.
  all.push(submit(4));
  await untilSent(2);
  expect(sent[1]).toEqual([2, 3, 4]);

  answers.splice(0).forEach((answer) => answer());
  await Promise.all(all);
  all.push(submit(5));
  await untilSent(3);
  all.push(submit(6));
  // Nothing else comes, and the one under way is not answered.
  await untilSent(4);
  expect(sent[3]).toEqual([6]);
  answers.splice(0).forEach((answer) => answer());
  expect((await Promise.all(all)).flat()).toEqual([1, 2, 3, 4, 5, 6]);
});

test("a command that waits for a busy key keeps nobody out that needs another one", async () => {
  // Four places: three for each key at most.
  const lane = openCommandQueue(8);
  const gates = new Map<string, PromiseWithResolvers<void>>();
  const begun: string[] = [];
  const run = (key: string, name: string) =>
    lane.run(key, async () => {
      begun.push(name);
      const gate = Promise.withResolvers<void>();
      gates.set(name, gate);
      await gate.promise;
    });
  const all = ["a1", "a2", "a3", "b1", "a4", "b2"].map((name) => run(name.slice(0, 1), name));
  await new Promise(setImmediate);
  expect(begun).toEqual(["a1", "a2", "a3", "b1"]);

  gates.get("b1")?.resolve();
  await new Promise(setImmediate);
  expect(begun.at(-1)).toBe("b2");

  gates.get("a1")?.resolve();
  await new Promise(setImmediate);
  expect(begun.at(-1)).toBe("a4");
  for (const { resolve } of gates.values()) resolve();
  await Promise.all(all);
});
