/** How this worker comes to own executions, in batches; and how it lets go of what the database holds for it by mistake. */
import type { Semaphore } from "../base/async.ts";
import { foldFrom } from "../ledger/codec.ts";
import { withAnswerLimit, Batcher } from "../store/batcher.ts";
import type { BrokenClaim, Claim, ClaimOptions, LostClaim, SlotRequest } from "../store/claims.ts";
import type { CommandsIn } from "../store/commands.ts";
import { isRefusal } from "../store/refusals.ts";
import { firstEvents } from "../store/starts.ts";
import type { CreateResult, NewExecution } from "../store/starts.ts";
import type { Append } from "../store/append.ts";
import type { Commits, Store } from "../store/store.ts";
import { failpoint } from "../engine/failpoints.ts";
import type { Logger } from "../flow/context.ts";
import type { ExecutionId, WorkerId } from "../ledger/event.ts";

export interface Claims {
  /** Claims an execution of a flow without limits; null where it is not due, or somebody else has it. */
  take(id: ExecutionId): Promise<Claim | null>;
  /** The same where a flow has limits: what comes first in the queue may be another one than the request names. */
  claimLimited(request: SlotRequest): Promise<Claim | null>;
  /** Appends, and claims what comes next in the queues of the flows whose slots are left with that, as many as there are requests. */
  handOver(left: readonly SlotRequest[], items: readonly Append[]): Promise<HandedOver>;
  /** Creates executions and claims some of them in the same statement. */
  create(
    executions: readonly NewExecution[],
    here: readonly NewExecution[],
  ): Promise<{ readonly created: CreateResult[]; readonly claimed: ReadonlyMap<NewExecution, Claim> }>;
  /** Sends a command that claims what it wakes. */
  send<T>(send: (commands: CommandsIn) => Promise<T>, claimed: (claim: Claim) => void): Promise<T>;
  /** Notes what the database may still hold for us: its owner was fenced because a failover lost its last commits. */
  lose(claimed: Claim): void;
  /** Frees what was lost. */
  freeLost(): void;
  /** Frees what this worker owns by the database and does not know of, should there be such. */
  freeUnknown(): Promise<void>;
}

export type HandedOver = Awaited<ReturnType<Commits["appendAndClaim"]>>;

export interface ClaimsHost {
  readonly store: Pick<Store, "claims" | "commandsClaiming" | "commits" | "starts">;
  readonly log: Logger;
  /** Executions that lost workers run one at a time. */
  readonly poisonSuspects: Semaphore;
  readonly workerId: () => WorkerId;
  /** It has an owner here, or is about to have one. */
  readonly isOwned: (id: ExecutionId) => boolean;
  /** Called with what was claimed and cannot be folded. */
  readonly onBroken: (claimed: BrokenClaim & { readonly token: string }, error: unknown) => void;
  readonly onTrouble: (error: unknown) => void;
}

