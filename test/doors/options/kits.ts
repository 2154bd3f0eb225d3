/** `flowledger/test`. */
import {
  anything,
  anyText,
  boolean,
  duration,
  either,
  input,
  integer,
  list,
  made,
  moment,
  object,
  optional,
  record,
  text,
} from "./kinds.ts";
import { type Row, actor, noFlow, schedule, tx, worker } from "./row.ts";

const beside = "has a test of its own beside this one: a kit is a database each";
export const kits: readonly Row[] = [
  {
    name: "test/TestRun.until",
    left: beside,
    args: {
      condition: either(made("idle"), object({ waiting: anyText, chunk: anyText, attempt: optional(integer(1)) })),
    },
  },
  {
    name: "test/TestRun.answer",
    left: beside,
    args: {
      waiting: anyText,
      value: input,
      options: optional(
        object({
          resumeRequestId: optional(text()),
          actor,
          onlyIfPending: optional(boolean),
          traceparent: optional(anyText),
          tx,
        }),
      ),
    },
  },
  { name: "test/TestRun.isOpen", left: "takes nothing", args: {} },
  { name: "test/Clock.now", left: "takes nothing", args: {} },
  { name: "test/Clock.advance", left: beside, args: { duration } },
  { name: "test/Clock.set", left: beside, args: { moment } },
  { name: "test/Clock.next", left: "takes nothing", args: {} },
  { name: "test/Clock.upcoming", left: "takes nothing", args: {} },
  {
    name: "test/testOrchestrator",
    left: beside,
    args: {
      options: object({
        flows: optional(list(made(noFlow))),
        mocks: optional(record(anything)),
        now: optional(moment),
        database: optional(anyText),
        workers: optional(integer(0, 100)),
        worker: optional(object(worker)),
        patience: optional(duration),
        functions: optional(list(anything)),
        resources: optional(record(anything)),
        schedules: optional(list(object(schedule))),
        logger: optional(made(console)),
        publicUrl: optional(made("https://example.com")),
      }),
    },
  },
];
