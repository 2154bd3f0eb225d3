/** A worker looks for executions that the database holds for it unknown to it, once the answer of a claim may be lost; and only then. */
import { expect, test, vi } from "vitest";
import { Semaphore } from "../../src/base/async.ts";
import {
  ConnectionError,
  ExecutionClosedError,
  ExecutionNotFoundError,
  ExecutionSealedError,
  FlowPausedError,
  UsageError,
} from "../../src/base/errors.ts";
import { ExecutionId, WorkerId } from "../../src/ledger/event.ts";
import type { Claim } from "../../src/store/claims.ts";
import { refusalOf } from "../../src/store/refusals.ts";
import { openClaims, type ClaimsHost } from "../../src/worker/claims.ts";

const id = ExecutionId.parse("01900000-0000-7000-8000-000000000001");
const worker = WorkerId.parse("00000000-0000-4000-8000-000000000001");
const target = { place: "localhost:5432/test", user: "ann", schema: "flowledger" };

function raised(code: string, more: object = {}): unknown {
  return refusalOf(Object.assign(new Error(code), { code, ...more }), target, { id, what: "it" });
}

/** Claims whose statements fail so, or are answered; and what was freed. @param more what the database answers otherwise */
function failing(error: unknown, owned: () => boolean = () => false, more: object = {}) {
  const fail = () => Promise.reject(error);
  const freed: ExecutionId[] = [];
  const poisonSuspects = new Semaphore(1);
  const claims = {
    claim: fail,
    claimLimited: fail,
    listOwned: async () => [{ id, token: "of-before" }],
    free: async ({ ids }: { ids: readonly ExecutionId[] }) => freed.push(...ids),
    ...more,
  };
  const host = {
    store: { claims, commandsClaiming: () => ({}), starts: { create: fail } },
    log: { debug() {}, info() {}, warn() {}, error() {} },
    poisonSuspects,
    workerId: () => worker,
    isOwned: owned,
    onBroken: () => {},
    onTrouble: () => {},
  };
  // Of the store only what claims ask.
  return { claims: openClaims(host as unknown as ClaimsHost), freed, fail, poisonSuspects };
}

const doors: readonly [string, (made: ReturnType<typeof failing>) => Promise<unknown>][] = [
  ["a command", ({ claims, fail }) => claims.send(fail, () => {})],
  ["a start", ({ claims }) => claims.create([], [])],
  ["a claim", ({ claims }) => claims.take(id)],
  ["a claim of a limited flow", ({ claims }) => claims.claimLimited({ flow: "f", id, left: null, hasRoom: true })],
];
const paused = { flow: "f", since: "2026-01-01T00:00:00Z", actor: "ann", reason: "rest" };
const refusals: readonly [string, unknown][] = [
  ["not found", new ExecutionNotFoundError(id)],
  ["closed", new ExecutionClosedError(id, "it")],
  ["sealed", new ExecutionSealedError(id, "it")],
  ["paused", new FlowPausedError(paused)],
  ["of wrong use", new UsageError("wrong", "right")],
  ["of a conflict", raised("FL008")],
  ["of a key that is taken", raised("23505")],
  ["of a lock", raised("55P03")],
  ["of another transaction that has the row", raised("FL011")],
  ["of a right that is missing", raised("42501")],
];
const losses: readonly [string, unknown][] = [
  ["that was cut", raised("CONNECTION_CLOSED")],
  ["that nobody answered", new ConnectionError(null, "no answer", "try again", { code: "NO_ANSWER" })],
  ["of a server that shuts down", raised("57P01")],
  ["whose commit nobody knows of", raised("08007")],
  ["that failed in a way nobody has seen", new TypeError("odd")],
];

for (const [door, act] of doors) {
  test.each(refusals)(`${door} that is refused, %s, leaves nothing to look for`, async (_, error) => {
    const made = failing(error);
    await expect(act(made)).rejects.toBe(error);

    await made.claims.freeUnknown();

    expect(made.freed).toEqual([]);
  });

  test.each(losses)(`${door} %s makes it look, and free what nobody here has`, async (_, error) => {
    let isOpening = true;
    const made = failing(error, () => isOpening);
    await expect(act(made)).rejects.toBe(error);

    await made.claims.freeUnknown();
    expect(made.freed, "it is about to have an owner").toEqual([]);
    isOpening = false;
    await made.claims.freeUnknown();

    expect(made.freed).toEqual([id]);
  });
}