export function openClaims({ store, log, poisonSuspects, workerId, isOwned, onBroken, onTrouble }: ClaimsHost): Claims {
  /** Tokens of claims that wait for their answer. */
  const underWay = new Set<string>();
  let lost: LostClaim[] = [];
  /** Of these, by token and id, what had an owner here. Nobody else may free it as if it had not begun: what it waits for might never come. */
  const begun = new Set<string>();
  /** Whether the answer of a claim or a start was lost: what it took is ours, whenever the statement comes through. */
  let isUnsure = false;

  /** Runs what claims under a token of its own. What Postgres refused has claimed nothing. */
  const within = async <T>(claim: (token: string) => Promise<T>): Promise<T> => {
    const token = crypto.randomUUID();
    underWay.add(token);
    failpoint("before-claim");
    try {
      const claimed = await claim(token);
      failpoint("after-claim");
      return claimed;
    } catch (error) {
      isUnsure ||= !isRefusal(error);
      throw error;
    } finally {
      underWay.delete(token);
    }
  };
  const claimWith = <T>(
    asked: Pick<LostClaim, "ids" | "flows">,
    ask: (options: ClaimOptions) => Promise<T>,
    claimedIn: (answer: T) => ReadonlyMap<ExecutionId, Claim>,
  ): Promise<T> =>
    within(async (token) => {
      // The one place for a suspect is taken before the claim, so that two claims at once do not bring two.
      const takesPoisonSuspects = poisonSuspects.tryAcquire();
      const options: ClaimOptions = {
        token,
        takesPoisonSuspects,
        onBroken: (broken, error) => onBroken({ ...broken, token }, error),
      };
      const answer = await withAnswerLimit(ask(options)).catch((error: unknown) => {
        // The job that asked is used up. Freeing what was asked for makes another job, even where nothing was claimed.
        lost.push({ token, ...asked, hasBegun: false });
        if (takesPoisonSuspects) poisonSuspects.release();
        throw error;
      });
      if (takesPoisonSuspects && ![...claimedIn(answer).values()].some(isPoisonSuspect)) poisonSuspects.release();
      return answer;
    });
  const claims = new Batcher<ExecutionId, Claim | null>({
    maxItems: 200,
    maxInFlight: 2,
    send: async (ids) => {
      const wanted = [...new Set(ids)];
      const claimed = await claimWith(
        { ids: wanted, flows: [] },
        (options) => store.claims.claim(workerId(), wanted, options),
        (taken) => taken,
      );
      // Two jobs may ask for one execution: it gets one owner.
      return ids.map((id) => {
        const own = claimed.get(id) ?? null;
        claimed.delete(id);
        return own;
      });
    },
  });
  const requests = new Batcher<SlotRequest, Claim | null>({
    maxItems: 200,
    send: async (asked) => {
      const ids = asked.flatMap(({ id }) => id ?? []);
      const claimed = await claimWith(
        { ids, flows: flowsOf(asked) },
        (options) => store.claims.claimLimited(workerId(), asked, options),
        (taken) => taken,
      );
      return handOut(asked, claimed);
    },
  });

  const free = async (claimed: LostClaim): Promise<void> => {
    const executions = await withAnswerLimit(store.claims.free(claimed));
    if (executions > 0)
      log.info("freed executions that the database assigned to this worker, but that it does not run", { executions });
  };

  return {
    take: (id) => claims.submit(id),
    claimLimited: (request) => requests.submit(request),
    handOver: (left, items) =>
      claimWith(
        { ids: [], flows: flowsOf(left) },
        (options) => store.commits.appendAndClaim(items, workerId(), left, options),
        ({ claimed }) => claimed,
      ),
    create: (executions, here) =>
      within(async (token) => {
        const worker = workerId();
        const owned = { worker, token, ids: new Set(here.map(({ id }) => id)) };
        const created = await withAnswerLimit(store.starts.create(executions, owned));
        const results = new Map(executions.map((execution, index) => [execution, created[index]]));
        const claimed = new Map<NewExecution, Claim>();
        for (const execution of here) {
          const result = results.get(execution);
          if (result?.isNew) claimed.set(execution, firstClaim(execution, { worker, token, now: result.at }));
        }
        return { created, claimed };
      }),
    send: (send, claimed) =>
      within((token) =>
        send(
          store.commandsClaiming({
            worker: workerId(),
            token,
            claimed,
            onBroken: (broken, error) => onBroken({ ...broken, token }, error),
          }),
        ),
      ),
    lose({ token, id }) {
      begun.add(`${token} ${id}`);
      lost.push({ token, ids: [id], flows: [], hasBegun: true });
    },
    freeLost() {
      const byClaim = Map.groupBy(lost, ({ token, hasBegun }) => `${token} ${hasBegun}`);
      lost = [];
      for (const [first, ...others] of byClaim.values()) {
        if (!first) continue;
        const alike = [first, ...others];
        const all = { ...first, ids: alike.flatMap(({ ids }) => ids), flows: alike.flatMap(({ flows }) => flows) };
        free(all).then(
          () => all.hasBegun && all.ids.forEach((id) => begun.delete(`${all.token} ${id}`)),
          (error: unknown) => {
            lost.push(all);
            onTrouble(error);
          },
        );
      }
    },
    async freeUnknown() {
      if (!isUnsure) return;
      const rows = await withAnswerLimit(store.claims.listOwned(workerId()));
      const unknown = rows.filter(
        ({ id, token }) => !isOwned(id) && !underWay.has(token) && !begun.has(`${token} ${id}`),
      );
      for (const [token, alike] of Map.groupBy(unknown, (row) => row.token))
        await free({ token, ids: alike.map(({ id }) => id), flows: [], hasBegun: false });
    },
  };
}

/** It lost workers without progress: perhaps it is the one that takes them down. */
export function isPoisonSuspect({ takeovers }: Claim): boolean {
  return takeovers >= 2;
}

function flowsOf(requests: readonly SlotRequest[]): string[] {
  return [...new Set(requests.map(({ flow }) => flow))];
}

/** To each request its own execution; the others go to the requests of their flow that got none. */
function handOut(requests: readonly SlotRequest[], claimed: Map<ExecutionId, Claim>): (Claim | null)[] {
  const results = requests.map(({ id }): Claim | null => {
    const own = (id && claimed.get(id)) ?? null;
    if (own) claimed.delete(own.id);
    return own;
  });
  const others = [...claimed.values()];
  requests.forEach(({ flow, hasRoom }, index) => {
    if (results[index] || !hasRoom) return;
    const next = others.findIndex((other) => other.flow === flow);
    if (next >= 0) results[index] = others.splice(next, 1)[0] ?? null;
  });
  return results;
}

/** The claim that a start made together with the execution. */
function firstClaim(execution: NewExecution, lease: Pick<Claim, "worker" | "token" | "now">): Claim {
  const { id, flow, item } = execution;
  const state = foldFrom(null, firstEvents(execution, lease.now));
  return {
    id,
    epoch: 1,
    flow,
    fingerprint: item?.fingerprint ?? null,
    state,
    takeovers: 0,
    items: 0,
    bytes: 0,
    snapshotBytes: 0,
    ...lease,
  };
}
