/** The module that `worker` and `dev` serve. */
import { existsSync, statSync } from "node:fs";
import type { Command } from "commander";
import { z } from "zod";
import { UsageError } from "../base/errors.ts";
import { configure } from "../defer.ts";
import type { FlowDefinition } from "../flow/definition.ts";
import { createOrchestrator, internals } from "../orchestrator.ts";
import type { Orchestrator } from "../orchestrator.ts";
import type { FunctionDefinition } from "../orchestrator/options.ts";
import { importModule } from "../terminal.ts";
import { requireDatabase, schemaOf, type GlobalOptions } from "./command.ts";

/** By its shape, not its class: the module may have come with another copy of this package. */
const AnOrchestrator = z.custom<Orchestrator>(
  (value) => typeof value === "object" && value !== null && "startWorker" in value && "close" in value,
);
const AFlow = z.custom<FlowDefinition>(
  (value) => typeof value === "object" && value !== null && "graph" in value && "name" in value,
);
const AFunction = z.custom<FunctionDefinition>((value) => typeof value === "function" && "flow" in value);
const FlowModule = z
  .object({
    flows: z.array(AFlow).default([]),
    functions: z.array(AFunction).default([]),
    resources: z.record(z.string(), z.unknown()).optional(),
  })
  .refine(({ flows, functions }) => flows.length + functions.length > 0);

/** @throws {UsageError} */
export function requireModule(path: string): void {
  if (existsSync(path) && statSync(path).isFile()) return;
  throw new UsageError(`there is no module ${path.slice(0, 200)}`, "give the path of a .js or .ts file", { path });
}

export async function loadOrchestrator(path: string, command: Command): Promise<Orchestrator> {
  requireModule(path);
  const module = await importModule(path);
  const whole = AnOrchestrator.safeParse(module["default"]);
  const { json = false } = command.optsWithGlobals<GlobalOptions>();
  if (whole.success) return json ? loggingJson(whole.data) : whole.data;
  const parts = FlowModule.safeParse(module);
  if (!parts.success)
    throw new UsageError(
      `module ${path} exports nothing that a worker can serve`,
      "export an orchestrator as default, or `flows` or `functions` as lists (and `resources`)",
    );
  const { flows, functions, resources } = parts.data;
  const connection = requireDatabase(command);
  const orchestrator = createOrchestrator({
    connection,
    ...schemaOf(command),
    flows,
    functions,
    ...(resources && { resources }),
  });
  // A function may call another one.
  if (functions.length > 0) configure(orchestrator);
  return json ? loggingJson(orchestrator) : orchestrator;
}

/** What scripts read is JSON, line by line. */
function loggingJson(orchestrator: Orchestrator): Orchestrator {
  if (internals in orchestrator) orchestrator[internals].logJson();
  return orchestrator;
}

/** What it serves and where; nothing of an orchestrator that came with another copy of this package. */
export async function servedBy(orchestrator: Orchestrator) {
  if (!(internals in orchestrator)) return {};
  const { flows, store } = orchestrator[internals];
  const { place, names } = await store();
  return { flows: [...flows.keys()].toSorted(), database: place, schema: names.schema };
}
