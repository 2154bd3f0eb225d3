/**
 * What every entry point loads first: a Node that is too old is told so, before something that it lacks fails halfway. Bun and Deno have
 * versions of their own; where there is no process, there is none to check.
 */
export {};

const { node, bun, deno }: NodeJS.Dict<string> = globalThis.process?.versions ?? {};
if (node !== undefined && bun === undefined && deno === undefined) {
  const [major = 0, minor = 0] = node.split(".").map(Number);
  if (major < 22 || (major === 22 && minor < 18)) {
    const error = new Error(`flowledger needs Node 22.18 or newer, got ${node}: install a newer Node`);
    // Where nobody catches it, the sentence says all.
    error.stack = `Error: ${error.message}`;
    throw error;
  }
}
