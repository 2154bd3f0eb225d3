/** What every argument and option of every public function takes. A place of the surface without a row here fails the test, and so does a row without a place. */
import { starts } from "./starts.ts";
import { operations } from "./operations.ts";
import { handles } from "./handles.ts";
import { definitions, readers } from "./definitions.ts";
import { chunkRows } from "./chunk.ts";
import { type Row } from "./row.ts";
import { kits } from "./kits.ts";
import { functions } from "./functions.ts";
import { administration } from "./administration.ts";

export const rows: readonly Row[] = [
  ...definitions,
  ...readers,
  ...starts,
  ...administration,
  ...operations,
  ...handles,
  ...functions,
];
export const allRows: readonly Row[] = [...rows, ...chunkRows, ...kits];

/** Of the kit: made by `testOrchestrator()`, or the same as what they stand for. */
export const leftOut: Readonly<Record<string, string>> = {
  "test/TestOrchestrator.": "the kit's own, walked in test/kit",
  "Flow.to(chunk": 'the first argument, which "name" stands for',
  "createOrchestrator(options.connection.": "a string, or options of the driver: walked in refusals.test.ts",
};
