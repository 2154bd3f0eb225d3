/** The orchestrator that the functions of this process use. */
import { NotConfiguredError, UsageError } from "../base/errors.ts";
import { internals, Orchestrator } from "../orchestrator.ts";

// The library's only module state: a call of a function has no other way to its database.
let configured: Orchestrator | undefined;

/**
 * Says which orchestrator the functions of this process use. Once; after that one was closed, again.
 *
 * @throws {UsageError}
 */
export function configure(orchestrator: Orchestrator): void {
  if (!(orchestrator instanceof Orchestrator))
    throw new UsageError("configure() got no orchestrator", "pass what createOrchestrator() returns");
  if (configured && configured !== orchestrator && !configured[internals].isClosed)
    throw new UsageError("configure() was called with another orchestrator", "call it once, or close() the first one");
  configured = orchestrator;
}

/** @param called the call that needs it, for the error. @throws {NotConfiguredError} */
export function requireOrchestrator(called: string): Orchestrator {
  if (!configured) throw new NotConfiguredError(called);
  return configured;
}

/** The same where there may be none. */
export function configuredOrchestrator(): Orchestrator | undefined {
  return configured;
}
