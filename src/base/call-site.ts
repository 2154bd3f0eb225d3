/** Where our own files are, and where in the user's code a call of ours comes from, for what is said once per place. */
import { fileURLToPath } from "node:url";

/** The folder of this library's own files, `src` here and `dist` in the package; null where a bundler has left none. */
const folder = URL.parse("..", import.meta.url);
const own = folder?.protocol === "file:" ? [folder.href, fileURLToPath(folder)] : [];

/** The address of a module at the top of that folder, for a process of its own. */
export function ownModule(name: string): string {
  return new URL(name + (/\.\w+$/.exec(import.meta.url)?.[0] ?? ""), folder ?? import.meta.url).href;
}

/** The first line of the stack that is not our own; the whole stack where all is one file, as after a bundler. */
export function callSite(): string {
  const { stack = "" } = new Error();
  return callerIn(stack) ?? stack;
}

/** The first line of a stack that is not our own; null where there is none. */
export function callerIn(stack: string): string | null {
  return stack.split("\n").find(isCaller) ?? null;
}

function isCaller(frame: string): boolean {
  // Neither the message nor what the engine calls by itself, like `at Array.map (<anonymous>)`, has a position.
  if (!/:\d+:\d+\)?$/.test(frame) || frame.includes("node:")) return false;
  return !own.some((path) => frame.includes(path));
}
