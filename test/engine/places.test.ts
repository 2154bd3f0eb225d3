/** Places that a worker takes and leaves: those of its own, for what begins here, and the slots of flows with limits. */
import { expect, test } from "vitest";
import { Semaphore } from "../../src/base/async.ts";
import { defineFlow } from "../../src/flow/builder.ts";
import { ExecutionId, type Recorded } from "../../src/ledger/event.ts";
import type { Append } from "../../src/store/append.ts";
import type { SlotRequest } from "../../src/store/claims.ts";
import { refusalOf } from "../../src/store/refusals.ts";
import { openClaims, type ClaimsHost } from "../../src/worker/claims.ts";
import { openHere, type HereHost } from "../../src/worker/here.ts";
import { openSlots, type SlotsHost } from "../../src/worker/slots.ts";
import { newExecution, nothing, someWorker } from "../support/ledger.ts";

const flow = defineFlow("placed");
flow.to("pass", nothing);
const id = ExecutionId.parse("01900000-0000-7000-8000-000000000001");
const target = { place: "localhost:5432/test", user: "ann", schema: "flowledger" };
const raised = (code: string) => refusalOf(Object.assign(new Error(code), { code }), target, { id, what: "it" });

test.each([
  ["a lost connection", raised("CONNECTION_CLOSED")],
  ["a lock", raised("55P03")],
  ["a flow that was paused just now", raised("FL015")],
  ["what nobody has seen", new TypeError("odd")],
])("a place that nothing begins in is free again, after %s", async (_, error) => {
  const fail = () => Promise.reject(error);
  const capacity = new Semaphore(2);
  const host = {
    host: { flows: new Map([[flow.name, flow]]), store: { starts: { create: fail } } },
    claims: { create: fail, send: fail },
    pauses: { has: () => false, look: async () => {} },
    capacity,
    isTaking: () => true,
    isOwned: () => false,
    runHere: () => {},
  };
  // Of claims and store only what is asked here.
  const here = openHere(host as unknown as HereHost);
  const execution = newExecution({ id, flow: flow.name, input: null });

  await expect(here.create([execution, execution])).rejects.toBe(error);
  expect(capacity.free).toBe(2);
  await expect(here.send(id, flow.name, fail)).rejects.toBe(error);

  expect(capacity.free).toBe(2);
});

test("what is handed over with a commit has the place that was taken for it, and no other", async () => {
  const limited = defineFlow("limited", {}, { limits: { concurrency: 2 } });
  limited.to("pass", nothing);
  const capacity = new Semaphore(2);
  const begun: unknown[] = [];
  const next = { id: "01900000-0000-7000-8000-000000000002" };
  const host = {
    host: { flows: new Map([[limited.name, limited]]) },
    claims: { handOver: async () => ({ results: [], claimed: new Map([[next.id, next]]) }) },
    flowOf: () => limited.name,
    hasShortcuts: true,
    capacity,
    isTaking: () => true,
    runHere: (claimed: unknown) => void begun.push(claimed),
    onTrouble: () => {},
  };
  // Of claims and store only what is asked here.
  const slots = openSlots(host as unknown as SlotsHost);

  await slots.append([{ id } as Append, { id } as Append]);

  expect(begun).toEqual([next]);
  expect(capacity.free).toBe(1);
});

test("a slot that something came in beside is left when the execution is over, and not with the commit that did not end it", async () => {
  const limited = defineFlow("limited", {}, { limits: { concurrency: 1 } });
  limited.to("pass", nothing);
  const leftAfter = async (foreign: readonly Recorded[] | null) => {
    const left: (string | null)[] = [];
    const host = {
      host: { flows: new Map([[limited.name, limited]]) },
      claims: {
        handOver: async () => ({
          results: [{ verdict: "ok", firstSeq: 3, at: 0, bytes: 0, foreign }],
          claimed: new Map(),
        }),
        claimLimited: async (request: SlotRequest) => (left.push(request.left), null),
      },
      flowOf: () => limited.name,
      hasShortcuts: true,
      capacity: new Semaphore(1),
      isTaking: () => true,
      runHere: () => {},
      onTrouble: () => {},
    };
    // Of claims and store only what is asked here.
    const slots = openSlots(host as unknown as SlotsHost);
    await slots.append([{ id } as Append]);
    slots.release({ flow: limited.name, id });
    await slots.settled();
    return left;
  };

  expect(await leftAfter([])).toEqual([id]);
  expect(await leftAfter(null)).toEqual([]);
});

test("what is claimed for a slot goes to who asked with room for it, and not to who left one", async () => {
  const next = { id: "01900000-0000-7000-8000-000000000002", flow: flow.name, takeovers: 0 };
  const host = {
    store: { claims: { claimLimited: async () => new Map([[next.id, next]]) } },
    poisonSuspects: new Semaphore(1),
    workerId: () => someWorker,
  };
  // Of claims and store only what is asked here.
  const claims = openClaims(host as unknown as ClaimsHost);
  const request = { flow: flow.name, id: null };

  const asked = [
    claims.claimLimited({ ...request, left: id, hasRoom: false }),
    claims.claimLimited({ ...request, left: null, hasRoom: true }),
  ];

  expect(await Promise.all(asked)).toEqual([null, next]);
});
