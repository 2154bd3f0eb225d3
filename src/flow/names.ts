/** Names of flows and chunks. */
import { DefinitionError } from "../base/errors.ts";
import { showWhole, type Refuse } from "../base/option.ts";

/** Begins the names of the library's own flows. */
export const reservedPrefix = "flowledger.";
/** Does what `bulk()` asks for; every worker serves it. */
export const bulkFlowName = `${reservedPrefix}bulk`;

/** The task of its jobs has it in its identifier, and graphile-worker allows that 128 characters. */
const namePattern = /^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$/;

/** @throws {DefinitionError} */
export function requireFlowName(name: unknown): void {
  if (typeof name === "string" && namePattern.test(name)) return;
  throw new DefinitionError(
    typeof name === "string" ? name : showWhole(name),
    "the name is not allowed",
    "use 1 to 100 letters, digits and . _ : - that begin with a letter or digit",
  );
}

/** @throws {DefinitionError} also where there is nothing to name */
export function requireChunkName(name: unknown, handler: unknown, refuse: Refuse): void {
  if (typeof handler !== "function")
    refuse(`chunk ${showWhole(name)} has no handler`, "give to() a name and a function of ctx");
  if (typeof name !== "string" || name === "")
    return refuse("an anonymous function cannot be a chunk", `give it a name: to("name", handler)`);
  if (Array.from(name).length > 128 || /\p{Cc}/u.test(name) || !name.isWellFormed())
    refuse(`chunk name ${showWhole(name.slice(0, 40))} is not allowed`, "use up to 128 printable characters");
}
