#!/usr/bin/env node
/** `npx flowledger …`. An old Node is told so before anything is loaded that it cannot read. */
export {};

const problem = await import("./base/node.ts").then(
  () => undefined,
  (error: Error) => error.message,
);
if (problem === undefined) {
  const { main } = await import("./cli/main.ts");
  await main();
} else {
  process.stderr.write(`error: ${problem}\n`);
  process.exitCode = 1;
}
