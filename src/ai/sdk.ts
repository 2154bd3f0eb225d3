/** The AI SDK that the application has: loaded in one place, so that another major is refused with a sentence and not by a name that is missing. */
import * as ai from "ai";
import { UsageError } from "../base/errors.ts";

/** Names that version 7 has together, and no version before it. */
const names = ["streamText", "isStepCount", "toUIMessageChunk", "modelMessageSchema", "wrapLanguageModel", "asSchema"];

requireSdk(ai);

/** @throws {UsageError} it is another major */
export function requireSdk(sdk: object): void {
  const missing = names.filter((name) => !(name in sdk));
  if (missing.length === 0) return;
  throw new UsageError(
    `flowledger/ai needs version 7 of the package "ai", and found one without ${missing.join(", ")}`,
    "npm install ai@7",
    { missing },
  );
}

export { ai };
