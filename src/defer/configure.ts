/** The orchestrator that the functions of this process use. */
import { NotConfiguredError, UsageError } from "../base/errors.ts";
import { internals, Orchestrator } from "../orchestrator.ts";

// The one module state of the library, because calls of functions have no other way to their database.
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