test.each([...refusals, ...losses])(
  "what a job came for gets another job, also where its claim is refused: %s",
  async (_, error) => {
    const made = failing(error);
    await expect(made.claims.take(id)).rejects.toBe(error);

    made.claims.freeLost();

    expect(made.freed).toEqual([id]);
  },
);

test("what had an owner here is freed as begun and not as unknown, also before it is freed", async () => {
  const asked: object[] = [];
  const free = async (one: object) => asked.push(one);
  const lost = raised("CONNECTION_CLOSED");
  const { claims } = failing(lost, () => false, { free });
  await expect(
    claims.send(
      () => Promise.reject(lost),
      () => {},
    ),
  ).rejects.toBe(lost);

  // Of a claim only what is freed.
  claims.lose({ id, token: "of-before" } as Claim);
  await claims.freeUnknown();
  expect(asked).toEqual([]);
  claims.freeLost();
  await new Promise(setImmediate);
  await claims.freeUnknown();

  expect(asked).toEqual([
    { token: "of-before", ids: [id], flows: [], hasBegun: true },
    // It was freed, and is held again.
    { token: "of-before", ids: [id], flows: [], hasBegun: false },
  ]);
});

test("what could not be freed is freed the next time", async () => {
  const lost = raised("CONNECTION_CLOSED");
  const asked: (readonly ExecutionId[])[] = [];
  const free = async ({ ids }: { ids: readonly ExecutionId[] }) => {
    if (asked.push(ids) === 1) throw lost;
    return ids.length;
  };
  const { claims } = failing(lost, () => false, { free });
  await expect(claims.take(id)).rejects.toBe(lost);

  for (let times = 0; times < 3; times++) {
    claims.freeLost();
    await new Promise(setImmediate);
  }

  expect(asked).toEqual([[id], [id]]);
});

test("what had an owner here is freed as begun, apart from what the same claim may have taken unheard", async () => {
  const asked: object[] = [];
  const free = async (lost: object) => asked.push(lost);
  const lost = raised("CONNECTION_CLOSED");
  const { claims } = failing(lost, () => false, { free });
  const owned = { id, token: "t" };
  const other = ExecutionId.parse("01900000-0000-7000-8000-000000000002");

  // Of a claim only what is freed.
  claims.lose(owned as Claim);
  claims.lose({ ...owned, id: other } as Claim);
  await expect(claims.take(id)).rejects.toBe(lost);
  claims.freeLost();

  expect(asked).toEqual([
    { token: "t", ids: [id, other], flows: [], hasBegun: true },
    { token: expect.any(String) as string, ids: [id], flows: [], hasBegun: false },
  ]);
});

test.each(doors.slice(2))("%s whose answer is lost leaves its place to the next that lost workers", async (_, act) => {
  const lost = raised("CONNECTION_CLOSED");
  const made = failing(lost);
  await expect(act(made)).rejects.toBe(lost);

  expect(made.poisonSuspects.free).toBe(1);
});

test("what another claim takes just now, and has no answer of yet, is not looked upon as unknown", async () => {
  const lost = raised("CONNECTION_CLOSED");
  const answer = Promise.withResolvers<Map<ExecutionId, never>>();
  const tokens: string[] = [];
  const claim = (_worker: WorkerId, _ids: readonly ExecutionId[], { token }: { token: string }) => {
    tokens.push(token);
    return answer.promise;
  };
  const listOwned = async () => tokens.map((token) => ({ id, token }));
  const { claims, freed, fail } = failing(lost, () => false, { claim, listOwned });
  await expect(claims.send(fail, () => {})).rejects.toBe(lost);

  const taken = claims.take(id);
  await vi.waitFor(() => expect(tokens).toHaveLength(1));
  await claims.freeUnknown();
  expect(freed).toEqual([]);
  answer.resolve(new Map<ExecutionId, never>());
  await taken;
  await claims.freeUnknown();

  expect(freed).toEqual([id]);
});
