/** Links that answer a pause: made for each attempt that tells somebody of it, and kept as a hash alone. */
import { createHash, randomBytes } from "node:crypto";
import { isObject, type Json } from "../base/json.ts";
import type { ExecutionState } from "../ledger/state.ts";
import type { Notice } from "../ledger/parts.ts";

export interface Link {
  readonly url: string;
  /** SHA-256 of its token, hex. */
  readonly hash: string;
}

/** 256 bits, as 43 characters that need no escape in an address. */
export function newLink(publicUrl: string): Link {
  const token = randomBytes(32).toString("base64url");
  return { url: `${publicUrl}/a/${token}`, hash: createHash("sha256").update(token).digest("hex") };
}

/** Whether what is told of waits for an answer that may come by a link. */
export function wantsLink({ interrupts }: ExecutionState, { interrupt }: Notice): boolean {
  const asked = interrupts.get(interrupt);
  return asked?.status === "pending" && asked.link === true;
}

/** What the handler gets. */
export function withLink(notice: Json, { url }: Link): Json {
  return isObject(notice) ? { ...notice, link: url } : notice;
}
