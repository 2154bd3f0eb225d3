/** Every route, who may take it, and what answers. */
import * as across from "./across.ts";
import * as graphs from "./graphs.ts";
import * as actions from "./actions.ts";
import type { Role } from "./access.ts";
import type { Asked, AskedOfOne } from "./desk.ts";
import * as lists from "./lists.ts";
import * as live from "./live.ts";
import * as one from "./one.ts";
import { cancelOperation, operationFailures, operations } from "./operations.ts";

export type Route =
  | { readonly role: Role; readonly all: (asked: Asked) => unknown }
  | { readonly role: Role; readonly one: (asked: AskedOfOne) => unknown };

/** By method and path; `:id` is an execution that has to exist for the person. */
export const routes: Readonly<Record<string, Route>> = {
  "GET me": { role: "viewer", all: lists.me },
  "GET executions": { role: "viewer", all: lists.executions },
  "GET count": { role: "viewer", all: lists.countExecutions },
  "GET inbox": { role: "viewer", all: lists.inbox },
  "GET failures": { role: "viewer", all: lists.failures },
  "GET flows": { role: "viewer", all: lists.flows },
  "GET graph": { role: "viewer", all: graphs.ofFlow },
  "GET operations": { role: "viewer", all: operations },
  "GET operation-failures": { role: "viewer", all: operationFailures },
  "POST cancel-operation": { role: "operator", all: cancelOperation },
  "GET workers": { role: "viewer", all: lists.workers },
  "GET schedules": { role: "viewer", all: lists.schedules },
  "POST pause-flow": { role: "operator", all: across.pauseFlow },
  "POST unpause-flow": { role: "operator", all: across.unpauseFlow },
  "POST run-schedule": { role: "operator", all: across.runSchedule },
  "POST bulk": { role: "operator", all: across.bulk },
  "GET executions/:id": { role: "viewer", one: one.overview },
  "GET executions/:id/timeline": { role: "viewer", one: one.timeline },
  "GET executions/:id/state": { role: "viewer", one: one.state },
  "GET executions/:id/ledger": { role: "viewer", one: one.ledger },
  "GET executions/:id/graph": { role: "viewer", one: graphs.ofOne },
  "GET executions/:id/payload": { role: "viewer", one: one.payload },
  "GET executions/:id/children": { role: "viewer", one: lists.children },
  "GET executions/:id/stream": { role: "viewer", one: live.stream },
  "GET executions/:id/watch": { role: "viewer", one: live.watch },
  "POST executions/:id/answer": { role: "responder", one: actions.answer },
  "POST executions/:id/claim": { role: "responder", one: actions.claim },
  "POST executions/:id/release": { role: "responder", one: actions.release },
  "POST executions/:id/delegate": { role: "responder", one: actions.delegate },
  "POST executions/:id/snooze": { role: "responder", one: actions.snooze },
  "POST executions/:id/retry": { role: "operator", one: actions.retry },
  "POST executions/:id/skip": { role: "operator", one: actions.skip },
  "POST executions/:id/pause": { role: "operator", one: actions.pause },
  "POST executions/:id/unpause": { role: "operator", one: actions.unpause },
  "POST executions/:id/cancel": { role: "operator", one: actions.cancel },
  "POST executions/:id/intervene": { role: "operator", one: actions.intervene },
  "POST executions/:id/fork": { role: "operator", one: actions.fork },
  "POST executions/:id/redrive": { role: "operator", one: actions.redrive },
  "POST executions/:id/edit-state": { role: "admin", one: actions.editState },
};

export interface Found {
  readonly route: Route;
  /** What stands for `:id`. */
  readonly id: string;
}

/** @returns "path" where nothing has that path, "method" where another method has it */
export function routeOf(method: string, path: string): Found | "path" | "method" {
  const [head = "", id = "", ...rest] = path.split("/");
  const pattern = head === "executions" && id !== "" ? ["executions", ":id", ...rest].join("/") : path;
  const route = Object.hasOwn(routes, `${method} ${pattern}`) ? routes[`${method} ${pattern}`] : undefined;
  if (route) return { route, id: decoded(id) };
  return ["GET", "POST"].some((other) => Object.hasOwn(routes, `${other} ${pattern}`)) ? "method" : "path";
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
