/** Pieces of a part are joined for 20 ms, for as long as the item before them is on its way, or up to 4 kB. */
import type { UIMessageChunk } from "ai";
import { expect, test } from "vitest";
import { Deltas } from "../../src/ai/deltas.ts";

const piece = (delta: string, id = "a"): UIMessageChunk => ({ type: "text-delta", id, delta });

const atOnce = () => Promise.resolve();

function opened(arrived = atOnce) {
  const put: UIMessageChunk[] = [];
  let due: (() => void) | undefined;
  const waits: number[] = [];
  const timers = {
    after: (ms: number, work: () => void) => {
      waits.push(ms);
      due = work;
      return { cancel: () => void (due = undefined), refresh: () => {}, ref: () => {}, unref: () => {} };
    },
  };
  const deltas = new Deltas(async (chunk) => void put.push(chunk), arrived, timers as never);
  const pass = async () => {
    due?.();
    await turn();
  };
  return { deltas, put, waits, pass };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

test("pieces of one part wait 20 ms for each other, counted from the first", async () => {
  const { deltas, put, waits, pass } = opened();
  for (const text of ["a", "b", "c"]) await deltas.put(piece(text));
  expect(put).toEqual([]);
  await pass();
  await deltas.put(piece("d"));
  expect([put, waits]).toEqual([[piece("abc")], [20, 20]]);
  await deltas.flush();
  expect(put).toEqual([piece("abc"), piece("d")]);
});

test("4 kB do not wait, in bytes, and neither does what is no piece of the part", async () => {
  const { deltas, put } = opened();
  const half = "ü".repeat(1024);
  await deltas.put(piece(half));
  expect(put).toEqual([]);
  await deltas.put(piece(half));
  expect(put).toEqual([piece(half + half)]);
  // What left counts no more.
  await deltas.put(piece("x"));
  expect(put).toHaveLength(1);
  await deltas.put(piece("y", "b"));
  await deltas.put({ type: "text-end", id: "a" });
  expect(put.slice(1)).toEqual([piece("x"), piece("y", "b"), { type: "text-end", id: "a" }]);
});

test("while the item before is on its way pieces gather, and leave together when it has come", async () => {
  let coming = Promise.withResolvers<void>();
  const { deltas, put, waits, pass } = opened(() => coming.promise);
  await deltas.put(piece("a"));
  await pass();
  for (const text of ["b", "c"]) await deltas.put(piece(text));
  await pass();
  expect([put, waits]).toEqual([[], [20]]);

  coming.resolve();
  await turn();
  expect(put).toEqual([piece("abc")]);

  coming = Promise.withResolvers();
  await deltas.put(piece("d"));
  await pass();
  // Whatever follows them waits for nothing, and they go before it, once.
  await deltas.put({ type: "text-end", id: "a" });
  coming.resolve();
  await turn();
  expect(put.slice(1)).toEqual([piece("d"), { type: "text-end", id: "a" }]);
});

test("whoever puts next hears that the stream took no more, and after stop() nothing is put", async () => {
  const failing = new Deltas(() => Promise.reject(new Error("full")), atOnce, {
    after: (_: number, work: () => void) => (work(), { cancel: () => {} }),
  } as never);
  await failing.put(piece("a"));
  await expect(failing.flush()).rejects.toThrow("full");
  const { deltas, put, pass } = opened();
  await deltas.put(piece("a"));
  deltas.stop();
  await pass();
  expect(put).toEqual([]);
});

test("half of a pair waits for the other half, however long that takes, and is put alone only at the end", async () => {
  const { deltas, put, pass } = opened();
  await deltas.put(piece("a\ud83d"));
  await pass();
  await pass();
  expect(put).toEqual([piece("a")]);
  await deltas.put(piece("\ude00b\ud83d"));
  await pass();
  await deltas.put(piece("\ude00" + "x".repeat(4095) + "\ud83d"));
  expect(put.slice(1)).toEqual([piece("\u{1f600}b"), piece("\u{1f600}" + "x".repeat(4095))]);
  await deltas.put(piece("b", "other"));
  expect(put.slice(3)).toEqual([piece("\ud83d")]);
});
