#!/usr/bin/env node
/** `npx flowledger …`. An old Node is told so before anything is loaded that it cannot read. */
export {};

const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
if (major > 22 || (major === 22 && minor >= 18)) {
  const { main } = await import("./cli/main.ts");
  await main();
} else {
  process.stderr.write(
    `error: flowledger needs Node 22.18 or newer, got ${process.versions.node}: install a newer Node\n`,
  );
  process.exitCode = 1;
}
