/** The schema of an error as it is stored. Apart from the classes: what only throws them loads no zod. */
import { z } from "zod";

/** What a chunk or a worker threw, as the ledger keeps it. */
export const SerializedError = z.strictObject({
  name: z.string(),
  message: z.string(),
  stack: z.string().optional(),
  code: z.string().optional(),
  /** The chunk it came out of, where one did. */
  chunk: z.string().optional(),
  attempt: z.int().optional(),
});
export type SerializedError = z.infer<typeof SerializedError>;
