/** `flowledger/console`: a web page over the same calls as the library, mounted behind the application's own login. */
import "./base/node.ts";
export { createAnswerPage } from "./console/answer.ts";
export { createConsole } from "./console/create.ts";
export { openConsole } from "./console/local.ts";
export { toNodeHandler } from "./console/node.ts";

export type { Access, Role } from "./console/access.ts";
export type { AnswerPage, AnswerPageOptions } from "./console/answer.ts";
export type { Console } from "./console/create.ts";
export type { LocalConsole, LocalOptions } from "./console/local.ts";
export type { ConsoleOptions, Redact, RedactContext } from "./console/options.ts";
